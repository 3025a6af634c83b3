"""evaluate: how well a model tells people apart, on pairs of crops; the same on float, int8 and TPU."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .. import metrics
from ..artefacts import check_new, digest, finished, new_folder, read_manifest, write_manifest, write_text
from ..curves import draw_curves
from ..embedders import Embedder, find_source, open_embedder
from ..errors import FacetpuError
from ..image import read_image
from ..pairs import CAP, SEED, Pairs, draw_pairs, read_pairs
from ..progress import progress

log = logging.getLogger(__name__)

FAR = ("0.01", "0.001")
BATCH = 64
REPORT, PICTURE, SCORES = "evaluation.json", "curves.png", "pairs.csv"


class Evaluation(NamedTuple):
    """The figures of a model on pairs of crops; shares are 0 to 1."""

    model: str
    accuracy: float  # mean over the folds, each at the threshold that is best on the others
    std: float  # over the folds
    auc: float
    eer: float
    tar: dict[str, float]  # true accept rate by false accept rate
    threshold: float  # the cosine that is best on all pairs
    rank1: float  # each person's first crop enrolled, the others identified among all of them
    people: int
    crops: int
    pairs: int
    missing: int  # pairs left out for want of a crop
    missing_crops: list[str]
    folds: list[float]  # the accuracy of each

    def __str__(self) -> str:
        rows = [
            ("accuracy", f"{self.accuracy:.2%} ± {100 * self.std:.2f} over {len(self.folds)} folds"),
            ("AUC", f"{self.auc:.5f}"),
            ("EER", f"{self.eer:.2%}"),
            *((f"TAR at FAR {float(far):g}", f"{tar:.2%}") for far, tar in self.tar.items()),
            ("threshold", f"{self.threshold:.4f} (cosine)"),
            (
                "rank-1",
                f"{self.rank1:.2%} of {self.crops - self.people:,} crops among {self.people:,} people",
            ),
            ("pairs", f"{self.pairs:,}" + (f", {self.missing:,} left out" if self.missing else "")),
        ]
        return "\n".join([self.model, *(f"  {name:<16} {value}" for name, value in rows)])


def evaluate(
    model: Path, crops: Path, pairs: Path | None = None, out: Path | None = None, overwrite: bool = False
) -> Evaluation:
    """Verify pairs of ``crops`` by the LFW protocol with the embeddings of ``model``.

    Args:
        model: a run, a frozen graph or its folder, a .tflite, or an export folder (its quantised base).
        crops: ``PERSON/PHOTO.png``, of the size that the model takes.
        pairs: a pairs file in the LFW format; pairs are drawn from the crops' people unless given.
        out: a folder for the figures, the picture of the curves and the score of each pair.
        overwrite: replace ``out``.

    Raises:
        FacetpuError: the model is none or broken, a crop has another size or cannot be read, or there
            are no pairs to verify.
    """
    source = find_source(model)
    drawn = read_pairs(pairs, crops) if pairs else draw_pairs(crops)
    config = {"protocol": "lfw"} if pairs else {"protocol": "drawn", "cap": CAP, "seed": SEED}
    inputs = {"model": source.digest(), "crops": digest(crops)}
    if pairs:
        inputs["pairs"] = digest(pairs)
    if out is not None:
        if finished(out, "evaluate", config, inputs):
            log.info("%s: is up to date; nothing to do", out)
            return Evaluation(**json.loads((out / REPORT).read_text(encoding="utf-8")))
        check_new(out, overwrite)
    _check_alignment(source.alignment(), read_manifest(crops).get("alignment"), model, crops)
    embeddings = metrics.unit(_embed(open_embedder(source), crops, drawn.crops), str(source.path))
    scores = np.einsum("ij,ij->i", embeddings[drawn.first], embeddings[drawn.second], dtype=np.float64)
    curve = metrics.roc(scores, drawn.same)
    evaluation = _figures(source.path.name, embeddings, drawn, scores, curve)
    if out is not None:
        with new_folder(out, overwrite) as folder:
            write_text(folder / REPORT, json.dumps(evaluation._asdict(), indent=1, ensure_ascii=False) + "\n")
            title = (
                f"{source.path.name} on {crops.name}: {evaluation.accuracy:.2%} ± {100 * evaluation.std:.2f}"
            )
            draw_curves(folder / PICTURE, title, curve, scores, drawn.same, evaluation.threshold)
            _write_scores(folder / SCORES, drawn, scores)
            write_manifest(folder, "evaluate", config, inputs)
    return evaluation


def _embed(embedder: Embedder, root: Path, crops: list[Path]) -> np.ndarray:
    rows = []
    for start in progress(range(0, len(crops), BATCH), "embed", unit="batch"):
        batch = crops[start : start + BATCH]
        rows.append(embedder.embed(np.stack([_read_crop(root / crop, embedder.size) for crop in batch])))
    return np.concatenate(rows)


def _read_crop(path: Path, size: int) -> np.ndarray:
    crop = read_image(path)
    if crop.shape != (size, size, 3):
        height, width = crop.shape[:2]
        raise FacetpuError(
            f"{path}: is {width}x{height} px and the model takes {size}x{size}; align with --size {size}"
        )
    return crop


def _check_alignment(of_model: dict, of_crops: dict | None, model: Path, crops: Path) -> None:
    """Warn of crops cut in another way than those the model was trained on: it costs per cents."""
    if of_model and of_crops and of_model != of_crops:
        log.warning("%s is for crops cut as %s, and %s are cut as %s", model, of_model, crops, of_crops)


def _figures(
    model: str, embeddings: np.ndarray, pairs: Pairs, scores: np.ndarray, curve: metrics.Roc
) -> Evaluation:
    verification = metrics.verify_folds(scores, pairs.same, pairs.folds)
    people, first = np.unique(pairs.people, return_index=True)
    others = np.setdiff1d(np.arange(len(pairs.people)), first)
    return Evaluation(
        model=model,
        accuracy=verification.accuracy,
        std=verification.std,
        auc=metrics.auc(curve),
        eer=metrics.equal_error_rate(curve),
        tar={far: metrics.tar_at_far(curve, float(far)) for far in FAR},
        threshold=verification.threshold,
        rank1=metrics.rank1(embeddings[first], people, embeddings[others], pairs.people[others]),
        people=len(people),
        crops=len(pairs.crops),
        pairs=len(pairs.same),
        missing=pairs.missing,
        missing_crops=list(pairs.missing_crops),
        folds=verification.folds,
    )


def _write_scores(path: Path, pairs: Pairs, scores: np.ndarray) -> None:
    """Every pair with its cosine, so that the ones it gets wrong can be looked at."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["fold", "first", "second", "same", "cosine"])
        for fold, a, b, same, score in zip(
            pairs.folds, pairs.first, pairs.second, pairs.same, scores, strict=True
        ):
            rows.writerow(
                [fold, pairs.crops[a].as_posix(), pairs.crops[b].as_posix(), int(same), f"{score:.6f}"]
            )
