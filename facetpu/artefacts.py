"""What passes between stages on disk: written whole or not at all, and known by its manifest.

A file is written beside its place and renamed into it. A folder is built as ``.NAME.partial``
beside its place and renamed when it is complete, so that a reader never sees half of one; a killed
run leaves the partial folder, which the next run with the same settings goes on from. An empty
``.NAME.lock`` stands beside it as long as a run is writing.

Buckets rename nothing. A folder in one is built in its place, with ``.facetpu-run.json`` in it until it is
complete, and is read by none of ours before.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, Iterator

from . import __version__
from .errors import FacetpuError
from .storage import as_path, is_remote, listed, named_errors, remove

MANIFEST = "manifest.json"
_RUN = ".facetpu-run.json"

# From Linux's fs.h and fcntl.h, for renameat2.
_RENAME_EXCHANGE, _AT_FDCWD = 2, -100


class BeingWritten(FacetpuError):
    """Another run is writing what is to be written."""


@contextlib.contextmanager
def new_file(path: Path, overwrite: bool = False, mode: int = 0o644) -> Iterator[Path]:
    """Yield a temporary sibling of ``path`` to write to; it becomes ``path`` when the block succeeds.

    Raises:
        FacetpuError: ``path`` exists and ``overwrite`` is false, or its folder is missing.
    """
    path = Path(path)
    check_new(path, overwrite)
    if path.is_dir():
        raise FacetpuError(f"{path}: is a folder, and a file is to be written; choose another path")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        if error.filename is None:  # a write to an open file that fails, as on a full disk, has no name
            error.filename = str(path)
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def write_bytes(path: Path, data: bytes, overwrite: bool = False, mode: int = 0o644) -> None:
    """Write ``data`` to ``path`` atomically."""
    if is_remote(path):
        with named_errors(path):
            path.write_bytes(data)
        return
    with new_file(path, overwrite, mode) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str, overwrite: bool = False, mode: int = 0o644) -> None:
    """Write ``text`` as UTF-8 with newlines as they are, atomically."""
    write_bytes(path, text.encode("utf-8"), overwrite, mode)


@contextlib.contextmanager
def new_folder(
    out: Path, overwrite: bool = False, resume_key: dict[str, Any] | None = None, keep: bool = False
) -> Iterator[Path]:
    """Yield the partial folder of ``out``; it becomes ``out`` when the block succeeds.

    Args:
        out: the folder to make.
        overwrite: replace ``out``, which must then be a folder that facetpu wrote, or empty.
        resume_key: what must be equal for the partial folder of a killed run to be taken up again;
            None starts afresh.
        keep: keep the partial folder when the block fails, for a later run to go on from.

    Raises:
        FacetpuError: ``out`` exists, its parent does not, or another run is building it.
    """
    if is_remote(out):
        with _new_remote_folder(out, overwrite, resume_key):
            yield out
        return
    out = Path(out)
    _check_parent(out)
    partial = _partial(out)
    with locked(out):
        _undo_half_swap(out)
        check_new(out, overwrite)
        partial.mkdir(exist_ok=True)
        if resume_key is None or _read_json(partial / _RUN) != _plain(resume_key):
            _empty(partial)
            (partial / _RUN).write_text(_dump(resume_key), encoding="utf-8")
        try:
            yield partial
        except BaseException:
            if not keep:
                shutil.rmtree(partial, ignore_errors=True)
            raise
        (partial / _RUN).unlink()
        _swap(partial, out)


def mend_folder(out: Path) -> None:
    """Clear up what a run that was killed while it wrote ``out`` left beside it, and never goes on from.

    Raises:
        FacetpuError: another run is writing it.
    """
    with locked(out):
        _undo_half_swap(out)
        _remove(_partial(out))


@contextlib.contextmanager
def _new_remote_folder(out: Path, overwrite: bool, resume_key: dict[str, Any] | None) -> Iterator[None]:
    """``new_folder`` in a bucket: what a failed run wrote there is kept, and gone on from if it fits."""
    check_new(out, overwrite)
    with named_errors(out):
        if resume_key is None or _read_json(out / _RUN) != _plain(resume_key):
            write_text(out / _RUN, _dump(None))  # A kill from here on must not leave what looks complete.
            remove(out, but=_RUN)
            write_text(out / _RUN, _dump(resume_key))
        yield
        (out / _RUN).unlink()


def check_new(out: Path, overwrite: bool = False) -> None:
    """Refuse a place that cannot be written to, before any work is done.

    Raises:
        FacetpuError: ``out`` exists and may not be replaced, or the folder it is to stand in is missing.
    """
    if is_remote(out):
        _check_new_remote(out, overwrite)
        return
    out = Path(out)
    _check_parent(out)
    if not os.path.lexists(str(out)):
        return
    if out.is_dir():
        if not any(out.iterdir()):
            return
        if overwrite and not (out / MANIFEST).is_file():
            raise FacetpuError(f"{out}: holds files that facetpu did not write; choose another folder")
    if not overwrite:
        raise FacetpuError(f"{out}: exists; choose another name, or pass --overwrite to replace it")


def _check_new_remote(out: Path, overwrite: bool) -> None:
    with named_errors(out):
        if (out / _RUN).exists():
            return
        if (out / MANIFEST).exists():
            if not overwrite:
                raise FacetpuError(f"{out}: exists; choose another name, or pass --overwrite to replace it")
        elif out.exists():
            raise FacetpuError(f"{out}: holds files that facetpu did not write; choose another folder")


def check_shared(*folders: Path) -> None:
    """Refuse folders that are there for who started the work and not for who does it, as on another machine.

    Raises:
        FacetpuError: one is not.
    """
    for folder in folders:
        with named_errors(folder):
            if not folder.is_dir():
                raise FacetpuError(
                    f"{folder}: is not there; put it on a disk that all machines share, or in a bucket"
                )


def _check_parent(out: Path) -> None:
    if not out.parent.is_dir():
        raise FacetpuError(f"{out.parent}: no such folder; create it first")
    if not os.access(str(out.parent), os.W_OK | os.X_OK):
        raise FacetpuError(f"{out.parent}: may not be written to; choose another place for {out.name}")


def write_manifest(
    folder: Path, stage: str, config: dict[str, Any], inputs: dict[str, str], **results: Any
) -> None:
    """Write ``folder/manifest.json``: what made this folder, from what, and what came of it.

    It holds no time and no path, so that equal work gives equal bytes.
    """
    manifest = {"stage": stage, "version": __version__, "config": config, "inputs": inputs}
    manifest.update(results)
    write_text(as_path(folder) / MANIFEST, _dump(manifest), overwrite=True)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of ``folder``, or an empty dict where it has none.

    Raises:
        FacetpuError: the manifest is damaged, or the folder is not complete yet.
    """
    folder = as_path(folder)
    if is_remote(folder) and (folder / _RUN).exists():
        raise FacetpuError(f"{folder}: is not complete; run the command that makes it again")
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    manifest = _read_json(path)
    if not isinstance(manifest, dict):
        raise FacetpuError(f"{path}: is damaged; make {folder} again with --overwrite")
    return manifest


