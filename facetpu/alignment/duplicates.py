"""Which of very many pictures are the same one again, by their fingerprints.

Comparing each with each takes N^2. Instead the pictures are sorted by some bits of their fingerprints,
chosen by chance once and for all, and compared with the first that has the same ones; then by other bits,
``ROUNDS`` times. Two fingerprints that differ in a share p of their bits agree in b chosen ones with
probability ``(1 - p) ** b``. So of pairs 5% apart, as a photo and its copy are, none is missed in practice,
and of pairs at the limit some are.
"""

from __future__ import annotations

import numpy as np

ROUNDS = 32
LEAST_BITS = 8  # to sort by, however few pictures there are

_SEED = 7
_BLOCK = 1 << 16  # pictures compared at once


def first_alike(fingerprints: np.ndarray, limit: int) -> np.ndarray:
    """For each picture the first of its group: the picture that it is a copy of, or itself.

    The result depends on the fingerprints and their order alone.

    Args:
        fingerprints: uint8 [N, B], 8 bits each.
        limit: bits in which two fingerprints of the same picture may differ.

    Returns:
        int64 [N], each at most its own index.
    """
    first = np.arange(len(fingerprints))
    bits = max(LEAST_BITS, len(fingerprints).bit_length())
    rng = np.random.default_rng(_SEED)
    for _ in range(ROUNDS):
        chosen = rng.choice(8 * fingerprints.shape[1], bits, replace=False)
        left = np.flatnonzero(first == np.arange(len(first)))
        keys = _chosen_bits(fingerprints, left, chosen)
        order = np.argsort(keys, kind="stable")
        _match(fingerprints, left[order], keys[order], limit, first)
    while not np.array_equal(first, first[first]):  # The first of a group may have joined another since.
        first = first[first]
    return first


def _match(
    fingerprints: np.ndarray, pictures: np.ndarray, keys: np.ndarray, limit: int, first: np.ndarray
) -> None:
    """Set ``first`` of ``pictures`` that are like an earlier one of the same key.

    Each is compared with the first of its key; the rest, without that first one, goes on in the same way.
    """
    while len(pictures):
        starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
        runs = np.diff(np.append(starts, len(pictures)))
        heads = np.repeat(pictures[starts], runs)
        near = _distances(fingerprints, pictures, heads) <= limit
        first[pictures[near]] = heads[near]
        pictures, keys = pictures[~near], keys[~near]


def _distances(fingerprints: np.ndarray, some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The bits in which each of ``some`` differs from its partner in ``others``."""
    distances = np.empty(len(some), np.int32)
    for start in range(0, len(some), _BLOCK):
        part = slice(start, start + _BLOCK)
        distances[part] = _ONES[fingerprints[some[part]] ^ fingerprints[others[part]]].sum(axis=1)
    return distances


def _chosen_bits(fingerprints: np.ndarray, pictures: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """``chosen`` bits of the fingerprints of ``pictures`` as one number each: int64 [n]."""
    keys = np.zeros(len(pictures), np.int64)
    for bit in chosen:
        keys = keys << 1 | (fingerprints[pictures, bit // 8] >> (bit % 8) & 1)
    return keys


_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1).astype(np.uint8)
