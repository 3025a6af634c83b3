"""People a tiny network can tell apart: each a chequerboard of colours of their own, with noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_crops(folder: Path, people: int, photos: int, size: int = 32) -> Path:
    """``photos`` crops of each of ``people`` as ``folder/person N/M.png``; returns ``folder``."""
    for person in range(people):
        colours = np.random.default_rng(person).uniform(40, 215, (4, 4, 3))
        face = np.kron(colours, np.ones((size // 4, size // 4, 1)))
        (folder / f"person {person}").mkdir(parents=True)
        for photo in range(photos):
            noise = np.random.default_rng([person, photo]).normal(0, 12, face.shape)
            pixels = np.clip(face + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"person {person}" / f"{photo}.png")
    return folder
