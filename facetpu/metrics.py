"""How well embeddings tell people apart: verification over pairs, the ROC and its figures, rank-1.

A score is a cosine: the higher, the more alike. A pair is accepted as one person where its score is
at or above the threshold. Everything here is counted, nothing sampled or binned: rates are exact
multiples of one over the number of pairs, and equal scores are never ranked against each other.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .errors import FacetpuError

# Mean cosine of all pairs of crops from which a model is broken: int8 cannot tell them apart any more.
COLLAPSED = 0.9999


class Roc(NamedTuple):
    """The receiver operating characteristic: one point for each distinct score, and one before them.

    Attributes:
        far: false accept rate, the share of different-person pairs accepted; rises from 0 to 1.
        tar: true accept rate, the share of same-person pairs accepted; rises from 0 to 1.
        thresholds: the score from which pairs are accepted at that point; falls from infinity.
    """

    far: np.ndarray
    tar: np.ndarray
    thresholds: np.ndarray


class Verification(NamedTuple):
    """Accuracy by cross-validation over folds.

    Attributes:
        accuracy: mean of the folds' accuracies, 0 to 1.
        std: their standard deviation (over n, as facenet and the LFW tables give it).
        threshold: the best one on all pairs, for use afterwards.
        folds: the accuracy of each fold, in the order of their numbers.
    """

    accuracy: float
    std: float
    threshold: float
    folds: list[float]


class Validation(NamedTuple):
    """True accepts at a false accept rate by cross-validation over folds.

    Attributes:
        val: mean over the folds of the share of same-person pairs accepted: facenet's VAL.
        std: its standard deviation.
        far: mean share of different-person pairs accepted in the folds, to hold against what was asked.
    """

    val: float
    std: float
    far: float


def unit(embeddings: np.ndarray, where: str) -> np.ndarray:
    """The rows of ``embeddings`` at length 1, checked to be embeddings at all.

    Args:
        embeddings: float [N,D].
        where: the model they come from, for the message.

    Returns:
        float32 [N,D].

    Raises:
        FacetpuError: a row holds a NaN or an infinity, or is zero; or the rows are all but one, which
            would otherwise read as a harmless 50%.
    """
    embeddings = np.asarray(embeddings, np.float32)
    if not np.isfinite(embeddings).all():
        raise FacetpuError(
            f"{where}: is broken: its embeddings hold NaN or infinity; train or export it again"
        )
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    if not norms.all():
        count = int((norms == 0).sum())
        raise FacetpuError(
            f"{where}: is broken: {count} of {len(norms)} embeddings are all zero; train or export it again"
        )
    unit_rows = embeddings / norms
    mean_cosine = np.sum(unit_rows.mean(axis=0, dtype=np.float64) ** 2)
    if len(unit_rows) > 1 and mean_cosine > COLLAPSED:
        raise FacetpuError(
            f"{where}: is broken: all {len(unit_rows)} crops have one embedding "
            f"(mean cosine {mean_cosine:.6f}); train or export it again"
        )
    return unit_rows


def roc(scores: np.ndarray, same: np.ndarray) -> Roc:
    """The ROC of pairs.

    Args:
        scores: float [P].
        same: bool [P], whether the pair is of one person.

    Raises:
        FacetpuError: the lengths differ, a score is not finite, or one kind of pair is absent.
    """
    scores, same = _checked(scores, same)
    thresholds = np.concatenate([[np.inf], np.unique(scores)[::-1]])
    far = _accepted(scores[~same], thresholds) / np.sum(~same)
    return Roc(far, _accepted(scores[same], thresholds) / np.sum(same), thresholds)


def auc(curve: Roc) -> float:
    """Area under the ROC by trapezoids: the chance that a same-person pair outscores a different one.

    A tie counts one half, as in the Mann-Whitney U statistic and in scikit-learn's ``roc_auc_score``.
    """
    return float(np.sum(np.diff(curve.far) * (curve.tar[1:] + curve.tar[:-1])) / 2)


def equal_error_rate(curve: Roc) -> float:
    """The rate at which false accepts equal false rejects, the ROC's points joined by straight lines."""
    # Every point of the curve raises one rate at least, so that far + tar rises strictly.
    return float(np.interp(1.0, curve.far + curve.tar, curve.far))


def tar_at_far(curve: Roc, far: float) -> float:
    """The true accept rate at the lowest threshold whose false accept rate is at most ``far``.

    No interpolation: of 3,000 different-person pairs, 0.001 lets exactly 3 be accepted. With fewer than
    ``1 / far`` of them this is the true accept rate at no false accept.
    """
    return float(curve.tar[np.searchsorted(curve.far, far, side="right") - 1])


def threshold_at_far(different: np.ndarray, far: float) -> float:
    """The lowest threshold that accepts at most the share ``far`` of the scores ``different``.

    It lies midway between the last score accepted and the first refused; where none may be accepted,
    just above the highest.

    Raises:
        FacetpuError: there is no score.
    """
    different = np.asarray(different, np.float64)
    if not different.size:
        raise FacetpuError("no pair of different people to calibrate a threshold on; give more people")
    cuts = _cuts(different)
    return float(cuts[_accepted(different, cuts) / len(different) <= far].min())