def finished(out: Path, stage: str, config: dict[str, Any], inputs: dict[str, str]) -> dict[str, Any] | None:
    """The manifest of ``out`` if this stage already made it from the same inputs and settings, else None."""
    out = as_path(out)
    with named_errors(out):
        if not out.is_dir() or (is_remote(out) and (out / _RUN).exists()):
            return None
        manifest = read_manifest(out)
    asked = {"stage": stage, "version": __version__, "config": _plain(config), "inputs": _plain(inputs)}
    return manifest if all(manifest.get(key) == value for key, value in asked.items()) else None


def digest(path: Path, times: bool = False) -> str:
    """SHA-256 of a file's bytes, or of a folder's listing (names and sizes, hidden files left out).

    Args:
        path: the file or folder.
        times: count a folder's modification times too, for files that facetpu did not write.
    """
    path = as_path(path)
    sha = hashlib.sha256()
    if is_remote(path):
        for name, size, time in sorted(listed(path)):
            sha.update(json.dumps([name, size] + ([time] if times else [])).encode("utf-8") + b"\n")
    elif path.is_dir():
        for file in files_under(path):
            stat = file.stat()
            row = [file.relative_to(path).as_posix(), stat.st_size] + ([stat.st_mtime_ns] if times else [])
            sha.update(json.dumps(row).encode("utf-8") + b"\n")
    else:
        with open(str(path), "rb") as stream:
            for block in iter(lambda: stream.read(1 << 20), b""):
                sha.update(block)
    return sha.hexdigest()


