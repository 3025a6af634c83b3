"""Folders of rendered people, as the other stages take them: PERSON/PHOTO.jpg."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import cv2
import joblib
import numpy as np

from .names import draw_names
from .person import Person
from .render import Sitter
from .shot import Shot

FEW = 100  # portraits drawn here rather than by workers, who take a second to start


def draw_people(count: int, seed: int = 0) -> dict[str, Person]:
    """``count`` people by name, no two alike; a larger count begins with the same people."""
    return {name: Person.draw(100_000 * seed + index) for index, name in enumerate(draw_names(count, seed))}


def write_people(folder: Path, people: int, photos_each: int, seed: int = 0, size: int = 200) -> list[Path]:
    """Draw ``people`` and write ``photos_each`` portraits of each below ``folder``.

    Args:
        folder: where each person's folder is made.
        people: how many there are.
        photos_each: portraits of each.
        seed: of the people, of their names and of the portraits.
        size: side of a portrait in pixels.

    Returns:
        The photos, person by person.
    """
    return write_portraits(folder, draw_people(people, seed), range(photos_each), seed, size)


def write_portraits(
    folder: Path,
    people: Mapping[str, Person],
    photos: range,
    seed: int = 0,
    size: int = 200,
    workers: int | None = None,
) -> list[Path]:
    """Write the portraits numbered ``photos`` of each of ``people`` to ``folder/NAME/NUMBER.jpg``.

    A portrait depends on its person, its number, ``seed`` and ``size`` only.

    Returns:
        The photos, person by person.
    """
    total = len(people) * len(photos)
    jobs = 1 if total <= FEW else workers or len(os.sched_getaffinity(0))
    calls = (
        joblib.delayed(_write)(Path(folder) / name, person, photos, seed, size)
        for name, person in people.items()
    )
    return [photo for written in joblib.Parallel(jobs)(calls) for photo in written]


def _write(folder: Path, person: Person, photos: range, seed: int, size: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    sitter = Sitter(person, size)
    written = []
    for number in photos:
        rng = np.random.default_rng([79, seed, person.seed, number])
        portrait = sitter.portrait(Shot.draw(rng), rng)
        _, jpeg = cv2.imencode(".jpg", portrait.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 93])
        path = folder / f"{number:03d}.jpg"
        path.write_bytes(jpeg.tobytes())
        written.append(path)
    return written
