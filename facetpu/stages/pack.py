"""Crops -> TFRecords: sharded, shuffled and split by a seed, the same bytes on every run."""

from __future__ import annotations

import io
import logging
import math
import os
import shutil
import tempfile
import uuid
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from .. import __version__
from ..artefacts import check_new, check_shared, digest, finished, new_folder, read_manifest, write_manifest
from ..engines import Engine
from ..engines.local import ThisProcess
from ..errors import FacetpuError
from ..image import decode_image, read_image
from ..labels import write_labels
from ..nets.tensorflow import tf
from ..people import people_under, photos_under
from ..progress import progress
from ..storage import absolute, as_path, is_remote, read_bytes, upload
from ..training.records import make_example, shard_name, shuffled, spread, write_shard

log = logging.getLogger(__name__)


_INCOMING = ".incoming"  # in the partial folder on a disk, and gone when it is complete
UNKNOWN = "unknown"  # the class of all other people's faces
NOBODY = -1  # the label of a photo without one


class PackResult(NamedTuple):
    """Where the records are, and what they hold."""

    records: Path
    people: int  # to be told apart, the unknown among them
    train: int
    validation: int
    image_size: int
    held_out: int = 0  # photos of people who are not trained on
    unlabelled: int = 0  # of ``train``

    def __str__(self) -> str:
        text = (
            f"{self.records}: {self.people} people, {self.train} photos to train on and "
            f"{self.validation} to validate, {self.image_size} px"
        )
        if self.unlabelled:
            text += f"; {self.unlabelled} of those to train on are of nobody known"
        return text + (f"; {self.held_out} photos of people held out" if self.held_out else "")


class _Crop(NamedTuple):
    path: Path
    name: str  # PERSON/PHOTO.png
    person: str
    label: int


class _Shard(NamedTuple):
    """A file of records, and what goes into it in what order."""

    name: str
    crops: list[_Crop]


def pack(
    crops: Path,
    records: Path,
    shards: int = 8,
    validation: float = 0.05,
    seed: int = 0,
    overwrite: bool = False,
    held_out: float = 0.0,
    unknown: Path | None = None,
    unlabelled: Path | None = None,
    engine: Engine | None = None,
) -> PackResult:
    """Pack the people in ``crops`` into TFRecords with slim's keys.

    Args:
        crops: one folder of square crops a person, all of one size.
        records: the folder to write: shards, ``labels.txt``, ``manifest.json``.
        shards: files to spread the training photos over.
        validation: share of the photos kept for validation; every person keeps one to train on.
        seed: of the split and of the order.
        overwrite: replace ``records``.
        held_out: share of the people who are not trained on at all; a training says how well it tells
            them apart, which is what a recogniser is for.
        unknown: a folder of other people's crops, which become one more class, ``unknown``.
        unlabelled: a folder of crops of whomever, that a teacher's embeddings can be learnt on.
        engine: what writes the shards; this process unless given.

    Raises:
        FacetpuError: there are not two people, a crop is unreadable or not square, or sizes differ.
    """
    place = as_path if engine is None else absolute
    crops, records = place(crops), place(records)
    unknown, unlabelled = unknown and place(unknown), unlabelled and place(unlabelled)
    people = people_under(crops)
    _tell_empty(crops, people)
    aside = _held_out(people, held_out, seed)
    people = {person: photos for person, photos in people.items() if person not in aside}
    _check_people(crops, people, unknown)
    extra = {"unknown": unknown, "unlabelled": unlabelled}
    aligned = read_manifest(crops)
    config = {"shards": shards, "validation": validation, "seed": seed, "held_out": held_out}
    inputs = {
        name: digest(folder, times=not read_manifest(folder))
        for name, folder in {"crops": crops, **extra}.items()
        if folder is not None
    }
    done = finished(records, "pack", config, inputs)
    if done:
        log.info("%s: is up to date", records)
        return _result(records, done)
    check_new(records, overwrite)

    labels = [*people, *([UNKNOWN] if unknown else [])]
    named = _listed(crops, people) + _others(unknown, UNKNOWN, len(people))
    train, validate = _split(named, validation, seed)
    nameless = _others(unlabelled, "", NOBODY)
    if nameless:
        every = {crop.name: crop for crop in train + nameless}
        train = [every[name] for name in shuffled(every, seed)]
    splits = {"train": train, "validation": validate, "held_out": _listed(crops, aside)}
    shard_list = _shards(splits, math.ceil(len(train) / shards))
    size = _Size.of(train[0])
    key = {"config": config, "inputs": inputs, "version": __version__}
    with new_folder(records, overwrite, key, keep=engine is not None) as folder:
        _write_shards(shard_list, size, folder, engine or ThisProcess())
        write_labels(folder / "labels.txt", labels, overwrite=True)
        write_manifest(
            folder,
            "pack",
            config,
            inputs,
            alignment=_alignment(aligned, crops, size.side),
            people=len(labels),
            train=len(train),
            validation=len(validate),
            held_out=len(splits["held_out"]),
            unknown=len(people) if unknown else None,
            unlabelled=len(nameless),
            shards={path.name: path.stat().st_size for path in sorted(folder.glob("*.tfrecord"))},
        )
    return _result(records, read_manifest(records))


