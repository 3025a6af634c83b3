"""What was seen, by whom it was, and for how long that is known: ``events.db``, and the crops beside it.

A crop is written before the row that names it and deleted after the row, so that a house that is killed
leaves no row without its crop; a crop without a row is deleted when the diary is opened again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from pathlib import Path
from typing import Any, Iterator, NamedTuple

from ..errors import FacetpuError, os_error
from .answers import EventState
from .crops import CropFolder
from .refusals import Busy, Full, Unknown

log = logging.getLogger(__name__)

MOST_EVENTS = 20_000  # the oldest go before their time, so that a busy street does not fill the disk
DATABASE = "events.db"
VERSION = 1

_TABLES = """
CREATE TABLE IF NOT EXISTS event (
    id INTEGER PRIMARY KEY AUTOINCREMENT, camera TEXT NOT NULL, track INTEGER NOT NULL, name TEXT,
    corrected INTEGER NOT NULL DEFAULT 0, corrected_name TEXT, cosine REAL, began REAL NOT NULL,
    ended REAL NOT NULL, present INTEGER NOT NULL, sightings INTEGER NOT NULL, crop TEXT,
    kept_from REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS event_kept_from ON event (kept_from);
CREATE INDEX IF NOT EXISTS event_present ON event (id) WHERE present;
CREATE TABLE IF NOT EXISTS person (name TEXT PRIMARY KEY, last_seen REAL, portrait TEXT);
CREATE TABLE IF NOT EXISTS owner (photo TEXT PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS intent (
    id INTEGER PRIMARY KEY, action TEXT NOT NULL, name TEXT NOT NULL, other TEXT
);
CREATE TABLE IF NOT EXISTS clock (only INTEGER PRIMARY KEY CHECK (only = 0), left_at REAL NOT NULL);
"""
_WHO = "CASE WHEN corrected THEN corrected_name ELSE name END"
_STATE = (
    "id, camera, track, name, corrected, corrected_name, cosine, began, ended, present, sightings, "
    "crop IS NOT NULL AS crop"
)


class Intent(NamedTuple):
    """Something that was begun with the people, to be done again from the start if it was not ended."""

    id: int
    action: str
    name: str
    other: str | None


class Seen(NamedTuple):
    """What changes of an event as long as somebody is in the picture."""

    name: str | None
    cosine: float | None
    ended: float
    present: bool
    sightings: int


class Diary:
    """The events and the pictures of one state folder; for any thread.

    Every method that writes raises ``Full`` where the disk is full.
    """

    def __init__(self, folder: Path) -> None:
        """Open the diary in ``folder``, and mend what a house that was killed left behind.

        Raises:
            FacetpuError: the database is damaged, or a later facetpu's, or cannot be written to.
        """
        path = folder / DATABASE
        os.close(os.open(str(path), os.O_RDWR | os.O_CREAT, 0o600))
        self._lock = threading.RLock()
        self._closed = False
        self._traces = False  # of what was deleted
        self.crops, self.portraits = CropFolder(folder / "crops"), CropFolder(folder / "portraits")
        try:
            self._base = sqlite3.connect(str(path), check_same_thread=False, isolation_level=None)
            self._base.row_factory = sqlite3.Row
            for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "secure_delete=ON"):
                self._base.execute(f"PRAGMA {pragma}")
            (version,) = self._base.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise FacetpuError(f"{path}: was written by a later facetpu; update this one")
            self._base.executescript(f"{_TABLES}PRAGMA user_version = {VERSION};")
            with self._writing():
                self._base.execute("UPDATE event SET present = 0 WHERE present")
            self._sweep()
        except sqlite3.OperationalError as error:  # it is whole, as far as one can tell
            raise FacetpuError(
                f"{path}: cannot be opened ({error}); free some space, or see that you may write there"
            ) from None
        except sqlite3.DatabaseError as error:
            raise FacetpuError(f"{path}: cannot be used ({error}); move it away to begin a new one") from None

    def close(self) -> None:
        """Write all down and close; who asks later is told that the house is closed."""
        with self._lock:
            self._closed = True
            self._base.close()

    # --- events

    def begin(
        self, camera: str, track: int, seen: Seen, began: float, crop: bytes | None, kept_from: float
    ) -> int:
        """Write down that somebody appeared; the event's id.

        Args:
            camera: the camera's id.
            track: the number of the face on it.
            seen: who, and so on.
            began: when, by the wall clock.
            crop: a JPEG of the face.
            kept_from: when, by the house's clock.
        """
        with self._writing():
            columns = {"camera": camera, "track": track, "began": began, "kept_from": kept_from}
            columns.update(seen._asdict(), crop=None if crop is None else self.crops.add(crop))
            places = ", ".join("?" for _ in columns)
            row = self._base.execute(
                f"INSERT INTO event ({', '.join(columns)}) VALUES ({places})", tuple(columns.values())
            )
            self._was_seen(int(row.lastrowid or 0))
            return int(row.lastrowid or 0)

    def go_on(self, event: int, seen: Seen) -> None:
        """Write down how an event goes on; nothing where it was forgotten meanwhile."""
        with self._writing():
            self._base.execute(
                "UPDATE event SET name = ?, cosine = ?, ended = ?, present = ?, sightings = ? WHERE id = ?",
                (*seen, event),
            )
            self._was_seen(event)

    def end(self, event: int, ended: float, sightings: int) -> None:
        """Write down that an event is over, whosever it is by now; nothing where it was forgotten."""
        with self._writing():
            self._base.execute(
                "UPDATE event SET present = 0, ended = ?, sightings = ? WHERE id = ?",
                (ended, sightings, event),
            )
            self._was_seen(event)

    def event(self, event: int) -> EventState:
        """An event.

        Raises:
            Unknown: there is none such.
        """
        rows = self._rows(f"SELECT {_STATE} FROM event WHERE id = ?", event)
        if not rows:
            raise Unknown(f"there is no event {event}; it may have been forgotten")
        return _state(rows[0])

    def events(self, before: int | None, limit: int, name: str | None) -> list[EventState]:
        """At most ``limit`` events with smaller ids than ``before``, the newest first, of ``name`` or all."""
        where: str = ""
        values: list[Any] = []
        if before is not None:
            where, values = "WHERE id < ?", [before]
        if name is not None:
            where, values = f"{where or 'WHERE 1'} AND {_WHO} = ?", [*values, name]
        query = f"SELECT {_STATE} FROM event {where} ORDER BY id DESC LIMIT ?"
        return [_state(row) for row in self._rows(query, *values, limit)]

    def present(self) -> list[EventState]:
        """The events of those who are in the picture now, the newest first."""
        return [
            _state(row) for row in self._rows(f"SELECT {_STATE} FROM event WHERE present ORDER BY id DESC")
        ]

    def crop(self, event: int) -> bytes | None:
        """The JPEG of an event; None where there is none."""
        rows = self._rows("SELECT crop FROM event WHERE id = ?", event)
        name = rows[0]["crop"] if rows else None
        return None if name is None else self.crops.read(name)

    def correct(self, event: int, name: str | None) -> None:
        """Write down that an event is ``name``'s, or nobody's who is known."""
        with self._writing():
            was = self.event(event).who
            self._base.execute(
                "UPDATE event SET corrected = 1, corrected_name = ? WHERE id = ?", (name, event)
            )
            for who in {was, name} - {None}:
                self._know(str(who))
                self._base.execute(
                    f"UPDATE person SET last_seen = (SELECT ended FROM event WHERE {_WHO} = person.name "
                    "ORDER BY id DESC LIMIT 1) WHERE name = ?",
                    (who,),
                )

    def forget(self, event: int) -> None:
        """Delete an event and its crop."""
        self._delete("id = ?", event)

    def forget_before(self, kept_from: float) -> int:
        """Delete what was written down before this time of the house's clock, and what is too much.

        An event of somebody who is there still is kept until they leave, unless it is too much.
        """
        if self._traces:
            self._leave_no_trace()
        too_many = f"id <= (SELECT max(id) FROM event) - {MOST_EVENTS}"
        return self._delete(f"(kept_from < ? AND NOT present) OR {too_many}", kept_from)

    # --- people

    def last_seen(self) -> dict[str, float]:
        """When each person was seen last, by the wall clock."""
        rows = self._rows("SELECT name, last_seen FROM person WHERE last_seen IS NOT NULL")
        return {row["name"]: row["last_seen"] for row in rows}

    def with_portrait(self) -> set[str]:
        """The names of those of whom there is a portrait."""
        return {row["name"] for row in self._rows("SELECT name FROM person WHERE portrait IS NOT NULL")}

    def portrait(self, name: str) -> bytes | None:
        """The portrait of ``name``, a JPEG; None where there is none."""
        rows = self._rows("SELECT portrait FROM person WHERE name = ? AND portrait IS NOT NULL", name)
        return self.portraits.read(rows[0]["portrait"]) if rows else None

    def give_portrait(self, name: str, picture: bytes) -> None:
        """Make ``picture`` the portrait of ``name``, who has none yet."""
        with self._writing():
            self._know(name)
            file = self.portraits.add(picture)
            self._base.execute("UPDATE person SET portrait = ? WHERE name = ?", (file, name))

    def rename(self, name: str, new: str) -> None:
        """Write ``new`` wherever ``name`` stands; where both do, as after a merge, the two become one."""
        with self._writing():
            self._rename(name, new)
        self._sweep()

    def erase(self, name: str) -> None:
        """Leave nothing of ``name``: neither portrait nor, of each event of theirs, name and crop."""
        with self._writing():
            self._erase(name)
        self._sweep()
        self._leave_no_trace()

    def owners(self) -> dict[str, str]:
        """Whose each enrolled photo was, by its SHA-256, when ``follow`` was called last."""
        return {row["photo"]: row["name"] for row in self._rows("SELECT photo, name FROM owner")}

    def follow(self, heirs: dict[str, str | None], owners: dict[str, str]) -> None:
        """Have all that was seen follow the people of now, at once: two may have changed their names.

        Args:
            heirs: who each of these names is now; None for nobody, who is erased.
            owners: whose each enrolled photo is now, by its SHA-256.
        """
        with self._writing():
            between = {name: f"/{number}" for number, name in enumerate(heirs)}  # which nobody is called
            for name, heir in heirs.items():
                if heir is None:
                    self._erase(name)
                else:
                    self._rename(name, between[name])
            for name, heir in heirs.items():
                if heir is not None:
                    self._rename(between[name], heir)
            self._base.execute("DELETE FROM owner")
            self._base.executemany("INSERT INTO owner (photo, name) VALUES (?, ?)", owners.items())
        if heirs:
            self._sweep()
        self._leave_no_trace()

    def _rename(self, name: str, new: str) -> None:
        for column in ("name", "corrected_name"):
            self._base.execute(f"UPDATE event SET {column} = ? WHERE {column} = ?", (new, name))
        self._base.execute("UPDATE owner SET name = ? WHERE name = ?", (new, name))
        people = {row["name"]: row for row in self._rows("SELECT * FROM person")}
        both = [people[who] for who in (new, name) if who in people]
        seen = [row["last_seen"] for row in both if row["last_seen"] is not None]
        portraits = [row["portrait"] for row in both if row["portrait"] is not None]
        self._base.execute("DELETE FROM person WHERE name IN (?, ?)", (name, new))
        self._base.execute(
            "INSERT INTO person (name, last_seen, portrait) VALUES (?, ?, ?)",
            (new, max(seen) if seen else None, portraits[0] if portraits else None),
        )

    def _erase(self, name: str) -> None:
        self._base.execute(f"UPDATE event SET crop = NULL WHERE {_WHO} = ?", (name,))
        for column in ("name", "corrected_name"):
            self._base.execute(f"UPDATE event SET {column} = NULL WHERE {column} = ?", (name,))
        for table in ("person", "owner"):
            self._base.execute(f"DELETE FROM {table} WHERE name = ?", (name,))

    def names(self) -> set[str]:
        """Everybody who is named in it."""
        columns = ("name FROM event", "corrected_name FROM event", "name FROM person")
        rows = self._rows(" UNION ".join(f"SELECT {column}" for column in columns))
        return {row["name"] for row in rows if row["name"] is not None}

    # --- what was begun, and the clock

    def intend(self, action: str, name: str, other: str | None = None) -> int:
        """Write down what is about to be done with the people; its id."""
        with self._writing():
            row = self._base.execute(
                "INSERT INTO intent (action, name, other) VALUES (?, ?, ?)", (action, name, other)
            )
            return int(row.lastrowid or 0)

    def done(self, intent: int) -> None:
        """It was done, or refused."""
        with self._writing():
            self._base.execute("DELETE FROM intent WHERE id = ?", (intent,))
        self._leave_no_trace()

    def intents(self) -> list[Intent]:
        """What was begun and not ended."""
        return [Intent(*row) for row in self._rows("SELECT id, action, name, other FROM intent ORDER BY id")]

    def left_at(self) -> float:
        """What the house's clock said last; 0 where there was none."""
        rows = self._rows("SELECT left_at FROM clock")
        return float(rows[0]["left_at"]) if rows else 0.0

    def leave_at(self, moment: float) -> None:
        """Write down what the house's clock says."""
        with self._writing():
            self._base.execute("INSERT OR REPLACE INTO clock (only, left_at) VALUES (0, ?)", (moment,))

    # --- the database

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """A transaction: all of the block, or nothing."""
        with self._lock:
            self._check_open()
            if self._base.in_transaction:  # of a method that calls this one
                yield
                return
            try:
                self._base.execute("BEGIN IMMEDIATE")
                yield
                self._base.execute("COMMIT")
            except BaseException as error:
                if self._base.in_transaction:
                    self._base.execute("ROLLBACK")
                if isinstance(error, sqlite3.OperationalError):
                    raise Full(f"{DATABASE}: cannot be written ({error}); free some space") from None
                if isinstance(error, OSError):
                    raise Full(str(os_error(error))) from None
                raise

    def _rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock:
            self._check_open()
            try:
                return self._base.execute(query, values).fetchall()
            except sqlite3.OperationalError as error:
                raise Busy(f"{DATABASE}: cannot be read ({error})") from None

    def _check_open(self) -> None:
        if self._closed:
            raise Busy("the house is closed")

    def _know(self, name: str) -> None:
        self._base.execute("INSERT OR IGNORE INTO person (name) VALUES (?)", (name,))

    def _was_seen(self, event: int) -> None:
        """Whose event it is was seen when it ended last."""
        rows = self._rows(f"SELECT {_WHO} AS who, ended FROM event WHERE id = ?", event)
        if rows and rows[0]["who"] is not None:
            self._know(rows[0]["who"])
            self._base.execute(
                "UPDATE person SET last_seen = ? WHERE name = ?", (rows[0]["ended"], rows[0]["who"])
            )

    def _delete(self, where: str, *values: Any) -> int:
        with self._writing():
            crops = self._rows(f"SELECT crop FROM event WHERE {where}", *values)
            self._base.execute(f"DELETE FROM event WHERE {where}", values)
        self.crops.remove(row["crop"] for row in crops if row["crop"] is not None)
        return len(crops)

    def _leave_no_trace(self) -> None:
        """Bring what was deleted into the database, so that neither it nor its log holds it any longer.

        On a full disk that has to wait: it is tried again with the next sweep.
        """
        with self._lock:
            try:
                self._base.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                self._traces = False
            except sqlite3.OperationalError as error:
                self._traces = True
                log.warning("%s holds what was deleted until there is space again (%s)", DATABASE, error)

    def _sweep(self) -> None:
        """Delete the pictures that no row names."""
        with self._lock:
            for folder, table, column in (
                (self.crops, "event", "crop"),
                (self.portraits, "person", "portrait"),
            ):
                rows = self._rows(f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL")
                folder.keep_only({row[column] for row in rows})


def _state(row: sqlite3.Row) -> EventState:
    values = dict(row)
    for flag in ("corrected", "present", "crop"):
        values[flag] = bool(values[flag])
    return EventState(**values)
