"""The integer base against the float one, on crops that neither was calibrated on."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..board.embed import Embedder
from ..metrics import auc, roc


class Comparison(NamedTuple):
    """How near the embeddings come to each other, and whether they tell people apart as well.

    Attributes:
        compared_on: crops.
        cosine: mean over the crops of the cosine between the float and the integer embedding.
        percentile: that of the worst hundredth of the crops.
        lowest_cosine: that of the worst crop.
        correlation: of all numbers before the L2 norm.
        cosines: of each crop.
        pairs: of crops, of one person or of two; 0 where nobody has two crops.
        auc_float: chance that a pair of one person has the greater cosine than one of two, in float.
        auc: the same in integers.
    """

    compared_on: int
    cosine: float
    percentile: float
    lowest_cosine: float
    correlation: float
    cosines: list[float]
    pairs: int
    auc_float: float | None
    auc: float | None


def compare(base_float: Path, base: Path, crops: np.ndarray, people: np.ndarray) -> Comparison:
    """Embed ``crops`` (uint8 ``[n, S, S, 3]``) of ``people`` (int ``[n]``) with both models."""
    models = [Embedder(path) for path in (base_float, base)]
    rows = [(model.run(crops).astype(np.float64) - model.zero_point) * model.scale for model in models]
    exact, integer = (row / np.linalg.norm(row, axis=1, keepdims=True) for row in rows)
    cosines = np.sum(exact * integer, axis=1)
    first, second = np.triu_indices(len(crops), 1)
    same = people[first] == people[second]
    areas: list[float | None] = [None, None]
    if same.any() and not same.all():
        scores = (np.sum(unit[first] * unit[second], axis=1) for unit in (exact, integer))
        areas = [round(auc(roc(each, same)), 6) for each in scores]
    return Comparison(
        len(crops),
        round(float(cosines.mean()), 6),
        round(float(np.percentile(cosines, 1)), 6),
        round(float(cosines.min()), 6),
        round(float(np.corrcoef(rows[0].ravel(), rows[1].ravel())[0, 1]), 6),
        [round(float(cosine), 5) for cosine in cosines],
        len(same) if areas[0] is not None else 0,
        *areas,
    )
