"""Which photos make a batch: every person as often as any other, or some photos of each of some people.

Each batch is a function of the seed and its step alone, so that a resumed training sees what an
undisturbed one would have seen.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ..config import Sampling
from ..errors import FacetpuError
from ..nets.tensorflow import tf

log = logging.getLogger(__name__)

HEADER, FOOTER = 12, 4  # bytes around a record: its length and that one's checksum; its own checksum

# The rows of the photos of a step.
Choose = Callable[[int], np.ndarray]


class Index(NamedTuple):
    """Where every record of some shards is; its row is its place in them.

    Attributes:
        labels: int64 [n].
        shard: int32 [n], into ``data``.
        start: int64 [n], of the record's bytes.
        length: int64 [n], of them.
        names: what each photo's file was called.
        data: the shards' bytes, mapped.
    """

    labels: np.ndarray
    shard: np.ndarray
    start: np.ndarray
    length: np.ndarray
    names: list[str]
    data: Sequence[np.ndarray]

    def read(self, rows: np.ndarray) -> list[bytes]:
        """The records ``rows``."""
        return [
            self.data[self.shard[row]][self.start[row] : self.start[row] + self.length[row]].tobytes()
            for row in rows
        ]


def read_index(shards: Sequence[str]) -> Index:
    """Find every record of ``shards`` by one pass over them.

    Raises:
        FacetpuError: a shard ends in the middle of a record, or a record is no photo.
    """
    return _read_index(tuple(shards))


@lru_cache(maxsize=2)
def _read_index(shards: tuple[str, ...]) -> Index:
    data, places, labels, names = [], [], [], []
    for number, shard in enumerate(shards):
        mapped = np.memmap(shard, np.uint8, "r")
        at = count = 0
        while at < len(mapped):
            length = int.from_bytes(mapped[at : at + 8].tobytes(), "little")
            start, at = at + HEADER, at + HEADER + length + FOOTER
            record = mapped[start : start + length].tobytes()
            features = _features(record) if at <= len(mapped) else None
            if features is None:
                raise FacetpuError(f"{shard}: is damaged after {count} photos; pack again with --overwrite")
            labels.append(features["image/class/label"].int64_list.value[0])
            names.append(features["image/filename"].bytes_list.value[0].decode("utf-8"))
            places.append((number, start, length))
            count += 1
        data.append(mapped)
    shard_of, start_of, length_of = np.array(places, np.int64).reshape(-1, 3).T
    return Index(np.array(labels, np.int64), shard_of, start_of, length_of, names, data)


def _features(record: bytes) -> Any:
    """The features of a photo's record, None where it is none."""
    try:
        features = tf.train.Example.FromString(record).features.feature
    except Exception as error:  # DecodeError lives where the protobuf at hand puts it
        if type(error).__name__ != "DecodeError":
            raise
        return None
    return features if features["image/class/label"].int64_list.value else None


def sampler(labels: np.ndarray, sampling: Sampling, batch_size: int, seed: int) -> Choose | None:
    """The choice that ``sampling`` asks for; None for every photo once an epoch.

    Args:
        labels: int64 [n], of all training photos; -1 for one without.
        sampling: what is asked for.
        batch_size: photos a step.
        seed: of every choice.

    Raises:
        FacetpuError: there are too few people with two photos or more to compare.
    """
    if sampling.by == "photos":
        return None
    photos = {person: np.flatnonzero(labels == person) for person in np.unique(labels[labels >= 0]).tolist()}
    if sampling.by == "people":
        return _people(photos, batch_size, seed)
    few = [person for person, rows in photos.items() if len(rows) < 2]
    for person in few:
        del photos[person]
    if len(photos) < 2:
        raise FacetpuError(
            f"sampling.by is identities, and {len(photos)} people have two photos or more to compare; "
            "two are needed: add photos"
        )
    if few:
        log.warning(
            "%d people with one photo each are left out: identities are compared by two or more", len(few)
        )
    return _identities(photos, batch_size // sampling.photos_per_person, sampling.photos_per_person, seed)


def _people(photos: dict[int, np.ndarray], batch_size: int, seed: int) -> Choose:
    """One photo each of as many people as there is room for, the people in turn."""

    def choose(step: int) -> np.ndarray:
        rng = np.random.default_rng([seed, step, 1])
        chosen = _in_turn(list(photos), batch_size, seed, step)
        return np.array([rng.choice(photos[person]) for person in chosen], np.int64)

    return choose


def _identities(photos: dict[int, np.ndarray], people: int, each: int, seed: int) -> Choose:
    """``each`` photos of each of ``people`` people; a person with fewer photos shows some twice."""

    def choose(step: int) -> np.ndarray:
        rng = np.random.default_rng([seed, step, 1])
        chosen = _in_turn(list(photos), people, seed, step)
        rows = [rng.choice(photos[person], each, replace=len(photos[person]) < each) for person in chosen]
        return np.concatenate(rows).astype(np.int64)

    return choose


def _in_turn(people: list[int], count: int, seed: int, step: int) -> list[int]:
    """The ``count`` people of ``step``: all in a seeded order, then all in another, and so on.

    Where there are more people than ``count`` nobody comes twice in a step: who is left at the end of
    an order waits for the next.
    """

    def order(turn: int) -> list[int]:
        return [people[k] for k in np.random.default_rng([seed, turn, 2]).permutation(len(people))]

    if count < len(people):
        turn, place = divmod(step, len(people) // count)
        return order(turn)[place * count : (place + 1) * count]
    chosen: list[int] = []
    while len(chosen) < count:
        turn, place = divmod(step * count + len(chosen), len(people))
        chosen += order(turn)[place : place + count - len(chosen)]
    return chosen