def _shards(splits: dict[str, list[_Crop]], per_shard: int) -> list[_Shard]:
    """The shards of each split, of ``per_shard`` crops or fewer."""
    found = []
    for split, chosen in splits.items():
        count = math.ceil(len(chosen) / per_shard)
        crops = iter(chosen)
        for index, size in enumerate(spread(len(chosen), count)):
            found.append(_Shard(shard_name(split, index, count), list(islice(crops, size))))
    return found


def _write_shards(shards: list[_Shard], size: _Size, folder: Path, engine: Engine) -> None:
    """Write those that an earlier run has not written.

    Raises:
        FacetpuError: the engine has left one out.
    """
    _remove_incoming(folder)
    left = _missing(shards, folder)
    total = sum(len(shard.crops) for shard in shards)
    done = total - sum(len(shard.crops) for shard in left)
    if done:
        log.info("%s: %d crops were packed before", folder, done)
    written = engine.each(_write_shard, left, _start_worker, (folder, size), _crashed)
    ticks = chain.from_iterable(repeat(None, crops) for crops in written)
    for _ in progress(ticks, "pack", total, unit="crop", done=done, note=engine.status):
        pass
    _remove_incoming(folder)
    for shard in _missing(shards, folder):
        raise FacetpuError(f"{shard.name}: was not packed; run the same command again")


def _missing(shards: list[_Shard], folder: Path) -> list[_Shard]:
    there = {path.name for path in folder.iterdir()}
    return [shard for shard in shards if shard.name not in there]


def _remove_incoming(folder: Path) -> None:
    """Remove what processes that were killed were at."""
    if not is_remote(folder):
        shutil.rmtree(folder / _INCOMING, ignore_errors=True)


# The workers


class _Size(NamedTuple):
    """The side that all crops have, in pixels, and one that has it."""

    side: int
    first: Path

    @classmethod
    def of(cls, crop: _Crop) -> _Size:
        height, width = read_image(crop.path).shape[:2]
        if height != width:
            raise FacetpuError(f"{crop.path}: is {width}x{height} px and not square; align the photos first")
        return cls(width, crop.path)


_folder: Path  # in a worker
_size: _Size


def _start_worker(folder: Path, size: _Size) -> None:
    """Get ready to write to ``folder``.

    Raises:
        FacetpuError: a folder cannot be seen from where this runs.
    """
    global _folder, _size
    check_shared(folder, size.first.parent)
    _folder, _size = folder, size
    if not is_remote(folder):
        (folder / _INCOMING).mkdir(exist_ok=True)


