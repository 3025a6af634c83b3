"""Ways to tell from an embedding who it is: the one that facetpu imprints, and those it is held against.

Each is fitted on embeddings of known people and then gives every face a score with every person; the
best one counts, and a threshold on it refuses strangers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ..metrics import threshold_at_far
from ..tflite.head import UNIT_SCALE, UNIT_ZERO_POINT, quantize_rows
from .identification import person_vectors

Scorer = Callable[[np.ndarray], np.ndarray]  # float32 [Q,D] to float [Q,P], the higher the surer
Fit = Callable[[np.ndarray, np.ndarray], Scorer]  # from float32 [N,D] and int [N], 0 to P - 1

NEIGHBOURS = 5


def imprinted(rows: np.ndarray, people: np.ndarray) -> Scorer:
    """The cosine with each person's row as an imprinted model has it: embedding, row and cosine in uint8."""
    kernel = _in_steps(_vectors(rows, people))
    return lambda faces: _in_steps(_in_steps(faces) @ kernel.T)


def mean(rows: np.ndarray, people: np.ndarray) -> Scorer:
    """The cosine with each person's mean in float: what identify compares."""
    vectors = _vectors(rows, people)
    return lambda faces: faces @ vectors.T


def nearest(rows: np.ndarray, people: np.ndarray) -> Scorer:
    """The cosine with the nearest photo of each person."""
    groups = [np.flatnonzero(people == person) for person in range(people.max() + 1)]

    def scores(faces: np.ndarray) -> np.ndarray:
        cosines = faces @ rows.T
        return np.stack([cosines[:, group].max(axis=1) for group in groups], axis=1)

    return scores


def neighbours(rows: np.ndarray, people: np.ndarray) -> Scorer:
    """The share of the five nearest photos, each weighted by one over its distance."""
    from sklearn.neighbors import KNeighborsClassifier

    count = min(NEIGHBOURS, len(rows))
    fitted = KNeighborsClassifier(count, weights="distance", metric="cosine").fit(rows, people)
    return fitted.predict_proba


def svm(rows: np.ndarray, people: np.ndarray) -> Scorer:
    """A linear support vector machine, the classifier of davidsandberg/facenet; its margins."""
    from sklearn.svm import SVC

    fitted = SVC(kernel="linear", decision_function_shape="ovr").fit(rows, people)
    if people.max() > 1:
        return fitted.decision_function
    # Of two people scikit-learn gives one margin, that of the second.
    return lambda faces: fitted.decision_function(faces)[:, None] * np.array([-1, 1])


def softmax(rows: np.ndarray, people: np.ndarray) -> Scorer:
    """Softmax regression on the embedding, as Coral's other learner on the device; its probabilities."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=100, max_iter=1000).fit(rows, people).predict_proba


CLASSIFIERS: dict[str, Fit] = {
    "imprinted": imprinted,
    "mean": mean,
    "nearest": nearest,
    "k-nn": neighbours,
    "svm": svm,
    "softmax": softmax,
}


class Split(NamedTuple):
    """Which rows a classifier is fitted on, and which it is judged on.

    Attributes:
        train: int [N], rows of known people.
        test: int [Q], rows of the same people.
        calibration: int [C], strangers to set the threshold on.
        strangers: int [S], others to judge it on.
    """

    train: np.ndarray
    test: np.ndarray
    calibration: np.ndarray
    strangers: np.ndarray


class Judged(NamedTuple):
    """One classifier on one split; shares are 0 to 1, None where there are no strangers.

    Attributes:
        top1: the best person is the right one.
        dir: right and above the threshold that lets so many of the strangers pass, by that share.
        right: right and accepted at the threshold set on the calibration's strangers.
        misnamed: accepted as another there.
        accepted: strangers accepted there.
        best: int [Q], the best person of each face to be told.
        score: float [Q], of each with that person.
        threshold: as set.
    """

    top1: float
    dir: dict[str, float] | None
    right: float | None
    misnamed: float | None
    accepted: float | None
    best: np.ndarray
    score: np.ndarray
    threshold: float | None


def judge(
    scorer: Scorer,
    embeddings: np.ndarray,
    people: np.ndarray,
    split: Split,
    false_accepts: float,
    rates: Sequence[str],
) -> Judged:
    """How a fitted classifier does on the faces it was not fitted on.

    Args:
        scorer: the classifier.
        embeddings: float32 [N,D].
        people: int [N], as it was fitted on.
        split: which rows are what.
        false_accepts: share of strangers that the threshold may let through.
        rates: shares of strangers for ``dir``.
    """
    scores = scorer(embeddings[split.test])
    best, score = scores.argmax(axis=1), scores.max(axis=1)
    hit = best == people[split.test]
    judged = Judged(float(hit.mean()), None, None, None, None, best, score, None)
    if not len(split.strangers):
        return judged
    of_strangers = scorer(embeddings[split.strangers]).max(axis=1)
    cuts = {rate: threshold_at_far(of_strangers, float(rate)) for rate in rates}
    judged = judged._replace(dir={rate: float(np.mean(hit & (score >= cut))) for rate, cut in cuts.items()})
    if not len(split.calibration):
        return judged
    threshold = threshold_at_far(scorer(embeddings[split.calibration]).max(axis=1), false_accepts)
    accepted = score >= threshold
    return judged._replace(
        right=float(np.mean(hit & accepted)),
        misnamed=float(np.mean(~hit & accepted)),
        accepted=float(np.mean(of_strangers >= threshold)),
        threshold=threshold,
    )


def _in_steps(values: np.ndarray) -> np.ndarray:
    stored = quantize_rows(values, UNIT_SCALE, UNIT_ZERO_POINT).astype(np.float32)
    return (stored - UNIT_ZERO_POINT) * np.float32(UNIT_SCALE)


def _vectors(rows: np.ndarray, people: np.ndarray) -> np.ndarray:
    return person_vectors(rows, [np.flatnonzero(people == person) for person in range(people.max() + 1)])
