"""How well a network in training tells people apart: by pairs of photos that it does not train on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..contact_sheet import Cell, Section, contact_sheet
from ..metrics import auc, roc, tar_at_far
from .learner import Learner
from .records import all_photos

PHOTOS = 1500  # compared with each other at most: a million pairs
FAR = 0.01
HARDEST = 6  # pairs of each kind that are shown


class PairFigures(NamedTuple):
    """Over all pairs of the photos.

    Attributes:
        auc: the chance that two photos of one person are more alike than two of different people.
        accuracy: of the best threshold, where both kinds of pairs count alike.
        tar: share of same-person pairs accepted where 1% of the different ones are.
    """

    auc: float
    accuracy: float
    tar: float


class Validated(NamedTuple):
    """What was found over pairs of photos, and what it was found on.

    Attributes:
        figures: over all of the pairs.
        hardest: uint8 [H, W, 3], a picture of the pairs that are told worst.
        embeddings: float32 [n, D], unit rows.
        labels: int64 [n].
    """

    figures: PairFigures
    hardest: np.ndarray
    embeddings: np.ndarray
    labels: np.ndarray


def accuracy(learner: Learner) -> float:
    """The share of validation photos that the head tells right."""
    records, right = learner.records, 0
    for pixels, labels in all_photos(records, records.validation, learner.config.batch_size):
        right += int(np.sum(np.argmax(learner.run_model(pixels)[1], axis=1) == labels))
    return right / records.validation_photos


def validate_pairs(learner: Learner) -> Validated | None:
    """Compare photos of people held out, or else of validation; None without pairs of both kinds."""
    records = learner.records
    shards = records.held_out or records.validation
    if not shards:
        return None
    batches = list(all_photos(records, shards, learner.config.batch_size).unbatch().take(PHOTOS).batch(64))
    labels = np.concatenate([labels for _, labels in batches])
    embeddings = learner.embed(batches)
    figures = compare(embeddings, labels) if np.isfinite(embeddings).all() else None
    if figures is None:
        return None
    pixels = np.concatenate([np.asarray(pixels) for pixels, _ in batches]).astype(np.uint8)
    return Validated(figures, hard_pairs(embeddings, labels, pixels), embeddings, labels)


def compare(embeddings: np.ndarray, labels: np.ndarray) -> PairFigures | None:
    """Figures over all pairs, None where there are not both kinds.

    Args:
        embeddings: float32 [n, D], unit rows.
        labels: int [n], who is on each.
    """
    first, second = np.triu_indices(len(labels), 1)
    same = labels[first] == labels[second]
    if not same.any() or same.all():
        return None
    scores = (embeddings @ embeddings.T)[first, second]
    curve = roc(scores, same)
    balanced = (curve.tar + 1 - curve.far) / 2
    return PairFigures(auc(curve), float(balanced.max()), tar_at_far(curve, FAR))


def hard_pairs(embeddings: np.ndarray, labels: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """A picture of the pairs that are told worst, uint8 [H, W, 3].

    Args:
        embeddings: float32 [n, D], unit rows.
        labels: int [n].
        pixels: uint8 [n, S, S, 3].
    """
    cosines = embeddings @ embeddings.T
    first, second = np.triu_indices(len(labels), 1)
    scores, same = cosines[first, second], labels[first] == labels[second]
    sections = []
    for heading, kind, order in (
        ("One person, least alike", same, 1),
        ("Two people, most alike", ~same, -1),
    ):
        pairs = np.flatnonzero(kind)
        worst = pairs[np.argsort(order * scores[pairs], kind="stable")[:HARDEST]]
        cells = [
            Cell(_one_above_other(pixels[first[pair]], pixels[second[pair]]), f"cosine {scores[pair]:.2f}")
            for pair in worst
        ]
        sections.append(Section(heading, cells))
    return contact_sheet(sections, columns=HARDEST)


def _one_above_other(upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """The middle half in height of each, eyes to mouth, as one square: cells are squares."""
    size = len(upper)
    middle = slice(size // 4, size // 4 + size // 2)
    return np.concatenate([upper[middle], lower[middle]], axis=0)
