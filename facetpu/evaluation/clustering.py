"""Sorting faces into people whom nobody has named: FaceNet's third use."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

NOBODY = -1  # the label of a face that is with no other
ROUNDS = 30  # of whispering at most; it settles in a handful


def chinese_whispers(embeddings: np.ndarray, threshold: float, seed: int = 0) -> np.ndarray:
    """Each face takes, again and again, the label that weighs most among the faces that are like it.

    Biemann, "Chinese Whispers", TextGraphs 2006: faces are joined where their cosine is at least the
    threshold, a join weighs its cosine, and the faces are gone through in a new random order each round
    until nothing changes. The number of people comes out by itself, and a single look-alike does not
    join two crowds.

    Args:
        embeddings: float32 [N,D], L2-normalised.
        threshold: cosine from which two faces are joined.
        seed: of the order.

    Returns:
        int [N], the cluster of each face, or ``NOBODY`` where it is with no other.
    """
    joined, weights = _neighbours(embeddings, threshold)
    labels = np.arange(len(embeddings))
    rng = np.random.default_rng(seed)
    for _ in range(ROUNDS):
        before = labels.copy()
        for face in rng.permutation(len(labels)):
            if len(joined[face]):
                near, index = np.unique(labels[joined[face]], return_inverse=True)
                labels[face] = near[np.argmax(np.bincount(index, weights[face]))]
        if np.array_equal(labels, before):
            break
    return largest_first(labels)


def dbscan(embeddings: np.ndarray, threshold: float, seed: int = 0) -> np.ndarray:
    """Faces that hang together by steps of at least the threshold, with scikit-learn's DBSCAN.

    Args:
        embeddings: float32 [N,D], L2-normalised.
        threshold: cosine from which two faces are near.
        seed: not used: there is nothing random in it.

    Returns:
        As ``chinese_whispers``; fewer than three faces near each other are nobody.
    """
    from sklearn.cluster import DBSCAN

    return largest_first(DBSCAN(eps=1 - threshold, min_samples=3, metric="cosine").fit_predict(embeddings))


METHODS: dict[str, Callable[[np.ndarray, float, int], np.ndarray]] = {
    "whispers": chinese_whispers,
    "dbscan": dbscan,
}


class Agreement(NamedTuple):
    """How clusters agree with the true people, from 0 to 1.

    Attributes:
        precision: B-cubed: of the faces in a face's cluster, the share that is of its person; the mean.
        recall: of the faces of a face's person, the share that is in its cluster; the mean.
        f1: the harmonic mean of the two.
        pairs_f1: the same of pairs of faces: together in a cluster, and of one person.
    """

    precision: float
    recall: float
    f1: float
    pairs_f1: float


def agreement(labels: np.ndarray, people: np.ndarray) -> Agreement:
    """B-cubed (Bagga and Baldwin, 1998) and pairwise F1 of ``labels`` against ``people``, both int [N].

    A face that is with no other counts as a cluster of its own.
    """
    own = labels.max(initial=0) + 1 + np.arange(len(labels))
    labels = np.where(labels == NOBODY, own, labels)
    clusters, cluster = np.unique(labels, return_inverse=True)
    persons, person = np.unique(people, return_inverse=True)
    table = np.zeros((len(clusters), len(persons)))
    np.add.at(table, (cluster, person), 1)
    both, in_cluster, of_person = table[cluster, person], table.sum(axis=1), table.sum(axis=0)
    precision = float(np.mean(both / in_cluster[cluster]))
    recall = float(np.mean(both / of_person[person]))
    together, clustered, true = (
        float(np.sum(counts * (counts - 1))) for counts in (table, in_cluster, of_person)
    )
    return Agreement(
        precision,
        recall,
        2 * precision * recall / (precision + recall),
        2 * together / (clustered + true) if clustered + true else 1.0,
    )


def largest_first(labels: np.ndarray) -> np.ndarray:
    """Clusters numbered from 0 by falling size, then first face; those of one face are ``NOBODY``."""
    names, first, index, sizes = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    several = (sizes > 1) & (names != NOBODY)
    order = sorted(np.flatnonzero(several), key=lambda name: (-sizes[name], first[name]))
    number = np.full(len(names), NOBODY)
    number[order] = np.arange(len(order))
    return number[index]


def _neighbours(embeddings: np.ndarray, threshold: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The faces joined to each, and the weights of the joins."""
    joined, weights = [], []
    for start in range(0, len(embeddings), 1024):  # 1024 by 50,000 cosines are 200 MB
        block = embeddings[start : start + 1024] @ embeddings.T
        block[np.arange(len(block)), start + np.arange(len(block))] = -1
        for row in block:
            near = np.flatnonzero(row >= threshold)
            joined.append(near)
            weights.append(row[near])
    return joined, weights
