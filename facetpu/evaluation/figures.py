"""The figures of a model on people it is to tell apart, and what they came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..metrics import Roc
from .fairness import GroupRates
from .identification import Identification
from .pairs import Pairs

REPORT = "evaluation.json"


class Evaluation(NamedTuple):
    """The figures of a model on pairs of crops; shares are 0 to 1, thresholds in the metric."""

    model: str
    metric: str  # cosine, or euclidean: squared distance
    flip: bool  # averaged with the mirrored crop
    accuracy: float  # mean over the folds, each at the threshold that is best on the others
    std: float  # over the folds
    auc: float
    eer: float
    tar: dict[str, float]  # true accept rate by false accept rate
    thresholds: dict[str, float]  # that give those false accept rates
    val: float  # mean over the folds at FAR 0.001, each at the threshold for that on the others
    val_std: float
    val_far: float  # the false accept rate that came of it
    threshold: float  # best on all pairs
    rank1: float | None  # each person's first crop enrolled, the others identified among all of them
    people: int | None
    crops: int
    pairs: int
    missing: int  # pairs left out for want of a crop
    missing_crops: list[str]
    folds: list[float]  # the accuracy of each
    identification: Identification | None = None
    groups: list[GroupRates] | None = None

    def __str__(self) -> str:
        rows = [
            ("accuracy", f"{self.accuracy:.2%} ± {100 * self.std:.2f} over {len(self.folds)} folds"),
            ("AUC", f"{self.auc:.5f}"),
            ("EER", f"{self.eer:.2%}"),
            ("VAL at FAR 0.001", f"{self.val:.2%} ± {100 * self.val_std:.2f} (FAR {self.val_far:.5f})"),
            *(
                (f"TAR at FAR {float(far):g}", f"{tar:.2%} (threshold {self.thresholds[far]:.4f})")
                for far, tar in self.tar.items()
            ),
            ("threshold", f"{self.threshold:.4f} ({self.metric_name()}{', flipped too' * self.flip})"),
        ]
        if self.rank1 is not None and self.people is not None:
            others = self.crops - self.people
            rows.append(("rank-1", f"{self.rank1:.2%} of {others:,} crops among {self.people:,} people"))
        rows.append(("pairs", f"{self.pairs:,}" + (f", {self.missing:,} left out" if self.missing else "")))
        lines = [self.model, *(f"  {name:<16} {value}" for name, value in rows)]
        lines += [f"  {group}" for group in self.groups or []]
        return "\n".join(lines + ([str(self.identification)] if self.identification else []))

    def metric_name(self) -> str:
        """The metric in words."""
        return "squared distance" if self.metric == "euclidean" else self.metric


class Evaluated(NamedTuple):
    """An evaluation with what it was computed from.

    Attributes:
        evaluation: the figures.
        pairs: the pairs verified.
        cosines: float [P], of the pairs.
        curve: the ROC of the pairs.
        crops: every crop embedded, the pairs' among them.
        embeddings: float32 [N,D], of ``crops``.
    """

    evaluation: Evaluation
    pairs: Pairs
    cosines: np.ndarray
    curve: Roc
    crops: list[Path]
    embeddings: np.ndarray


def read_evaluation(folder: Path) -> Evaluation:
    """The figures in ``folder``, as ``evaluate --out`` wrote them."""
    fields = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    if fields["identification"]:
        fields["identification"] = Identification.from_document(fields["identification"])
    if fields["groups"]:
        fields["groups"] = [GroupRates(*group) for group in fields["groups"]]
    return Evaluation(**fields)


def as_json(evaluation: Evaluation) -> str:
    """The document that ``read_evaluation`` reads."""
    fields = evaluation._asdict()
    if evaluation.identification:
        fields["identification"] = evaluation.identification._asdict()
    return json.dumps(fields, indent=1, ensure_ascii=False) + "\n"
