"""Folders that are no folders of this machine: buckets, ``s3://bucket/photos``, by fsspec.

Such a place is a ``UPath`` of universal-pathlib, which has the methods of ``pathlib.Path``. What is not
remote is a ``Path``, so that the board, which has no fsspec, never meets another.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any, Iterator

from .errors import FacetpuError, missing_module

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_PATTERN = re.compile(r"[*?[]")  # in what fsspec's rm does not take for the name of a file
# What botocore and google-auth raise, which fsspec passes on and which are no OSError.
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError", "RefreshError")
_UNREACHED = ("BotoCoreError",)  # what else botocore raises, of endpoints, connections and timeouts
_TIMES = ("LastModified", "last_modified", "updated", "mtime", "created")  # by kind of storage


def place(text: str) -> Path:
    """The local path or the URL that ``text`` is.

    Raises:
        FacetpuError: the URL is of no kind that is installed.
    """
    if not _URL.match(text):
        return Path(text)
    try:
        from upath import UPath

        # Listings are not kept: other processes and machines write there.
        path = UPath(text, use_listings_cache=False)
        path.fs  # noqa: B018 - loads what opens URLs of this kind
    except ImportError as error:
        raise missing_module(error) or FacetpuError(f"{text}: {error}, with pip") from None
    except ValueError as error:
        raise FacetpuError(f"{text}: {error}; s3:// and gs:// are such URLs") from None
    return path


def is_remote(path: Any) -> bool:
    """Whether ``path`` is a URL."""
    return not isinstance(path, (str, Path))


def as_path(path: Any) -> Path:
    """``path`` as a ``Path``, where it is text; a URL stays as it is."""
    return path if is_remote(path) else Path(path)


def absolute(path: Any) -> Path:
    """``path`` as it means the same to an engine's workers, whatever folder they run in."""
    return path if is_remote(path) else Path(path).absolute()


def lies_in(path: Path, folder: Path) -> bool:
    """Whether ``path`` is somewhere below ``folder``."""
    if is_remote(path) or is_remote(folder):
        return str(path).startswith(str(folder).rstrip("/") + "/")
    return folder.resolve() in path.resolve().parents


def listed(root: Any) -> Iterator[tuple[str, int, int]]:
    """Path below the URL ``root``, bytes and time in nanoseconds of each file there, hidden ones left out.

    Raises:
        FacetpuError: it may not be opened, or cannot be reached.
        OSError: a folder of it cannot be listed.
    """
    # Not by fsspec's walk, which leaves out the folders that it fails to list.
    folders = [""]
    while folders:
        below = folders.pop()
        folder = (root.path.rstrip("/") + "/" + below).rstrip("/")
        with named_errors(root):
            entries = root.fs.ls(folder, detail=True)
        for info in entries:
            path = info["name"].rstrip("/")
            name = path.rsplit("/", 1)[-1]
            if path == folder or name.startswith("."):  # a bucket's mark of a folder, or hidden
                continue
            if info["type"] == "directory":
                folders.append(f"{below}{name}/")
            else:
                yield below + name, int(info.get("size") or 0), _time(info)


def read_bytes(path: Any) -> bytes:
    """What is in ``path``, which may be a URL.

    Raises:
        FacetpuError: it may not be opened, or cannot be reached.
    """
    with named_errors(path):
        return bytes(path.read_bytes())


def upload(file: Path, to: Any) -> None:
    """Write the file ``file`` of this machine to the URL ``to``.

    Raises:
        FacetpuError: it may not be written, or cannot be reached.
    """
    with named_errors(to):
        to.fs.put_file(str(file), to.path)


def remove(folder: Any, but: str = "") -> None:
    """Delete all files below the URL ``folder``, and with them it, but that of the name ``but`` in it."""
    kept = f"{folder.path.rstrip('/')}/{but}"
    files = [file for file in folder.fs.find(folder.path) if file != kept]
    plain = [file for file in files if not _PATTERN.search(file)]
    if plain:
        folder.fs.rm(plain)  # many with one request
    for file in set(files).difference(plain):
        folder.fs.rm_file(file)


@contextlib.contextmanager
def named_errors(path: Any) -> Iterator[None]:
    """Say of what goes wrong meanwhile that it is the URL ``path`` which may not be opened or reached.

    Raises:
        FacetpuError: so it is.
    """
    try:
        yield
    except Exception as error:
        if not is_remote(path):
            raise
        reason = " ".join(str(error).split())
        if isinstance(error, PermissionError) or _is_of(error, _NO_CREDENTIALS):
            raise FacetpuError(
                f"{path}: may not be opened from here ({reason}); give this machine "
                "credentials, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from None
        if _is_of(error, _UNREACHED):
            raise FacetpuError(
                f"{path}: cannot be reached ({reason}); check the network and AWS_ENDPOINT_URL"
            ) from None
        raise


def _is_of(error: BaseException, names: tuple[str, ...]) -> bool:
    return any(kind.__name__ in names for kind in type(error).__mro__)


def _time(info: Any) -> int:
    """When a file was written; 0 where its storage does not tell."""
    time = next((info[key] for key in _TIMES if info.get(key)), 0)
    if isinstance(time, str):  # RFC 3339, as Google has it: its digits are a number that grows with time
        return int(re.sub(r"\D", "", time)[:18] or 0)
    return int((time.timestamp() if hasattr(time, "timestamp") else time) * 1_000_000_000)