def _write_shard(shard: _Shard) -> int:
    """Write ``shard``, whole or not at all; how many crops it holds."""
    if is_remote(_folder):
        with tempfile.TemporaryDirectory() as folder:
            write_shard(Path(folder) / shard.name, map(_example, shard.crops))
            upload(Path(folder) / shard.name, _folder / shard.name)
        return len(shard.crops)
    incoming = _folder / _INCOMING / uuid.uuid4().hex  # of its own: workers of several machines write there
    write_shard(incoming, map(_example, shard.crops))
    with open(incoming, "rb") as file:
        os.fsync(file.fileno())  # The next run takes a shard that is there for whole, after a power cut too.
    os.replace(incoming, _folder / shard.name)
    return len(shard.crops)


def _crashed(shard: _Shard, reason: str) -> NoReturn:
    raise FacetpuError(
        f"{shard.name}: the process that packed it {reason}, twice; one of its crops, {shard.crops[0].name} "
        f"to {shard.crops[-1].name} in the seeded order, is to blame"
    )


def _example(crop: _Crop) -> bytes:
    """``crop`` as a serialised example: an RGB PNG, its own bytes if they are one, else written anew."""
    data = read_bytes(crop.path)
    pixels = decode_image(io.BytesIO(data), crop.path)
    height, width = pixels.shape[:2]
    if height != width:
        raise FacetpuError(f"{crop.path}: is {width}x{height} px and not square; align the photos first")
    if width != _size.side:
        raise FacetpuError(
            f"{crop.path}: is {width} px a side and {_size.first} {_size.side}; "
            "align all photos again with one --size"
        )
    encoded = data if _is_plain_png(data) else bytes(tf.io.encode_png(pixels).numpy())
    return make_example(encoded, _size.side, crop.label, crop.person, crop.name)


def _listed(crops: Path, people: dict[str, list[Path]]) -> list[_Crop]:
    """Every crop with its label, the number of its person in sorted order."""
    return [
        _Crop(path, path.relative_to(crops).as_posix(), person, label)
        for label, (person, paths) in enumerate(people.items())
        for path in paths
    ]


def _others(folder: Path | None, person: str, label: int) -> list[_Crop]:
    """Every crop below ``folder``, however it is laid out, under one label."""
    if folder is None:
        return []
    kind = person or "unlabelled"
    return [
        _Crop(path, f"{kind}/{path.relative_to(folder).as_posix()}", person, label)
        for path in photos_under(folder)
    ]


def _held_out(people: dict[str, list[Path]], share: float, seed: int) -> dict[str, list[Path]]:
    """The people to set aside, of those with two photos or more."""
    fit = [person for person, photos in people.items() if len(photos) > 1]
    chosen = sorted(shuffled(fit, seed)[: round(share * len(people))])
    return {person: people[person] for person in chosen}


def _tell_empty(crops: Path, people: dict[str, list[Path]]) -> None:
    if is_remote(crops):  # A bucket has no empty folders.
        return
    names = {folder.name for folder in crops.iterdir() if folder.is_dir() and folder.name[0] != "."}
    empty = sorted(names - people.keys())
    if empty:
        log.warning("%s: %d folders without a photo are left out, as %s", crops, len(empty), empty[0])


def _check_people(crops: Path, people: dict[str, list[Path]], unknown: Path | None) -> None:
    if len(people) < 2:
        who = f"one person, {next(iter(people))}" if people else "nobody to train on"
        raise FacetpuError(f"{crops}: holds {who}; training needs at least two to tell apart")
    if unknown is not None and UNKNOWN in people:
        raise FacetpuError(
            f"{crops / UNKNOWN}: has the name of the class of other faces; rename it, or leave --unknown out"
        )


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
        records,
        manifest["people"],
        manifest["train"],
        manifest["validation"],
        manifest["alignment"]["size"],
        manifest["held_out"],
        manifest["unlabelled"],
    )