def files_under(root: Path) -> Iterator[Path]:
    """Every file below ``root`` in sorted order, hidden files and folders left out."""
    if is_remote(root):
        yield from (root / name for name, _, _ in sorted(listed(root)))
        return
    for folder, folders, files in os.walk(str(root), followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield Path(folder) / name


def _plain(value: Any) -> Any:
    """``value`` as JSON gives it back: tuples as lists, paths as text."""
    return json.loads(_dump(value))


def _dump(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, default=str) + "\n"


def _read_json(path: Path) -> Any:
    """What is in ``path``; None where it is not there or damaged.

    Raises:
        OSError: it cannot be read now, which says nothing of what is in it.
    """
    try:
        return json.loads(as_path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        _remove(entry)


def _partial(out: Path) -> Path:
    """Where ``out`` is built."""
    return out.with_name(f".{out.name}.partial")


def _old(out: Path) -> Path:
    """Where what ``out`` replaces stands while it is being replaced."""
    return out.with_name(f".{out.name}.old")


def _swap(partial: Path, out: Path) -> None:
    """Put ``partial`` in the place of ``out``; what stood there is removed only once the new one stands."""
    old = _old(out)
    if not os.path.lexists(str(out)):
        os.replace(str(partial), str(out))
    elif _exchanged(partial, out):
        os.replace(str(partial), str(old))
    else:
        os.replace(str(out), str(old))
        os.replace(str(partial), str(out))
    _sync_folder(out.parent)
    _remove(old)


def _exchanged(partial: Path, out: Path) -> bool:
    """Whether the two have changed places in one step, as Linux can on most of its file systems.

    Without it there is a moment in which ``out`` does not exist; ``_undo_half_swap`` mends a kill in it.
    """
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # another system, or glibc before 2.28
        return False
    paths = os.fsencode(str(partial)), os.fsencode(str(out))
    return bool(rename(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0)


def _undo_half_swap(out: Path) -> None:
    """Mend what a kill in the middle of ``_swap`` left: the old folder comes back, or goes for good."""
    old = _old(out)
    if os.path.lexists(str(old)):
        if os.path.lexists(str(out)):
            _remove(old)
        else:
            os.replace(str(old), str(out))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(str(path))
    elif os.path.lexists(str(path)):
        path.unlink()


def _sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut, where the system can open a folder."""
    if os.name != "posix":
        return
    descriptor = os.open(str(folder), os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the lock of ``out``, so that two runs never build the same folder at once.

    Raises:
        FacetpuError: another run holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no flock; a second run there is not noticed.
        yield
        return
    path = out.with_name(f".{out.name}.lock")
    while True:
        with open(str(path), "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BeingWritten(f"{out}: another run is writing it; wait for it to end") from None
            if not _is_open_at(path, lock.fileno()):
                continue  # whoever held it before has removed it meanwhile
            try:
                yield
            finally:
                path.unlink()
            return


def _is_open_at(path: Path, descriptor: int) -> bool:
    """Whether the file that is open is the one that stands at ``path``."""
    try:
        return os.path.samestat(os.stat(str(path)), os.fstat(descriptor))
    except FileNotFoundError:
        return False
