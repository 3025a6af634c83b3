"""A page to look at after aligning: people, doubtful faces, copies, and what is missing.

However large the folder, the page shows a sample of each, evenly spread, and says of how many.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageDraw

from ..artefacts import read_manifest
from ..image import UnreadableImage, read_image, resize
from ..page import picture, write_page
from .crop_tables import RIVAL, TINY, UNSURE, Row, read_rows

REVIEW = "review.html"

# How many of each the page shows.
PEOPLE, CROPS, DOUBTFUL, COPIES, MISSES, REASONS = 24, 6, 12, 12, 18, 60

_CROP_SIDE, _PHOTO_SIDE = 96, 144  # pixels of a thumbnail
_BOX_COLOUR = (255, 196, 0)

# The flags in the order of the page, what they mean, and whether the photo tells more than the crop.
DOUBTS = (
    ("several", f"another face of the photo is at least {RIVAL:.0%} as large: was this one meant?", True),
    ("unsure", f"the detector's score is below {UNSURE}: is it a face?", True),
    ("tiny", f"the face has fewer than {TINY} pixels: its crop is mostly interpolation", True),
    ("blurred", "there is little detail", False),
    ("dark", "the face is too dark", False),
    ("bright", "the face is too bright", False),
    ("flat", "the face has hardly any contrast", False),
    ("turned", "a half or full profile", False),
)

Item = TypeVar("Item")


class Sample(Generic[Item]):
    """At most ``size`` of very many items, evenly spread, the first among them.

    Attributes:
        seen: how many there were.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.seen = 0
        self._step = 1
        self._items: list[Item] = []

    def add(self, item: Item) -> None:
        """Take ``item`` into account."""
        if self.seen % self._step == 0:
            self._items.append(item)
        self.seen += 1
        if len(self._items) == 4 * self.size:
            self._items = self._items[::2]
            self._step *= 2

    def __iter__(self) -> Iterator[Item]:
        count = min(self.size, len(self._items))
        return (self._items[index * len(self._items) // count] for index in range(count))


class Shown(NamedTuple):
    """A picture of the page: its ``src`` (empty where there is none any more) and the text under it."""

    picture: str
    text: str


class Group(NamedTuple):
    """Pictures under a heading, and of how many they are a sample."""

    title: str
    note: str
    total: int
    pictures: Sequence[Any]


def write_review(photos: Path, crops: Path) -> None:
    """Write ``review.html`` to the finished folder ``crops``; the same bytes for the same folder.

    Args:
        photos: the photos, for what crops cannot show.
        crops: what ``facetpu align`` made of them.
    """
    people: Sample[tuple[str, list[Row], int]] = Sample(PEOPLE)
    doubtful: dict[str, Sample[Row]] = {word: Sample(DOUBTFUL) for word, _, _ in DOUBTS}
    copies: dict[bool, Sample[Row]] = {True: Sample(COPIES), False: Sample(COPIES)}
    loose: Sample[Row] = Sample(MISSES)
    flagged = 0
    for person, rows in groupby(read_rows(crops), key=lambda row: _person(row.crop)):
        first: Sample[Row] = Sample(CROPS)
        for row in rows:
            (first if person else loose).add(row)
            flagged += bool(row.flags)
            for word in row.flags:
                if word in doubtful:
                    doubtful[word].add(row)
            if row.duplicate_of:
                copies[_person(row.duplicate_of) == person].add(row)
        if person:
            people.add((person, list(first), first.seen))
    manifest = read_manifest(crops)
    missed: Sample[str] = Sample(MISSES)
    for photo in manifest["no_face"]:
        missed.add(photo)
    write_page(
        crops / REVIEW,
        "review.html",
        overwrite=True,
        folder=crops.name,
        counts=manifest["counts"],
        flagged=flagged,
        copied=copies[True].seen + copies[False].seen,
        people_count=people.seen,
        people=[
            Group(person, "", count, [_crop(crops, row) for row in rows]) for person, rows, count in people
        ],
        doubts=[
            Group(word, note, sample.seen, [_doubt(photos, crops, row, in_photo) for row in sample])
            for word, note, in_photo in DOUBTS
            for sample in [doubtful[word]]
            if sample.seen
        ],
        across=_pairs(crops, copies[False]),
        within=_pairs(crops, copies[True]),
        loose=Group("", "", loose.seen, [_crop(crops, row) for row in loose]),
        missed=[_photo(photos, name) for name in missed],
        unreadable=manifest["unreadable"][:REASONS],
    )


def _person(path: str) -> str:
    return path.split("/")[0] if "/" in path else ""


def _pairs(crops: Path, rows: Iterable[Row]) -> list[tuple[Shown, Shown]]:
    return [
        (
            Shown(_thumbnail(crops / row.duplicate_of), row.duplicate_of),
            Shown(_thumbnail(crops / row.crop), row.crop),
        )
        for row in rows
    ]


def _crop(crops: Path, row: Row) -> Shown:
    return Shown(_thumbnail(crops / row.crop), Path(row.crop).stem)


def _photo(photos: Path, name: str) -> Shown:
    return Shown(_thumbnail(photos / name, _PHOTO_SIDE), name)


def _doubt(photos: Path, crops: Path, row: Row, in_photo: bool) -> Shown:
    if in_photo:
        return Shown(_thumbnail(photos / row.photo, _PHOTO_SIDE, row.box), row.photo)
    return Shown(_thumbnail(crops / row.crop), row.crop)


def _thumbnail(file: Path, side: int = _CROP_SIDE, box: Sequence[float] | None = None) -> str:
    """The picture in ``file`` as a square, with ``box`` drawn on it; empty where it cannot be read."""
    try:
        image = read_image(file)
    except UnreadableImage:
        return ""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    small = resize(image, max(1, round(height * scale)), max(1, round(width * scale)))
    page = Image.new("RGB", (side, side), (128, 128, 128))
    left, top = (side - small.shape[1]) // 2, (side - small.shape[0]) // 2
    page.paste(Image.fromarray(small), (left, top))
    if box is not None:
        x1, y1, x2, y2 = (edge * scale for edge in box)
        corners = (left + x1, top + y1, max(left + x2, left + x1 + 2), max(top + y2, top + y1 + 2))
        ImageDraw.Draw(page).rectangle(corners, outline=_BOX_COLOUR, width=2)
    return picture(np.asarray(page), quality=80)
