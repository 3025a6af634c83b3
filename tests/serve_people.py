"""Rendered people for a house to see: portraits in a pose, photo files of them, and films for a camera."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image
from rendered_video import Scene, write_video
from small_export import write_export

from facetpu.artefacts import read_manifest, write_text
from facetpu.portraits import Person
from facetpu.portraits.render import Portrait, Sitter
from facetpu.portraits.shot import Shot
from facetpu.serve.house import new_house

POSES = {"front": (0.0, 0.0), "left": (0.38, 0), "right": (-0.38, 0), "up": (0, 0.38), "down": (0, -0.38)}
AT_THE_DOOR = (0.0, 0.18)  # as on no photo
ANA, BO, CY, DI = 104, 114, 120, 107  # seeds of people whom the small model tells apart


def portrait(seed: int, yaw: float = 0.0, pitch: float = 0.0, take: int = 0, size: int = 160) -> Portrait:
    """Somebody with the head turned and nodded, in light and clothes that stay the same."""
    rng = np.random.default_rng([seed, take])
    shot = Shot.draw(np.random.default_rng(seed))._replace(yaw=yaw, pitch=pitch, roll=0.03 * rng.normal())
    return Sitter(Person.draw(seed), size).portrait(shot, rng)


def photo(seed: int, take: int = 0) -> bytes:
    """A photo file of somebody, a little from the side; four are no copies of each other."""
    yaw, pitch = ((0.0, 0.0), (0.13, 0.0), (-0.13, 0.04), (0.05, -0.18))[take]
    return encoded(portrait(seed, yaw, pitch, take).image)


def encoded(image: np.ndarray) -> bytes:
    """A JPEG file of ``image``."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=95)
    return file.getvalue()


def write_film(path: Path, seeds: list[int | None], frames: int = 8) -> Path:
    """Each of ``seeds`` before the camera for so many frames; None for nobody."""
    scenes: list[Scene] = []
    for seed in seeds:
        image = None if seed is None else portrait(seed, *AT_THE_DOOR).image
        scenes += [[] if image is None else [(image, 60 + step, 40)] for step in range(frames)]
    return write_video(path, scenes)


def write_nobody(folder: Path) -> Path:
    """``folder/kitchen``, an imprinted folder with a small model that knows nobody."""
    export = write_export(folder / "export")
    manifest = read_manifest(export)
    assert manifest["threshold"] == 0.5
    # The small model sees pixels, no faces: a head that is turned is hardly like itself.
    text = (export / "manifest.json").read_text().replace('"threshold": 0.5', '"threshold": 0.1')
    write_text(export / "manifest.json", text, overwrite=True)
    new_house(export, folder / "kitchen")
    return folder / "kitchen"
