"""Small pictures of faces, in files with names that nobody chose: ``RANDOM.jpg``, for their owner."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Iterable, Sequence

import numpy as np

from ..artefacts import write_bytes
from .live import jpeg

LARGEST = 320  # pixels of the longer side: enough to enrol it
QUALITY = 92
_AROUND = 0.35  # of the face's box, on each side of it


class CropFolder:
    """A folder of pictures, which the diary knows by their names."""

    def __init__(self, folder: Path) -> None:
        """Make ``folder`` where it is missing."""
        self._folder = folder
        folder.mkdir(mode=0o700, exist_ok=True)

    def add(self, picture: bytes) -> str:
        """Write a JPEG; its name.

        Raises:
            OSError: it cannot be written, as on a full disk.
        """
        name = f"{secrets.token_hex(16)}.jpg"
        write_bytes(self._folder / name, picture, mode=0o600)
        return name

    def read(self, name: str) -> bytes | None:
        """The JPEG called ``name``; None where it has gone meanwhile."""
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def remove(self, names: Iterable[str]) -> None:
        """Delete those that are there of ``names``."""
        for name in names:
            try:
                (self._folder / name).unlink()
            except FileNotFoundError:
                continue

    def keep_only(self, names: set[str]) -> None:
        """Delete all else, which a house that was killed left behind."""
        self.remove(path.name for path in sorted(self._folder.iterdir()) if path.name not in names)


def face_picture(image: np.ndarray, box: Sequence[float]) -> bytes:
    """A JPEG of a face with some of what is around it.

    Args:
        image: uint8 [H, W, 3] RGB.
        box: x1, y1, x2, y2 of the face, which may reach beyond the image.
    """
    x1, y1, x2, y2 = box
    wide, high = _AROUND * (x2 - x1), _AROUND * (y2 - y1)
    height, width = image.shape[:2]
    left, top = int(np.clip(x1 - wide, 0, width - 1)), int(np.clip(y1 - high, 0, height - 1))
    right, bottom = int(np.clip(x2 + wide, left + 1, width)), int(np.clip(y2 + high, top + 1, height))
    return jpeg(image[top:bottom, left:right], LARGEST, QUALITY)
