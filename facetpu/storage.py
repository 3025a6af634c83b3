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
# What botocore and google-auth raise, which fsspec passes on and which are no OSError.
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError", "RefreshError")
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


def lies_in(path: Path, folder: Path) -> bool:
    """Whether ``path`` is somewhere below ``folder``."""
    if is_remote(path) or is_remote(folder):
        return str(path).startswith(str(folder).rstrip("/") + "/")
    return folder.resolve() in path.resolve().parents


def listed(root: Any) -> Iterator[tuple[str, int, int]]:
    """Path below the URL ``root``, bytes and time in nanoseconds of each file there, hidden ones left out.

    Raises:
        FacetpuError: there is nothing there, or it may not be opened.
    """
    start = len(root.path.rstrip("/")) + 1
    with named_errors(root):
        for folder, folders, files in root.fs.walk(root.path, detail=True):
            for name in [name for name in folders if name.startswith(".")]:
                del folders[name]
            for name, info in files.items():
                if name and not name.startswith("."):
                    yield f"{folder}/{name}"[start:], int(info.get("size") or 0), _time(info)


def upload(file: Path, to: Any) -> None:
    """Write the file ``file`` of this machine to the URL ``to``."""
    to.fs.put_file(str(file), to.path)


def remove(folder: Any) -> None:
    """Delete the URL ``folder`` and all below it, if it is there."""
    if folder.exists():
        folder.fs.rm(folder.path, recursive=True)


@contextlib.contextmanager
def named_errors(path: Any) -> Iterator[None]:
    """Say of what goes wrong meanwhile that it is ``path`` which may not be opened, where it is so.

    Raises:
        FacetpuError: it may not.
    """
    try:
        yield
    except Exception as error:
        if is_remote(path) and (isinstance(error, PermissionError) or _is_of(error, _NO_CREDENTIALS)):
            raise FacetpuError(
                f"{path}: may not be opened from here ({' '.join(str(error).split())}); give this machine "
                "credentials, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
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
