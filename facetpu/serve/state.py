"""The state folder of a house, which one house at a time has open."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..errors import FacetpuError


class StateLock:
    """A folder for its owner, held as long as this process lives or until it is released."""

    def __init__(self, folder: Path) -> None:
        """Make ``folder`` where it is missing, and hold it.

        Raises:
            FacetpuError: it cannot be made, or another house holds it.
        """
        if not folder.parent.is_dir():
            raise FacetpuError(f"{folder.parent}: no such folder; create it first")
        folder.mkdir(mode=0o700, exist_ok=True)
        self._file: Any = os.fdopen(os.open(str(folder / "lock"), os.O_RDWR | os.O_CREAT, 0o600), "w")
        try:
            import fcntl
        except ImportError:  # Windows has no flock; a second house there is not noticed.
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise FacetpuError(f"{folder}: another facetpu serve uses it; give another --state") from None

    def release(self) -> None:
        """Let another house have it."""
        self._file.close()
