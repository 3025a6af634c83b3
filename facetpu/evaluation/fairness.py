"""Error rates by group: is the model as good for everybody as it is on the whole?

The groups are what a CSV says of people or photos: its column ``person`` or ``photo`` names them, and
every other column sorts them.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import FacetpuError
from .pairs import Pairs

KEYS = ("photo", "person")


class GroupRates(NamedTuple):
    """The errors on the pairs within one group, at one threshold for all.

    Attributes:
        column: of the CSV.
        value: the group.
        same: same-person pairs of the group.
        false_rejects: the share of them rejected; None without pairs.
        different: pairs of two people who are both of the group.
        false_accepts: the share of them accepted; None without pairs.
    """

    column: str
    value: str
    same: int
    false_rejects: float | None
    different: int
    false_accepts: float | None

    def __str__(self) -> str:
        rejects, accepts = (
            "-" if rate is None else f"{rate:.2%}" for rate in (self.false_rejects, self.false_accepts)
        )
        return (
            f"{self.column} {self.value}: {rejects} of {self.same:,} rejected falsely, "
            f"{accepts} of {self.different:,} accepted falsely"
        )


def read_groups(file: Path, crops: Sequence[Path]) -> dict[str, list[str]]:
    """The group of each of ``crops``, ``PERSON/PHOTO.png``, by column; empty where the file does not say.

    Raises:
        FacetpuError: the file is missing or no CSV with a column ``person`` or ``photo`` and another, or
            knows none of the crops.
    """
    try:
        with open(file, encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except FileNotFoundError:
        raise FacetpuError(f"{file}: no such file") from None
    except (UnicodeDecodeError, csv.Error):
        raise FacetpuError(f"{file}: is no CSV in UTF-8") from None
    columns = [name for name in (rows[0] if rows else []) if name is not None]
    key = next((name for name in KEYS if name in columns), None)
    if key is None or len(columns) < 2:
        raise FacetpuError(f"{file}: needs a first line with 'person' or 'photo' and the name of a column")
    names = [crop.parts[0] if key == "person" else crop.with_suffix("").as_posix() for crop in crops]
    known = {(row[key] or "").strip(): row for row in rows}
    if key == "photo":
        known = {Path(name).with_suffix("").as_posix(): row for name, row in known.items()}
    if not set(names) & set(known):
        raise FacetpuError(f"{file}: names no {key} of the crops, such as {names[0]}")
    return {
        column: [((known.get(name) or {}).get(column) or "").strip() for name in names]
        for column in columns
        if column != key
    }


def group_rates(
    groups: dict[str, list[str]], pairs: Pairs, scores: np.ndarray, threshold: float
) -> list[GroupRates]:
    """The errors within each group.

    Args:
        groups: as ``read_groups`` gives them for the crops of ``pairs``.
        pairs: the pairs.
        scores: float [P], the score of each.
        threshold: from which a pair is accepted.
    """
    rates = []
    for column, values in groups.items():
        of_crop = np.array(values)
        first, second = of_crop[pairs.first], of_crop[pairs.second]
        for value in sorted(set(values) - {""}):
            within = (first == value) & (second == value)
            same, different = scores[within & pairs.same], scores[within & ~pairs.same]
            rates.append(
                GroupRates(
                    column,
                    value,
                    len(same),
                    float(np.mean(same < threshold)) if len(same) else None,
                    len(different),
                    float(np.mean(different >= threshold)) if len(different) else None,
                )
            )
    return rates