def verify_folds(
    scores: np.ndarray, same: np.ndarray, folds: np.ndarray, thresholds: np.ndarray | None = None
) -> Verification:
    """Verification by the LFW protocol: each fold is judged at the threshold that is best on the others.

    The protocol of ``validate_on_lfw`` in davidsandberg/facenet: mean and deviation over the folds, the
    strictest of equally good thresholds. That program tries squared distances 0, 0.01 ... 3.99, which
    are cosines ``1 - d / 2``; pass those as ``thresholds`` for its figures to the digit. By default
    every cut that separates two scores is tried, so that no scale of scores is too fine.

    Args:
        scores: float [P].
        same: bool [P], whether the pair is of one person.
        folds: int [P], the fold of each pair; sizes may differ, numbers may be left out.
        thresholds: float [T], the thresholds to choose from.

    Raises:
        FacetpuError: the lengths differ, a score is not finite, one kind of pair is absent, or there
            are fewer than two folds.
    """
    scores, same = _checked(scores, same)
    folds = np.asarray(folds)
    numbers = np.unique(folds)
    if folds.shape != scores.shape or len(numbers) < 2:
        raise FacetpuError(
            f"{len(scores)} pairs in {len(numbers)} fold: cross-validation needs two folds or more"
        )
    accuracies = []
    for number in numbers:
        held_out = folds == number
        threshold = best_threshold(scores[~held_out], same[~held_out], thresholds)
        accuracies.append(float(np.mean((scores[held_out] >= threshold) == same[held_out])))
    best = best_threshold(scores, same, thresholds)
    return Verification(float(np.mean(accuracies)), float(np.std(accuracies)), best, accuracies)


def validate_folds(scores: np.ndarray, same: np.ndarray, folds: np.ndarray, far: float) -> Validation:
    """VAL at a false accept rate: each fold is judged at the threshold that gives it on the others.

    The figure of ``validate_on_lfw`` in davidsandberg/facenet, which draws its threshold by interpolation
    between squared distances 0.001 apart; here it is the lowest that accepts at most that share.

    Args:
        scores: float [P].
        same: bool [P], whether the pair is of one person.
        folds: int [P], the fold of each pair; one without pairs of either kind is left out of that mean.
        far: the false accept rate.

    Raises:
        FacetpuError: the lengths differ, a score is not finite, or one kind of pair is absent in all
            folds but one.
    """
    scores, same = _checked(scores, same)
    accepted: dict[bool, list[float]] = {True: [], False: []}
    for number in np.unique(folds):
        held_out = folds == number
        threshold = threshold_at_far(scores[~held_out & ~same], far)
        for kind in (True, False):
            judged = scores[held_out & (same == kind)]
            if len(judged):
                accepted[kind].append(float(np.mean(judged >= threshold)))
    return Validation(
        float(np.mean(accepted[True])), float(np.std(accepted[True])), float(np.mean(accepted[False]))
    )


def best_threshold(scores: np.ndarray, same: np.ndarray, thresholds: np.ndarray | None = None) -> float:
    """The threshold with the most pairs right; the highest of equally good ones.

    Args:
        scores: float [P].
        same: bool [P], whether the pair is of one person.
        thresholds: float [T] to choose from; by default midway between any two neighbouring scores,
            at the lowest score (accepts all) and just above the highest (accepts none).
    """
    cuts = _cuts(scores) if thresholds is None else np.sort(np.asarray(thresholds, np.float64))[::-1]
    right = _accepted(scores[same], cuts) - _accepted(scores[~same], cuts)
    return float(cuts[np.argmax(right)])


def rank1(gallery: np.ndarray, gallery_people: np.ndarray, probes: np.ndarray, people: np.ndarray) -> float:
    """Closed-set identification: the share of probes whose nearest gallery embedding is of their person.

    Of equally near ones the first in the gallery counts.

    Args:
        gallery: float [G,D], rows of length 1.
        gallery_people: int [G].
        probes: float [P,D], rows of length 1.
        people: int [P], each also in ``gallery_people``.

    Raises:
        FacetpuError: there is no probe, or one's person is not in the gallery.
    """
    gallery_people, people = np.asarray(gallery_people), np.asarray(people)
    if not len(probes) or not np.isin(people, gallery_people).all():
        raise FacetpuError(
            "rank-1 needs probes, each of a person in the gallery; enrol them or leave them out"
        )
    right = 0
    for start in range(0, len(probes), 1024):  # 1024 probes by 100,000 faces are 400 MB
        block = slice(start, start + 1024)
        nearest = np.argmax(probes[block] @ gallery.T, axis=1)
        right += int(np.sum(gallery_people[nearest] == people[block]))
    return right / len(probes)


def _checked(scores: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, same = np.asarray(scores, np.float64), np.asarray(same, bool)
    if scores.ndim != 1 or scores.shape != same.shape:
        raise FacetpuError(f"scores {scores.shape} and labels {same.shape} of pairs must be two equal rows")
    if not np.isfinite(scores).all():
        raise FacetpuError("a pair's score is not finite: the model is broken; train or export it again")
    if same.all() or not same.any():
        raise FacetpuError("verification needs pairs of one person and pairs of two; one kind is absent")
    return scores, same


def _accepted(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """How many of ``scores`` are at or above each of ``thresholds``."""
    return len(scores) - np.searchsorted(np.sort(scores), thresholds, side="left")


def _cuts(scores: np.ndarray) -> np.ndarray:
    """Every threshold that parts the scores, falling: above all of them, between any two, at the lowest."""
    distinct = np.unique(np.asarray(scores, np.float64))
    between = (distinct[1:] + distinct[:-1]) / 2
    # Midway between two neighbouring floats is one of them: the threshold must not fall on the lower.
    between = np.maximum(between, np.nextafter(distinct[:-1], np.inf))
    return np.concatenate([distinct[:1], between, [np.nextafter(distinct[-1], np.inf)]])[::-1]
