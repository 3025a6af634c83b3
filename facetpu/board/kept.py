"""The photos that an imprinted folder keeps where it is asked to: ``photos/SHA256.jpg``, for their owner."""

from __future__ import annotations

from pathlib import Path
from typing import Iterable

from ..artefacts import write_bytes
from .folder import PHOTOS


def kept_photos(root: Path) -> dict[str, Path]:
    """The photos that the imprinted folder ``root`` keeps, by their SHA-256."""
    folder = Path(root) / PHOTOS
    return {path.stem: path for path in sorted(folder.iterdir())} if folder.is_dir() else {}


def keep_photos(root: Path, photos: dict[str, Path], wanted: Iterable[str]) -> int:
    """Copy those of ``photos`` (by SHA-256) that are ``wanted`` into the new folder ``root``; count them."""
    there = [(sha, photos[sha]) for sha in wanted if sha in photos]
    if there:
        (root / PHOTOS).mkdir(mode=0o700)
    for sha, path in there:
        write_bytes(root / PHOTOS / (sha + path.suffix.lower()), path.read_bytes(), mode=0o600)
    return len(there)
