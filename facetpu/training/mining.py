"""Triplets mined offline: from embeddings of many photos at once, those that the network still gets wrong."""

from __future__ import annotations

import numpy as np

from ..errors import FacetpuError


def mine(
    embeddings: np.ndarray, labels: np.ndarray, margin: float, unknown: int | None, seed: list[int]
) -> np.ndarray:
    """A triplet for every two photos of one person: the nearest other person beyond the positive.

    Where none is beyond, the nearest of all. Triplets that keep the margin already are left out, unless
    all do.

    Args:
        embeddings: float32 [n, D], unit rows.
        labels: int64 [n].
        margin: of squared distances.
        unknown: the label of other people's faces, which are negatives only.
        seed: of the triplets' order.

    Returns:
        int64 [T, 3], rows of anchor, positive and negative.

    Raises:
        FacetpuError: there are no two photos of one person, or none of another.
    """
    distances = np.maximum(2 - 2 * embeddings @ embeddings.T, 0)
    found, kept = [], []
    for anchor, label in enumerate(labels):
        others = np.flatnonzero(labels != label)
        if label == unknown or not len(others):
            continue
        away = distances[anchor, others]
        for positive in np.flatnonzero(labels == label):
            if positive == anchor:
                continue
            near = distances[anchor, positive]
            beyond = np.where(away > near, away, np.inf)
            place = int(np.argmin(beyond if np.isfinite(beyond).any() else away))
            found.append((anchor, positive, others[place]))
            kept.append(near - away[place] + margin > 0)
    if not found:
        raise FacetpuError("triplet_mined: no two photos of one person and one of another; add photos")
    triplets = np.array(found, np.int64)
    wrong = triplets[np.array(kept)]
    chosen = wrong if len(wrong) else triplets
    return np.asarray(np.random.default_rng(seed).permutation(chosen))


def mining_rows(labels: np.ndarray, count: int, seed: list[int]) -> np.ndarray:
    """The photos to mine in: of people in a seeded order, all that they have, up to ``count``.

    Args:
        labels: int64 [n], of all training photos; those of -1 are left out.
        count: photos at most.
        seed: of the order.
    """
    rng = np.random.default_rng(seed)
    rows: list[int] = []
    for person in rng.permutation(np.unique(labels[labels >= 0])):
        rows += np.flatnonzero(labels == person).tolist()
        if len(rows) >= count:
            break
    return np.array(rows[:count], np.int64)
