"""What stands beside aligned crops: where the faces were, what is doubtful about them, what is missing.

``boxes.csv`` and ``flags.csv`` have a row for each crop, in the order of the photos' names; the manifest
lists the photos without a face and the unreadable ones. A record says all of it of one photo: either
``{"unreadable": reason}`` or ``{"seen": faces in the photo, "faces": one list of CELLS a crop}``.
"""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import quality
from ..artefacts import read_manifest
from ..image import Face, align_face
from .duplicates import first_alike
from .journal import Journal

BOXES, FLAGS = "boxes.csv", "flags.csv"

LANDMARKS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
PLACES = ("x1", "y1", "x2", "y2", "score", *(f"{point}_{axis}" for point in LANDMARKS for axis in "xy"))
MEASURES = ("rival", "sharpness", "brightness", "contrast", "turn", "fingerprint")
CELLS = PLACES + MEASURES
COLUMNS = ("photo", *PLACES)
FLAG_COLUMNS = ("crop", "photo", "faces", *MEASURES, "flags", "duplicate_of")

UNSURE = 0.9  # score below which a face may be none
TINY = 40  # pixels of a box's shorter side below which a crop is mostly made up
RIVAL = 0.5  # of the face's area, from which another face of the photo may have been meant

_BYTES = 32  # of a fingerprint
_MEASURED_SIDE = 112  # of the crop that the limits of ``quality`` were set on


class Row(NamedTuple):
    """What the tables say of one crop.

    Attributes:
        photo: it is from.
        crop: its path.
        faces: how many the photo has.
        cells: its ``CELLS``.
        flags: what is doubtful about it, in words.
        duplicate_of: the path of the first crop of the same picture; empty for that one and for most.
    """

    photo: str
    crop: str
    faces: int
    cells: list[Any]
    flags: list[str]
    duplicate_of: str

    @property
    def box(self) -> Sequence[float]:
        """x1, y1, x2, y2 in pixels of the photo."""
        return self.cells[:4]


class Tally(NamedTuple):
    """What the tables hold.

    Attributes:
        faces: how many crops.
        no_face: photos without a face.
        unreadable: ``photo`` and ``reason`` of those that could not be read.
    """

    faces: int
    no_face: list[str]
    unreadable: list[dict[str, str]]


def cells(image: np.ndarray, face: Face, others: Sequence[Face] = ()) -> list[Any]:
    """What the tables say of ``face``: thousandths of a pixel, millionths of a score.

    Args:
        image: uint8 [H, W, 3] RGB.
        face: that got a crop.
        others: those of the photo that got none.
    """
    crop = align_face(image, face, "arcface", _MEASURED_SIDE)
    rival = max(map(_area, others), default=0.0) / max(_area(face), 1e-9)
    return [
        *(round(side, 3) for side in face.box),
        round(face.score, 6),
        *(round(value, 3) for value in face.landmarks.ravel().tolist()),
        round(rival, 3),
        round(quality.sharpness(crop), 3),
        round(quality.brightness(crop), 1),
        round(quality.contrast(crop), 1),
        round(quality.turn(face.landmarks), 3),
        f"{quality.fingerprint(crop):0{2 * _BYTES}x}",
    ]


def write_tables(folder: Path, journal: Journal, crops_of: Callable[[str, int], list[str]]) -> Tally:
    """Write ``boxes.csv`` and ``flags.csv`` to ``folder``.

    Args:
        folder: of the crops.
        journal: every photo of it is done.
        crops_of: the paths of so many crops of the photo with this stem.
    """
    first = _first_alike(journal)
    originals = np.zeros(len(first), bool)
    originals[first[first != np.arange(len(first))]] = True
    paths: dict[int, str] = {}  # of originals
    tally = Tally(0, [], [])
    with _table(folder / BOXES, COLUMNS) as boxes, _table(folder / FLAGS, FLAG_COLUMNS) as flags:
        index = 0
        for photo, stem, record in journal.done():
            if "unreadable" in record:
                tally.unreadable.append({"photo": photo, "reason": record["unreadable"]})
            elif not record["faces"]:
                tally.no_face.append(photo)
            else:
                for face, crop in zip(record["faces"], crops_of(stem, len(record["faces"])), strict=True):
                    if originals[index]:
                        paths[index] = crop
                    original = paths[first[index]] if first[index] != index else ""
                    words = " ".join(flags_of(face) + ["duplicate"] * bool(original))
                    boxes.writerow([photo, *face[: len(PLACES)]])
                    flags.writerow([crop, photo, record["seen"], *face[len(PLACES) :], words, original])
                    index += 1
    return tally._replace(faces=index)


def read_rows(folder: Path) -> Iterator[Row]:
    """The rows of both tables of a finished folder of crops."""
    with contextlib.ExitStack() as files:
        boxes, flags = (
            csv.DictReader(files.enter_context(open(folder / name, encoding="utf-8", newline="")))
            for name in (BOXES, FLAGS)
        )
        for box, flag in zip(boxes, flags, strict=True):
            numbers = [float(box[column]) for column in PLACES]
            numbers += [float(flag[column]) for column in MEASURES[:-1]]
            yield Row(
                photo=box["photo"],
                crop=flag["crop"],
                faces=int(flag["faces"]),
                cells=[*numbers, flag[MEASURES[-1]]],
                flags=flag["flags"].split(),
                duplicate_of=flag["duplicate_of"],
            )


def read_records(folder: Path) -> Iterator[tuple[str, dict[str, Any], list[str]]]:
    """Each photo of a finished folder of crops, with its record and the paths of its crops."""
    for photo, group in groupby(read_rows(folder), key=attrgetter("photo")):
        rows = list(group)
        record = {"seen": rows[0].faces, "faces": [row.cells for row in rows]}
        yield photo, record, [row.crop for row in rows]
    manifest = read_manifest(folder)
    for photo in manifest["no_face"]:
        yield photo, {"seen": 0, "faces": []}, []
    for photo, reason in map(itemgetter("photo", "reason"), manifest["unreadable"]):
        yield photo, {"unreadable": reason}, []


def flags_of(face: Sequence[Any]) -> list[str]:
    """What is doubtful about a face, in words, given its ``CELLS``."""
    x1, y1, x2, y2, score = face[:5]
    rival, sharpness, brightness, contrast, turn = face[len(PLACES) : -1]
    doubts = {
        "unsure": score < UNSURE,
        "several": rival >= RIVAL,
        "tiny": min(x2 - x1, y2 - y1) < TINY,
        "blurred": sharpness < quality.BLURRED,
        "dark": brightness < quality.DARK,
        "bright": brightness > quality.BRIGHT,
        "flat": contrast < quality.FLAT,
        "turned": abs(turn) > quality.TURNED,
    }
    return [word for word, holds in doubts.items() if holds]


@contextlib.contextmanager
def _table(path: Path, columns: Sequence[str]) -> Iterator[Any]:
    with open(path, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns)
        yield table


def _first_alike(journal: Journal) -> np.ndarray:
    """For each crop, in order, the index of the first one that shows the same picture: int64 [crops]."""
    prints = bytearray()
    for entry in journal.done():
        for face in entry.record.get("faces", ()):
            prints += bytes.fromhex(face[-1])
    return first_alike(np.frombuffer(prints, np.uint8).reshape(-1, _BYTES), quality.SAME_PICTURE)


def _area(face: Face) -> float:
    x1, y1, x2, y2 = face.box
    return max(x2 - x1, 0.0) * max(y2 - y1, 0.0)
