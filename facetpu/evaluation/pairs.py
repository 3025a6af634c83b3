"""Pairs of crops to verify: those that a file names, or drawn from the people at hand."""

from __future__ import annotations

import logging
import random
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import FacetpuError
from ..people import people_under, photos_under
from .pair_files import FOLDS, NamedPair, parse, unpack_bin

log = logging.getLogger(__name__)

CAP = 3000  # same-person pairs drawn at most, and as many different: the size of LFW's own protocol
SEED = 0


class Pairs(NamedTuple):
    """Pairs over a list of crops that holds each crop once.

    Attributes:
        crops: the files, as ``PERSON/PHOTO.png`` below the crops' folder.
        people: int [C], the number of the person on each crop; None where the file does not say.
        first: int [P], into ``crops``.
        second: int [P], into ``crops``.
        same: bool [P], whether both show one person.
        folds: int [P], the fold of each pair.
        missing: how many pairs were left out for want of a crop.
        missing_crops: the crops wanting, as the file names them.
    """

    crops: list[Path]
    people: np.ndarray | None
    first: np.ndarray
    second: np.ndarray
    same: np.ndarray
    folds: np.ndarray
    missing: int = 0
    missing_crops: Sequence[str] = ()


def read_pairs(file: Path, crops: Path) -> Pairs:
    """The pairs of ``file``, of any layout that ``pair_files.parse`` knows, whose crops are under ``crops``.

    A photo ``PERSON/PHOTO.jpg`` is the crop of that name with any ending, wherever the two paths agree
    as far as the shorter goes. Pairs without a crop are left out and named in one warning; the others keep
    their folds.

    Raises:
        FacetpuError: the file is missing or of no layout known, a name fits several crops, or no pair
            of it has its crops.
    """
    named, person = parse(Path(file))
    return _found(named, person, str(file), crops)


def read_bin(file: Path, folder: Path) -> Pairs:
    """The pairs of an insightface .bin, whose photos are written to the empty ``folder``.

    Raises:
        FacetpuError: it is no such file.
    """
    return _found(unpack_bin(Path(file), folder), None, str(file), folder)


def _found(named: Sequence[NamedPair], person: int | None, where: str, crops: Path) -> Pairs:
    index = _CropIndex(crops)
    files = {name: index.find(name, where) for pair in named for name in (pair.first, pair.second)}
    missing = sorted(name for name, crop in files.items() if crop is None)
    found = [pair for pair in named if files[pair.first] and files[pair.second]]
    if not found:
        raise FacetpuError(
            f"{where}: none of its {len(named)} pairs has its crops in {crops}: "
            f"{missing[0]}.png is missing; give the crops of the photos it names"
        )
    if missing:
        names = ", ".join(missing[:3]) + (" ..." if len(missing) > 3 else "")
        log.warning(
            "%s: %d of %d pairs left out for want of %d crops in %s: %s",
            where, len(named) - len(found), len(named), len(missing), crops, names,
        )  # fmt: skip
    keys = sorted({key for pair in found for key in (pair.first, pair.second)})
    number = {key: position for position, key in enumerate(keys)}
    owners = None if person is None else [key.split("/")[person] for key in keys]
    return Pairs(
        crops=[crop for crop in map(files.get, keys) if crop is not None],
        people=None if owners is None else np.unique(owners, return_inverse=True)[1],
        first=np.array([number[pair.first] for pair in found]),
        second=np.array([number[pair.second] for pair in found]),
        same=np.array([pair.same for pair in found]),
        folds=np.array([pair.fold for pair in found]),
        missing=len(named) - len(found),
        missing_crops=missing,
    )


class _CropIndex:
    """Finds a crop by the name that a pairs file gives its photo."""

    def __init__(self, crops: Path) -> None:
        self.whole: dict[tuple[str, ...], Path] = {}
        self.tails: dict[tuple[str, ...], list[Path]] = {}
        for file in photos_under(crops):
            crop = file.relative_to(crops)
            parts = tuple(unicodedata.normalize("NFC", part) for part in crop.with_suffix("").parts)
            self.whole[parts] = crop
            for start in range(len(parts)):
                self.tails.setdefault(parts[start:], []).append(crop)

    def find(self, name: str, where: str) -> Path | None:
        """The crop of the photo ``name``, or None."""
        parts = tuple(name.split("/"))
        for start in range(len(parts)):
            if parts[start:] in self.whole:
                return self.whole[parts[start:]]
        fitting = self.tails.get(parts, [])
        if len(fitting) > 1:
            raise FacetpuError(
                f"{where}: {name} may be {fitting[0]} or {fitting[1]}; give a folder with one of them"
            )
        return fitting[0] if fitting else None


