"""Crops -> TFRecords: sharded, shuffled and split by a seed, the same bytes on every run."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..artefacts import check_new, digest, finished, new_folder, read_manifest, write_manifest
from ..errors import FacetpuError
from ..image import read_image
from ..labels import write_labels
from ..nets.tensorflow import tf
from ..people import people_under
from ..progress import progress
from ..records import make_example, shard_name, shuffled, write_shard

log = logging.getLogger(__name__)


class PackResult(NamedTuple):
    """Where the records are, and what they hold."""

    records: Path
    people: int
    train: int
    validation: int
    image_size: int

    def __str__(self) -> str:
        return (
            f"{self.records}: {self.people} people, {self.train} photos to train on and "
            f"{self.validation} to validate, {self.image_size} px"
        )


class _Crop(NamedTuple):
    path: Path
    name: str  # PERSON/PHOTO.png
    person: str
    label: int


def pack(
    crops: Path,
    records: Path,
    shards: int = 8,
    validation: float = 0.05,
    seed: int = 0,
    overwrite: bool = False,
) -> PackResult:
    """Pack the people in ``crops`` into TFRecords with slim's keys.

    Args:
        crops: one folder of square crops a person, all of one size.
        records: the folder to write: shards, ``labels.txt``, ``manifest.json``.
        shards: files to spread the training photos over.
        validation: share of the photos kept for validation; every person keeps one to train on.
        seed: of the split and of the order.
        overwrite: replace ``records``.

    Raises:
        FacetpuError: there are not two people, a crop is unreadable or not square, or sizes differ.
    """
    crops, records = Path(crops), Path(records)
    people = people_under(crops)
    if len(people) < 2:
        raise FacetpuError(
            f"{crops}: holds one person, {next(iter(people))}; training needs at least two to tell apart"
        )
    aligned = read_manifest(crops)
    config = {"shards": shards, "validation": validation, "seed": seed}
    inputs = {"crops": digest(crops, times=not aligned)}
    done = finished(records, "pack", config, inputs)
    if done:
        log.info("%s: is up to date", records)
        return _result(records, done)
    check_new(records, overwrite)

    train, validate = _split(_listed(crops, people), validation, seed)
    reader = _Reader()
    with new_folder(records, overwrite) as folder:
        left = progress([*train, *validate], "pack", unit="crop")
        per_shard = math.ceil(len(train) / shards)
        for split, chosen in (("train", train), ("validation", validate)):
            count = math.ceil(len(chosen) / per_shard)
            for index in range(count):
                # Shares that differ by one at most, so that no shard is left empty.
                size = len(chosen) * (index + 1) // count - len(chosen) * index // count
                photos = (next(left) for _ in range(size))
                write_shard(folder / shard_name(split, index, count), reader.examples(photos))
        write_labels(folder / "labels.txt", people)
        write_manifest(
            folder,
            "pack",
            config,
            inputs,
            alignment=_alignment(aligned, crops, reader.size),
            people=len(people),
            train=len(train),
            validation=len(validate),
            shards={path.name: path.stat().st_size for path in sorted(folder.glob("*.tfrecord"))},
        )
    return _result(records, read_manifest(records))


class _Reader:
    """Turns crops into serialised examples, and sees to it that they are of one size."""

    def __init__(self) -> None:
        self.size = 0
        self._first = ""

    def examples(self, crops: Iterator[_Crop]) -> Iterator[bytes]:
        for crop in crops:
            encoded = self._encoded(crop)
            yield make_example(encoded, self.size, crop.label, crop.person, crop.name)

    def _encoded(self, crop: _Crop) -> bytes:
        """The crop as an RGB PNG: its own bytes if they are one, else written anew."""
        pixels = read_image(crop.path)
        self._check_size(crop, pixels)
        data = crop.path.read_bytes()
        return data if _is_plain_png(data) else bytes(tf.io.encode_png(pixels).numpy())

    def _check_size(self, crop: _Crop, pixels: Any) -> None:
        height, width = pixels.shape[:2]
        if height != width:
            raise FacetpuError(f"{crop.path}: is {width}x{height} px and not square; align the photos first")
        if self.size and width != self.size:
            raise FacetpuError(
                f"{crop.path}: is {width} px a side and {self._first} {self.size}; "
                "align all photos again with one --size"
            )
        self.size = width
        self._first = self._first or str(crop.path)


def _listed(crops: Path, people: dict[str, list[Path]]) -> list[_Crop]:
    """Every crop with its label, the number of its person in sorted order."""
    return [
        _Crop(path, path.relative_to(crops).as_posix(), person, label)
        for label, (person, paths) in enumerate(people.items())
        for path in paths
    ]


def _split(crops: list[_Crop], share: float, seed: int) -> tuple[list[_Crop], list[_Crop]]:
    """The crops to train on and to validate on, each in its seeded order."""
    by_name = {crop.name: crop for crop in crops}
    left: dict[str, int] = {}
    for crop in crops:
        left[crop.person] = left.get(crop.person, 0) + 1
    wanted = round(share * len(crops))
    train: list[_Crop] = []
    validate: list[_Crop] = []
    for name in shuffled(by_name, seed):
        crop = by_name[name]
        if len(validate) < wanted and left[crop.person] > 1:
            left[crop.person] -= 1
            validate.append(crop)
        else:
            train.append(crop)
    return train, validate


def _is_plain_png(data: bytes) -> bool:
    """Whether every reader sees the same RGB pixels in it: 8 bits, colour type 2, no EXIF orientation."""
    return data[:8] == b"\x89PNG\r\n\x1a\n" and data[24:26] == b"\x08\x02" and b"eXIf" not in data


def _alignment(manifest: dict[str, Any], crops: Path, size: int) -> dict[str, Any]:
    """The crops' alignment settings; the usual template where no manifest tells."""
    known = manifest.get("alignment")
    if known is None:
        log.warning("%s: has no manifest of facetpu align; its crops are taken for --template arcface", crops)
        return {"template": "arcface", "size": size, "margin": 44}
    return dict(known, size=size)


def _result(records: Path, manifest: dict[str, Any]) -> PackResult:
    return PackResult(
        records, manifest["people"], manifest["train"], manifest["validation"], manifest["alignment"]["size"]
    )
