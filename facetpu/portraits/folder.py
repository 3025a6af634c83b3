"""Folders of rendered people, as the other stages take them: PERSON/PHOTO.jpg."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ..progress import progress
from ..workers import each
from .names import draw_names
from .person import Person
from .render import Sitter
from .shot import Shot

FEW = 100  # portraits that are drawn here: workers take seconds to start


class _Job(NamedTuple):
    """The portraits of one person."""

    folder: Path
    person: Person
    photos: range
    seed: int
    size: int


def draw_people(count: int, seed: int = 0) -> dict[str, Person]:
    """``count`` people by name, no two alike; a larger count begins with the same people."""
    people = [Person.draw(100_000 * seed + index) for index in range(count)]
    names = draw_names([person.masculine > 0 for person in people], seed)
    return dict(zip(names, people, strict=True))


def write_people(folder: Path, people: int, photos_each: int, seed: int = 0, size: int = 200) -> list[Path]:
    """Draw ``people`` and write ``photos_each`` portraits of each below ``folder``.

    Args:
        folder: where each person's folder is made.
        people: how many there are.
        photos_each: portraits of each.
        seed: of the people, of their names and of the portraits.
        size: side of a portrait in pixels.

    Returns:
        The photos in sorted order.
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

    Args:
        folder: where each person's folder is made.
        people: by name.
        photos: their numbers.
        seed: of the portraits.
        size: side of a portrait in pixels.
        workers: processes; one a core unless given, and none for a few portraits.

    Returns:
        The photos in sorted order.
    """
    jobs = [_Job(Path(folder) / name, person, photos, seed, size) for name, person in people.items()]
    written: Iterable[list[Path]] = map(_write, jobs)
    if len(jobs) * len(photos) > FEW:
        written = each(_write, jobs, workers, cv2.setNumThreads, (1,))
    return sorted(photo for some in progress(written, "render", len(jobs), "person") for photo in some)


def _write(job: _Job) -> list[Path]:
    job.folder.mkdir(parents=True, exist_ok=True)
    sitter = Sitter(job.person, job.size)
    return [_write_one(job, sitter, number) for number in job.photos]


def _write_one(job: _Job, sitter: Sitter, number: int) -> Path:
    rng = np.random.default_rng([79, job.seed, job.person.seed, number])
    portrait = sitter.portrait(Shot.draw(rng), rng)
    _, jpeg = cv2.imencode(".jpg", portrait.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 93])
    path = job.folder / f"{number:03d}.jpg"
    path.write_bytes(jpeg.tobytes())
    return path
