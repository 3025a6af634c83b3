"""Which photos make a batch, and which triplets are mined."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from crops import write_crops

from facetpu.config import Sampling
from facetpu.errors import FacetpuError
from facetpu.stages.pack import pack
from facetpu.training.mining import mine, mining_rows

LABELS = np.array([0] * 50 + [1] * 5 + [2] * 3 + [3] + [-1] * 20, np.int64)


def test_people_come_equally_often_however_many_photos_they_have() -> None:
    from facetpu.training.sampling import sampler

    choose = sampler(LABELS, Sampling(by="people"), batch_size=6, seed=0)
    rows = np.concatenate([choose(step) for step in range(40)])
    assert Counter(LABELS[rows].tolist()) == {0: 60, 1: 60, 2: 60, 3: 60}
    assert np.array_equal(choose(7), sampler(LABELS, Sampling(by="people"), 6, seed=0)(7))
    assert not np.array_equal(choose(7), sampler(LABELS, Sampling(by="people"), 6, seed=1)(7))


def test_a_batch_of_identities_is_p_people_by_k_photos(caplog: pytest.LogCaptureFixture) -> None:
    from facetpu.training.sampling import sampler

    choose = sampler(LABELS, Sampling(by="identities", photos_per_person=4), batch_size=8, seed=0)
    assert "1 people with one photo each are left out" in caplog.text
    for step in range(20):
        rows = choose(step).reshape(2, 4)
        people = LABELS[rows]
        assert (people == people[:, :1]).all()
        assert len(set(people[:, 0])) == 2
        for who, photos in zip(people[:, 0], rows, strict=True):
            assert who in (0, 1, 2)
            assert who == 2 or len(set(photos)) == 4  # a person of three photos shows one twice
    with pytest.raises(FacetpuError, match="1 people have two photos or more to compare; two are needed"):
        sampler(np.array([0, 0, 1, 2]), Sampling(by="identities"), 8, 0)


def test_the_index_finds_every_photo_and_tells_a_cut_shard(tmp_path: Path) -> None:
    from facetpu.nets.tensorflow import tf
    from facetpu.training.records import read_records
    from facetpu.training.sampling import read_index

    pack(write_crops(tmp_path / "crops", people=3, photos=4), tmp_path / "records", shards=2, validation=0)
    shards = read_records(tmp_path / "records").train
    index = read_index(shards)
    assert index.read(np.arange(12)) == list(tf.data.TFRecordDataset(shards).as_numpy_iterator())
    assert sorted(index.names) == [
        f"person {person}/{photo}.png" for person in range(3) for photo in range(4)
    ]
    assert [name[7] for name in index.names] == [str(label) for label in index.labels]
    cut = tmp_path / "cut.tfrecord"
    cut.write_bytes(Path(shards[0]).read_bytes()[:-9])
    with pytest.raises(FacetpuError, match=r"cut.tfrecord: is damaged after 5 photos; pack again"):
        read_index([str(cut)])


def test_mined_triplets_are_the_nearest_strangers_beyond_the_positive() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([0, 0, 0, 1, 1, 2, 9])
    rows = rng.normal(size=(7, 3))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    apart = ((unit[:, None] - unit[None]) ** 2).sum(axis=2)
    triplets = mine(unit.astype(np.float32), labels, 4.0, 9, [0])  # no triplet keeps a margin of 4
    assert len(triplets) == 3 * 2 + 2
    for anchor, positive, negative in triplets:
        assert labels[anchor] == labels[positive] != labels[negative]
        assert anchor != positive
        others = np.flatnonzero(labels != labels[anchor])
        beyond = [other for other in others if apart[anchor, other] > apart[anchor, positive]]
        assert negative == min(beyond or others, key=lambda other: apart[anchor, other])
    gaps = [apart[anchor, negative] - apart[anchor, positive] for anchor, positive, negative in triplets]
    margin = float(np.median(gaps))
    narrow = mine(unit.astype(np.float32), labels, margin, 9, [0])
    assert {tuple(row) for row in narrow} < {tuple(row) for row in triplets}
    for anchor, positive, negative in narrow:
        assert apart[anchor, positive] - apart[anchor, negative] + margin > 0
    with pytest.raises(FacetpuError, match="no two photos of one person and one of another"):
        mine(unit, np.arange(7), 0.2, None, [0])


def test_mining_takes_whole_people_and_nobody_unlabelled() -> None:
    rows = mining_rows(LABELS, 9, [0])
    assert len(rows) == 9
    assert (LABELS[rows] >= 0).all()
    assert sorted(mining_rows(LABELS, 1000, [0])) == list(range(59))