def draw_pairs(crops: Path, cap: int = CAP, seed: int = SEED) -> Pairs:
    """Pairs of the people in the folder ``crops``, the same ones at every call.

    The people are dealt into ten folds that share nobody, where at least twenty people allow it, ten of
    them with two crops; each fold takes all its same-person pairs up to a tenth of ``cap``, and as many
    different ones among its people. With fewer people the pairs are dealt into folds instead.

    Raises:
        FacetpuError: there is one person only, nobody has two crops, or that gives one pair alone.
    """
    by_person = people_under(crops)
    files = [photo.relative_to(crops) for photos in by_person.values() for photo in photos]
    sizes = np.array([len(photos) for photos in by_person.values()])
    owner = np.repeat(np.arange(len(sizes)), sizes)
    rng = random.Random(seed)
    if len(sizes) >= 2 * FOLDS and np.sum(sizes > 1) >= FOLDS:
        fold_of_crop = _deal(sizes, rng)[owner]
        parts = [
            _draw(np.flatnonzero(fold_of_crop == fold), owner, cap // FOLDS, rng) for fold in range(FOLDS)
        ]
        folds = np.repeat(np.arange(FOLDS), [len(first) for first, _ in parts])
        first, second = np.concatenate(parts, axis=1)
    else:
        first, second = _draw(np.arange(len(owner)), owner, cap, rng)
        folds = np.arange(len(first)) // 2 % FOLDS
    if len(np.unique(folds)) < 2:
        raise FacetpuError(
            f"{crops}: {len(files)} crops of {len(sizes)} people are too few for pairs of one person and "
            "of two; give two people or more with three crops each"
        )
    used, index = np.unique(np.concatenate([first, second]), return_inverse=True)
    return Pairs(
        crops=[files[number] for number in used],
        people=owner[used],
        first=index[: len(first)],
        second=index[len(first) :],
        same=owner[first] == owner[second],
        folds=folds,
    )


def _deal(sizes: np.ndarray, rng: random.Random) -> np.ndarray:
    """The fold of each person: those with the most crops first, one to each fold in turn."""
    order = list(range(len(sizes)))
    rng.shuffle(order)
    order.sort(key=lambda person: -sizes[person])
    folds = np.empty(len(sizes), int)
    folds[order] = np.arange(len(sizes)) % FOLDS
    return folds


def _draw(
    crops: np.ndarray, owner: np.ndarray, limit: int, rng: random.Random
) -> tuple[np.ndarray, np.ndarray]:
    """Same-person and different-person pairs of ``crops`` in turn, as many of each and at most ``limit``.

    Args:
        crops: int [C], rising.
        owner: the person of every crop, rising.
        limit: pairs of each kind at most.
        rng: the source of the draw.

    Returns:
        Two int arrays, the first and the second crop of each pair.
    """
    mine = owner[crops]
    here, end = np.arange(len(mine)), np.searchsorted(mine, mine, side="right")
    same_after, different_after = end - here - 1, len(mine) - end
    count = min(limit, int(same_after.sum()), int(different_after.sum()))
    same = _sample(here + 1, same_after, count, rng)
    different = _sample(end, different_after, count, rng)
    first, second = np.stack([same, different], axis=-1).reshape(2, -1)
    return crops[first], crops[second]


def _sample(
    start: np.ndarray, length: np.ndarray, count: int, rng: random.Random
) -> tuple[np.ndarray, np.ndarray]:
    """``count`` of all (i, start[i] + k) with k < length[i], without repeats and without listing them all."""
    ends = np.cumsum(length)
    chosen = np.array(rng.sample(range(int(ends[-1])), count), int)
    first = np.searchsorted(ends, chosen, side="right")
    return first, start[first] + chosen - (ends - length)[first]
