from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facetpu.errors import FacetpuError
from facetpu.evaluation.identification import Identification, identify_draws, person_vectors, ranks_of
from facetpu.metrics import unit


def faces(sizes: list[int], noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Embeddings about a centre for each person, and whose they are."""
    rng = np.random.default_rng(seed)
    people = np.repeat(np.arange(len(sizes)), sizes)
    centres = unit(rng.normal(size=(len(sizes), 16)), "test")
    rows = centres[people] + noise * rng.normal(size=(len(people), 16))
    return unit(rows, "test"), people, [f"p{number}" for number in range(len(sizes))]


def by_hand(embeddings, people, enrolled, strangers, order, photos, fpir):
    """Rank-1 and DIR of one draw in plain statements; ``order`` has the enrolled photos first."""
    gallery = {}
    for person in enrolled:
        mean = embeddings[order[person][:photos]].mean(axis=0)
        gallery[person] = mean / np.linalg.norm(mean)
    probes = [(crop, person) for person in enrolled for crop in order[person][photos:]]

    def best(crop):
        return max((float(embeddings[crop] @ row), person) for person, row in gallery.items())

    stranger_scores = sorted(best(crop)[0] for crop in np.flatnonzero(np.isin(people, strangers)))
    allowed = int(fpir * len(stranger_scores) + 1e-9)
    refused = stranger_scores[: len(stranger_scores) - allowed]
    threshold = refused[-1] if refused else -2
    right = [best(crop)[0] for crop, person in probes if best(crop)[1] == person]
    return len(right) / len(probes), sum(score > threshold for score in right) / len(probes)


def test_the_rates_are_those_of_the_plain_definition():
    embeddings, people, names = faces([6] * 8 + [3] * 10, noise=0.35)
    enrolled, strangers = np.arange(8), np.arange(8, 18)
    found = identify_draws(embeddings, people, names, enrolled, strangers, [2], repeats=3, seed=5)
    rng = np.random.default_rng([5, 2])
    ranks, dirs = [], []
    for _ in range(3):
        order = {person: rng.permutation(np.flatnonzero(people == person)) for person in enrolled}
        rng.permutation(strangers)  # the half of them that the threshold is set on
        rank, rate = by_hand(embeddings, people, enrolled, strangers, order, 2, 0.1)
        ranks.append(rank)
        dirs.append(rate)
    (rates,) = found.rates
    assert rates.ranks[0] == (pytest.approx(np.mean(ranks)), pytest.approx(np.std(ranks)))
    assert rates.dir["0.1"] == (pytest.approx(np.mean(dirs)), pytest.approx(np.std(dirs)))
    assert 0.3 < np.mean(dirs) < np.mean(ranks) < 1


def test_more_photos_of_a_person_help_and_the_curve_rises():
    embeddings, people, names = faces([12] * 10 + [4] * 20, noise=0.4)
    found = identify_draws(
        embeddings, people, names, np.arange(10), np.arange(10, 30), [10, 1, 3], repeats=5, false_accepts=0.1
    )
    assert [rates.photos for rates in found.rates] == [1, 3, 10]
    rank1 = [rates.ranks[0][0] for rates in found.rates]
    assert rank1 == sorted(rank1)
    assert all(
        list(rates.ranks) == sorted(rates.ranks, key=lambda spread: spread[0]) for rates in found.rates
    )
    assert found.curve["dir"] == sorted(found.curve["dir"])
    assert found.curve["dir"][-1] == pytest.approx(rank1[-1])
    last = found.rates[-1]
    assert last.true_accept[0] + last.misnamed[0] <= 1
    assert 0 <= last.false_accept[0] < 0.4


def test_mistakes_are_counted_by_person():
    # p1's faces lie at p0's; p0's and p2's are where they should be.
    rows = np.eye(3)[[0, 0, 0, 1, 0, 0, 2, 2, 2]] + 0.001
    people = np.repeat([0, 1, 2], 3)
    found = identify_draws(
        unit(rows, "test"), people, ["Ana", "Bo", "Cy"], np.arange(3), np.array([], int), [1], repeats=40
    )
    worst, *others = found.people
    assert (worst.name, worst.faces, worst.taken_for) == ("Bo", 80, "Ana")
    assert worst.right + worst.times == 80
    assert {person.name for person in others} == {"Ana", "Cy"}
    assert found.rates[0].dir is None


def test_one_stranger_gives_rates_but_no_threshold_to_judge():
    embeddings, people, names = faces([4, 4, 4], noise=0.1)
    found = identify_draws(embeddings, people, names, np.arange(2), np.array([2]), [2], repeats=2)
    assert found.rates[0].dir is not None
    assert found.rates[0].threshold is None
    assert "- right" in str(found)


def test_it_comes_back_from_json():
    import json

    embeddings, people, names = faces([4, 4, 4, 3, 3], noise=0.3)
    found = identify_draws(embeddings, people, names, np.arange(3), np.arange(3, 5), [1, 2], repeats=2)
    back = Identification.from_document(json.loads(json.dumps(found._asdict())))
    assert str(back) == str(found)
    assert back.people == found.people


@given(st.integers(1, 6), st.integers(2, 6), st.integers(0, 9))
def test_a_rank_is_one_more_than_those_that_beat_it(probes, people, seed):
    rng = np.random.default_rng(seed)
    scores = rng.permutation(np.arange(probes * people)).reshape(probes, people) / 100
    owner = rng.integers(0, people, probes)
    for row, own, rank in zip(scores, owner, ranks_of(scores, owner), strict=True):
        assert sorted(row, reverse=True)[rank - 1] == row[own]


def test_a_tie_counts_against():
    assert ranks_of(np.array([[0.5, 0.5, 0.1]]), np.array([0])).tolist() == [2]


def test_people_are_normalised_means():
    rows = unit(np.random.default_rng(0).normal(size=(5, 4)), "test")
    vectors = person_vectors(rows, [np.array([0, 1, 2]), np.array([4])])
    mean = rows[:3].mean(axis=0)
    np.testing.assert_allclose(vectors[0], mean / np.linalg.norm(mean), rtol=1e-6)
    np.testing.assert_allclose(vectors[1], rows[4], rtol=1e-6)


def test_a_person_without_a_photo_left_is_refused():
    embeddings, people, names = faces([4, 1], noise=0.1)
    with pytest.raises(FacetpuError, match="p1 has 1 photos, and enrolling 3 takes 4"):
        identify_draws(embeddings, people, names, np.arange(2), np.array([], int), [3], repeats=1)
    with pytest.raises(FacetpuError, match="nobody has more than 3 photos"):
        identify_draws(embeddings, people, names, np.array([], int), np.arange(2), [3], repeats=1)
