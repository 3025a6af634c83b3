"""The layouts in which pairs of photos are handed round: LFW, CFP, CALFW and CPLFW, lists, and .bin.

A layout is told by its content. Those without folds are cut into ten, as insightface does it: the first
tenth of the pairs of one person with the first tenth of the others, and so on.
"""

from __future__ import annotations

import hashlib
import pickle
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from ..errors import FacetpuError
from ..people import PHOTO_SUFFIXES

FOLDS = 10

# What a pickle of bytes and truth values may call; anything else in one could run a program.
_HARMLESS = {
    ("_codecs", "encode"),
    ("builtins", "bytearray"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    *(
        (f"numpy.{core}.{module}", name)
        for core in ("core", "_core")
        for module, name in (
            ("multiarray", "_reconstruct"),
            ("multiarray", "scalar"),
            ("numeric", "_frombuffer"),
        )
    ),
}


class NamedPair(NamedTuple):
    """A pair as a file names it.

    Attributes:
        first: the photo, as ``PERSON/PHOTO`` without an ending, or with fewer or more folders.
        second: likewise.
        same: whether both show one person.
        fold: from 0.
    """

    first: str
    second: str
    same: bool
    fold: int


class PairFile(NamedTuple):
    """What a pairs file holds.

    Attributes:
        pairs: in the file's order.
        person: which part of a photo's name is its person, counted from the end; None where none is.
    """

    pairs: list[NamedPair]
    person: int | None


def parse(file: Path) -> PairFile:
    """The pairs that ``file`` names.

    The layouts: LFW's, a line ``FOLDS COUNT`` and then for each fold COUNT lines ``NAME I J`` of one person
    and COUNT lines ``NAME I OTHER J`` of two; CALFW's and CPLFW's, two lines ``PHOTO.jpg SAME`` a pair;
    lists of lines ``PHOTO.jpg OTHER.jpg SAME`` or ``SAME PHOTO.jpg OTHER.jpg``, as AgeDB's pairs are
    handed round; and CFP's, a folder ``Protocol/Split/FF`` or ``FP``.

    Raises:
        FacetpuError: the file is missing or of none of these layouts.
    """
    file = Path(file)
    if file.is_dir():
        return _cfp(file)
    rows = [(number, line) for number, line in enumerate(_lines(file), 1) if line.strip()]
    first = rows[0][1].split() if rows else []
    if len(first) == 3 and sum(map(_is_photo, first)) == 2:
        return PairFile(_in_folds([_labelled(line, f"{file}: line {n}") for n, line in rows]), None)
    if len(first) > 1 and _is_photo(rows[0][1].rsplit(None, 1)[0]):
        return PairFile(_in_folds(_two_lines(rows, file)), None)
    return PairFile(_lfw(rows, file), -2)


def unpack_bin(file: Path, folder: Path) -> list[NamedPair]:
    """Write the photos of insightface's ``file`` to ``folder``, and name its pairs.

    Such a file is a pickle of two lists: the photos as JPEG files, two a pair, and whether each pair is of
    one person. A photo that is in several pairs is written once.

    Raises:
        FacetpuError: it is missing or no such file; one that would run a program is refused.
    """
    photos, labels = _unpickled(file)
    names = []
    for photo in photos:
        data = bytes(photo)
        name = hashlib.sha256(data).hexdigest()[:16]
        names.append(name)
        path = folder / f"{name}.jpg"
        if not path.exists():
            path.write_bytes(data)
    return _in_folds(list(zip(names[::2], names[1::2], map(bool, labels), strict=True)))


def _unpickled(file: Path) -> tuple[Sequence[Any], Sequence[Any]]:
    refused = FacetpuError(
        f"{file}: is no .bin of insightface, a pickle of photos and of whether each two are of one person; "
        "get the file again"
    )
    try:
        with open(file, "rb") as stream:
            photos, labels = _Unpickler(stream, encoding="bytes").load()
    except FileNotFoundError:
        raise FacetpuError(f"{file}: no such file") from None
    except (pickle.UnpicklingError, EOFError, TypeError, ValueError, AttributeError, IndexError):
        raise refused from None
    fit = all(isinstance(photo, (bytes, bytearray, np.ndarray)) for photo in photos)
    if not fit or not len(labels) or len(photos) != 2 * len(labels):
        raise refused
    return photos, labels


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _HARMLESS:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return super().find_class(module, name)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise FacetpuError(f"{file}: no such file") from None
    except UnicodeDecodeError:
        raise FacetpuError(f"{file}: is not UTF-8 text, so no pairs file") from None


def _is_photo(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in PHOTO_SUFFIXES


def _key(name: str) -> str:
    """A photo's name without its ending, and without the way up from where the file stands."""
    path = PurePosixPath(unicodedata.normalize("NFC", name.replace("\\", "/")))
    return "/".join(part for part in path.with_suffix("").parts if part not in ("..", ".", "/"))


def _in_folds(pairs: list[tuple[str, str, bool]]) -> list[NamedPair]:
    """Ten folds, each of a tenth of either kind."""
    sizes = {kind: sum(same is kind for _, _, same in pairs) for kind in (True, False)}
    seen = {True: 0, False: 0}
    named = []
    for first, second, same in pairs:
        named.append(NamedPair(first, second, same, FOLDS * seen[same] // sizes[same]))
        seen[same] += 1
    return named


def _labelled(line: str, where: str) -> tuple[str, str, bool]:
    fields = line.split()
    photos = [field for field in fields if _is_photo(field)]
    labels = [field for field in fields if not _is_photo(field)]
    if len(photos) != 2 or labels not in (["0"], ["1"]):
        raise FacetpuError(f"{where} is not two photos and 1 or 0: {line.strip()[:80]!r}")
    return _key(photos[0]), _key(photos[1]), labels == ["1"]


def _two_lines(rows: list[tuple[int, str]], file: Path) -> list[tuple[str, str, bool]]:
    """A photo and a number a line, two lines a pair; 0 says of two people, any other number of one."""
    if len(rows) % 2:
        raise FacetpuError(f"{file}: has {len(rows)} lines, and a pair takes two; get the whole file")
    pairs = []
    for (number, line), (_, other) in zip(rows[::2], rows[1::2], strict=True):
        (first, label), (second, again) = (text.strip().rsplit(None, 1) for text in (line, other))
        if not _is_photo(first) or not _is_photo(second) or label != again or not label.isdecimal():
            raise FacetpuError(
                f"{file}: line {number} and the next are not two photos with one number: "
                f"{line.strip()[:80]!r}"
            )
        pairs.append((_key(first), _key(second), int(label) > 0))
    return pairs


def _cfp(split: Path) -> PairFile:
    """``Protocol/Split/FP``: a folder a fold, with the numbers of photos in ``Protocol/Pair_list_*.txt``."""
    lists = [_cfp_list(split.parent.parent / f"Pair_list_{kind}.txt") for kind in split.name.upper()[:2]]
    folds = sorted(entry for entry in split.iterdir() if entry.is_dir())
    if len(lists) != 2 or not folds:
        raise FacetpuError(f"{split}: is no pairs file, nor a folder Protocol/Split/FF or FP of CFP")
    pairs = []
    for fold, folder in enumerate(folds):
        for name, same in (("same.txt", True), ("diff.txt", False)):
            for line in filter(str.strip, _lines(folder / name)):
                try:
                    first, second = (photos[int(n)] for photos, n in zip(lists, line.split(","), strict=True))
                except (KeyError, ValueError):
                    raise FacetpuError(
                        f"{folder / name}: {line.strip()[:80]!r} names no two photos of Pair_list_*.txt"
                    ) from None
                pairs.append(NamedPair(first, second, same, fold))
    return PairFile(pairs, -3)


def _cfp_list(file: Path) -> dict[int, str]:
    if not file.is_file():
        raise FacetpuError(f"{file}: is missing; give a folder Protocol/Split/FF or FP as CFP has it")
    photos = {}
    for number, line in enumerate(_lines(file), 1):
        fields = line.split()
        if len(fields) != 2 or not fields[0].isdecimal() or not _is_photo(fields[1]):
            raise FacetpuError(f"{file}: line {number} is not a number and a photo: {line.strip()[:80]!r}")
        photos[int(fields[0])] = _key(fields[1])
    return photos


def _lfw(rows: list[tuple[int, str]], file: Path) -> list[NamedPair]:
    header = rows[0][1].split() if rows else []
    if len(header) != 2 or not all(field.isdecimal() and int(field) > 0 for field in header):
        shown = rows[0][1].strip()[:60] if rows else "empty"
        raise FacetpuError(
            f"{file}: begins {shown!r}, not with the number of folds and of pairs, as '10 300', "
            "nor with photos"
        )
    folds, count = map(int, header)
    if len(rows) - 1 != folds * 2 * count:
        raise FacetpuError(
            f"{file}: has {len(rows) - 1} pairs where its first line says {folds} folds of "
            f"{count} same and {count} different; mend that line, or get the whole file"
        )
    return [
        _lfw_pair(line, row // (2 * count), f"{file}: line {number}")
        for row, (number, line) in enumerate(rows[1:])
    ]


def _lfw_pair(line: str, fold: int, where: str) -> NamedPair:
    """Fields are parted by tabs, or by spaces where the line has no tab."""
    fields = [field.strip() for field in (line.strip().split("\t") if "\t" in line else line.split())]
    numbers = fields[1:] if len(fields) == 3 else fields[1::2]
    if len(fields) not in (3, 4) or not all(field.isdecimal() and int(field) > 0 for field in numbers):
        raise FacetpuError(f"{where} is neither 'NAME I J' nor 'NAME I OTHER J': {line.strip()[:80]!r}")
    name, other = (unicodedata.normalize("NFC", field) for field in (fields[0], fields[-2]))
    if len(fields) == 3:
        other = name
    first, second = (f"{who}_{int(i):04d}" for who, i in zip((name, other), numbers, strict=True))
    if first == second or (len(fields) == 4 and name == other):
        raise FacetpuError(f"{where} pairs {first} with {second}: one photo twice, or one person as two")
    return NamedPair(f"{name}/{first}", f"{other}/{second}", len(fields) == 3, fold)
