"""Pairs of crops to verify: read from a file in the LFW format, or drawn from the people at hand."""

from __future__ import annotations

import logging
import random
import unicodedata
from pathlib import Path
from typing import NamedTuple, Sequence

import numpy as np

from .errors import FacetpuError
from .people import people_under

log = logging.getLogger(__name__)

FOLDS = 10
CAP = 3000  # same-person pairs drawn at most, and as many different: the size of LFW's own protocol
SEED = 0


class Pairs(NamedTuple):
    """Pairs over a list of crops that holds each crop once.

    Attributes:
        crops: the files, as ``PERSON/PHOTO.png`` below the crops' folder.
        people: int [C], the number of the person on each crop.
        first: int [P], into ``crops``.
        second: int [P], into ``crops``.
        same: bool [P], whether both show one person.
        folds: int [P], the fold of each pair.
        missing: how many pairs were left out for want of a crop.
        missing_crops: the crops wanting, as ``PERSON/PHOTO``.
    """

    crops: list[Path]
    people: np.ndarray
    first: np.ndarray
    second: np.ndarray
    same: np.ndarray
    folds: np.ndarray
    missing: int = 0
    missing_crops: Sequence[str] = ()


class _Named(NamedTuple):
    """A pair as a pairs file names it."""

    first: tuple[str, str]
    second: tuple[str, str]
    same: bool
    fold: int


def read_pairs(file: Path, crops: Path) -> Pairs:
    """The pairs of ``file`` whose crops are in the folder ``crops``.

    The format is that of LFW: a line ``FOLDS COUNT``, then for each fold COUNT lines ``NAME I J`` of one
    person and COUNT lines ``NAME I OTHER J`` of two, where photo I of NAME is the crop
    ``NAME/NAME_000I.png``. Fields are parted by tabs, or by spaces where a line has no tab. Pairs without
    a crop are left out and named in one warning; the others keep their folds.

    Raises:
        FacetpuError: the file is missing or not of that format, or no pair of it has its crops.
    """
    named = _parse(Path(file))
    files = {
        (person, crop.stem): crop.relative_to(crops)
        for person, photos in people_under(crops).items()
        for crop in photos
    }
    missing = sorted({key for pair in named for key in (pair.first, pair.second)} - set(files))
    found = [pair for pair in named if pair.first in files and pair.second in files]
    if not found:
        raise FacetpuError(
            f"{file}: none of its {len(named)} pairs has its crops in {crops}: "
            f"{'/'.join(missing[0])}.png is missing; give the crops of the photos it names"
        )
    if missing:
        names = ", ".join("/".join(key) for key in missing[:3]) + (" ..." if len(missing) > 3 else "")
        log.warning(
            "%s: %d of %d pairs left out for want of %d crops in %s: %s",
            file, len(named) - len(found), len(named), len(missing), crops, names,
        )  # fmt: skip
    keys = sorted({key for pair in found for key in (pair.first, pair.second)})
    index = {key: number for number, key in enumerate(keys)}
    return Pairs(
        crops=[files[key] for key in keys],
        people=np.unique([person for person, _ in keys], return_inverse=True)[1],
        first=np.array([index[pair.first] for pair in found]),
        second=np.array([index[pair.second] for pair in found]),
        same=np.array([pair.same for pair in found]),
        folds=np.array([pair.fold for pair in found]),
        missing=len(named) - len(found),
        missing_crops=["/".join(key) for key in missing],
    )


def _parse(file: Path) -> list[_Named]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise FacetpuError(f"{file}: no such file") from None
    except UnicodeDecodeError:
        raise FacetpuError(f"{file}: is not UTF-8 text, so no pairs file") from None
    rows = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    header = rows[0][1].split() if rows else []
    if len(header) != 2 or not all(field.isdecimal() and int(field) > 0 for field in header):
        shown = rows[0][1].strip()[:60] if rows else "empty"
        raise FacetpuError(
            f"{file}: begins {shown!r}, not with the number of folds and of pairs, as '10 300'"
        )
    folds, count = map(int, header)
    if len(rows) - 1 != folds * 2 * count:
        raise FacetpuError(
            f"{file}: has {len(rows) - 1} pairs where its first line says {folds} folds of "
            f"{count} same and {count} different; mend that line, or get the whole file"
        )
    return [
        _pair(line, row // (2 * count), f"{file}: line {number}")
        for row, (number, line) in enumerate(rows[1:])
    ]


def _pair(line: str, fold: int, where: str) -> _Named:
    fields = [field.strip() for field in (line.strip().split("\t") if "\t" in line else line.split())]
    numbers = fields[1:] if len(fields) == 3 else fields[1::2]
    if len(fields) not in (3, 4) or not all(field.isdecimal() and int(field) > 0 for field in numbers):
        raise FacetpuError(f"{where} is neither 'NAME I J' nor 'NAME I OTHER J': {line.strip()[:80]!r}")
    name = unicodedata.normalize("NFC", fields[0])
    other = unicodedata.normalize("NFC", fields[-2]) if len(fields) == 4 else name
    first, second = (f"{who}_{int(i):04d}" for who, i in zip((name, other), numbers))
    if first == second or (len(fields) == 4 and name == other):
        raise FacetpuError(f"{where} pairs {first} with {second}: one photo twice, or one person as two")
    return _Named((name, first), (other, second), len(fields) == 3, fold)


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
