"""The photos below a folder and what came of each, in an SQLite file: a million of them in little memory.

A journal is made in a file of SQLite's own that needs no name, is saved where the work is done, and
survives a kill at any moment with every record that was noted before it. Paths are texts below the
folder, with slashes, and come in the order of their code points.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ..errors import FacetpuError
from ..people import PHOTO_SUFFIXES, check_folder
from ..storage import is_remote, listed

PAGE = 1000  # photos read at once

_TABLE = """
    CREATE TABLE photos (
        name TEXT PRIMARY KEY, size INTEGER, time INTEGER, stem TEXT NOT NULL, record TEXT
    ) WITHOUT ROWID
"""
_DOUBLE_STEMS = """
    UPDATE photos SET stem = name WHERE stem != name AND folded(stem) IN
        (SELECT folded(stem) FROM photos GROUP BY 1 HAVING COUNT(*) > 1)
"""
_OTHER_SHARDS = """
    DELETE FROM photos WHERE name IN (SELECT name FROM
        (SELECT name, ROW_NUMBER() OVER (ORDER BY name) AS place FROM photos)
        WHERE place % :count != :number % :count)
"""


class Entry(NamedTuple):
    """A photo in the journal.

    Attributes:
        photo: its path below the folder.
        stem: where its crops go: the path of the crop without its ending.
        record: what came of it; empty while it is not done.
    """

    photo: str
    stem: str
    record: dict[str, Any]


class Journal:
    """An open journal; ``with`` closes it."""

    def __init__(self, path: Path | None = None) -> None:
        """Open the journal at ``path``, or a new one that vanishes when it is closed.

        Raises:
            FacetpuError: ``path`` is damaged.
        """
        self._path = path
        with _named_errors(path):
            self._db = sqlite3.connect(str(path) if path else "")
            # No other process reads it, and one kept from a file's shared memory works on any disk.
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.create_function("folded", 1, str.casefold, deterministic=True)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._db.close()
        if isinstance(error, sqlite3.DatabaseError):
            raise _named(error, self._path) from None

    @classmethod
    def of(cls, photos: Path) -> Journal:
        """A journal of every photo below ``photos``, by the endings of their names, none of them done.

        Raises:
            FacetpuError: ``photos`` is no folder or holds no photo, or a name is not UTF-8.
        """
        check_folder(photos)
        journal = cls()
        journal._db.execute(_TABLE)
        found = listed(photos) if is_remote(photos) else _listed(photos)
        rows = ((name, size, time, _without_ending(name)) for name, size, time in found if _is_photo(name))
        journal._db.executemany("INSERT INTO photos (name, size, time, stem) VALUES (?, ?, ?, ?)", rows)
        if not journal.count():
            raise FacetpuError(f"{photos}: holds no photo ({', '.join(sorted(PHOTO_SUFFIXES))})")
        # Photos that differ only in the ending (a.jpg, a.png), or in letter case, keep it: a.jpg.png,
        # a.png.png. So no crop is ever lost, and none depends on which photo came first.
        while journal._db.execute(_DOUBLE_STEMS).rowcount:
            pass
        journal._db.commit()
        return journal

    def digest(self) -> str:
        """SHA-256 of the photos' names, sizes and times."""
        sha = hashlib.sha256()
        for row in self._db.execute("SELECT name, size, time FROM photos ORDER BY name"):
            sha.update(json.dumps(row).encode("utf-8") + b"\n")
        return sha.hexdigest()

    def folders(self) -> Iterator[str]:
        """The folders directly below, of which each should be a person."""
        rows = self._db.execute(
            "SELECT DISTINCT substr(name, 1, instr(name, '/') - 1) AS folder "
            "FROM photos WHERE instr(name, '/') ORDER BY folder"
        )
        return (folder for (folder,) in rows)

    def keep_shard(self, number: int, count: int) -> None:
        """Forget the photos that are not in shard ``number`` of ``count``: each ``count``-th is."""
        self._db.execute(_OTHER_SHARDS, {"number": number, "count": count})
        self._db.commit()

    def save(self, path: Path) -> None:
        """Write the journal to ``path``, whole or not at all."""
        incoming = path.with_name(path.name + ".incoming")
        with contextlib.suppress(FileNotFoundError):
            incoming.unlink()
        with _named_errors(path), contextlib.closing(sqlite3.connect(str(incoming))) as copy:
            self._db.backup(copy)
        os.replace(incoming, path)

    def count(self, done: bool = False) -> int:
        """How many photos there are, or are done."""
        column = "record" if done else "*"
        return int(self._db.execute(f"SELECT COUNT({column}) FROM photos").fetchone()[0])

    def left(self) -> Iterator[Entry]:
        """The photos that are not done, while records may be noted."""
        return self._entries("record IS NULL")

    def done(self) -> Iterator[Entry]:
        """The photos that are done, while records may be noted."""
        return self._entries("record IS NOT NULL")

    def entry(self, photo: str) -> Entry | None:
        """What is known of ``photo``; None where there is no such photo."""
        row = self._db.execute("SELECT name, stem, record FROM photos WHERE name = ?", (photo,)).fetchone()
        return None if row is None else _entry(row)

    def note(self, photo: str, record: dict[str, Any]) -> None:
        """Note what came of ``photo``, so that a kill right after this does not lose it.

        An empty record means that it is not done.
        """
        text = json.dumps(record) if record else None
        self._db.execute("UPDATE photos SET record = ? WHERE name = ?", (text, photo))
        self._db.commit()

    def _entries(self, condition: str) -> Iterator[Entry]:
        last = ""
        while True:
            rows = self._db.execute(
                f"SELECT name, stem, record FROM photos WHERE name > ? AND {condition} ORDER BY name LIMIT ?",
                (last, PAGE),
            ).fetchall()
            if not rows:
                return
            yield from map(_entry, rows)
            last = rows[-1][0]


@contextlib.contextmanager
def _named_errors(path: Path | None) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise _named(error, path) from None


def _named(error: sqlite3.DatabaseError, path: Path | None) -> Exception:
    """What SQLite said of the journal at ``path``, as a user is to be told it."""
    if isinstance(error, sqlite3.OperationalError) and re.search("full|disk I/O", str(error)):
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path) if path else None)
    return FacetpuError(f"{path}: is damaged ({error}); delete its folder and start again")


def remove_journal(path: Path) -> None:
    """Delete the journal at ``path`` and what SQLite keeps beside it."""
    for name in (path.name, path.name + "-wal", path.name + "-shm", path.name + "-journal"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(name).unlink()


def _entry(row: tuple[str, str, str | None]) -> Entry:
    photo, stem, record = row
    return Entry(photo, stem, json.loads(record) if record else {})


def _without_ending(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _listed(root: Path) -> Iterable[tuple[str, int, int]]:
    """Name, bytes and time of each photo below ``root``, hidden ones left out, in no order."""
    folders = [""]
    while folders:
        below = folders.pop()
        with os.scandir(root / below) as entries:
            for entry in entries:
                name = below + entry.name
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    folders.append(name + "/")
                elif _is_photo(name):
                    _check_text(name, root)
                    stat = entry.stat(follow_symlinks=entry.is_file())  # a link to nothing has its own
                    yield name, stat.st_size, stat.st_mtime_ns


def _is_photo(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in PHOTO_SUFFIXES


def _check_text(name: str, root: Path) -> None:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise FacetpuError(f"{root}: the name {name!a} is not UTF-8; rename it") from None
