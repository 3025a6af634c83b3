from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from facetpu import metrics
from facetpu.errors import FacetpuError


@st.composite
def scored_pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Scores with many ties, and at least one pair of each kind."""
    scores = draw(st.lists(st.integers(-5, 5), min_size=2, max_size=40))
    same = draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores)))
    same[0], same[1] = True, False
    return np.array(scores) / 5, np.array(same)


def lfw_like(pairs: int = 6000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    same = np.tile(np.repeat([True, False], pairs // 20), 10)
    scores = rng.normal(np.where(same, 0.55, 0.05), 0.15)
    return scores, same, np.repeat(np.arange(10), pairs // 10)


def facenet_by_hand(scores: np.ndarray, same: np.ndarray, folds: int = 10) -> tuple[float, float]:
    """The protocol of validate_on_lfw in plain statements: thresholds on squared distances."""
    distances = 2 - 2 * scores
    parts = np.array_split(np.arange(len(scores)), folds)
    accuracies = []
    for test in parts:
        train = np.setdiff1d(np.arange(len(scores)), test)
        best, best_right = 0.0, -1
        for threshold in np.arange(0, 4, 0.01):
            right = sum((distances[i] < threshold) == same[i] for i in train)
            if right > best_right:
                best, best_right = threshold, right
        accuracies.append(np.mean([(distances[i] < best) == same[i] for i in test]))
    return float(np.mean(accuracies)), float(np.std(accuracies))


@given(scored_pairs())
def test_auc_and_roc_equal_scikit_learns(pairs):
    scores, same = pairs
    curve = metrics.roc(scores, same)
    far, tar, thresholds = roc_curve(same, scores, drop_intermediate=False)
    np.testing.assert_array_equal(curve.thresholds, thresholds)
    np.testing.assert_allclose(curve.far, far)
    np.testing.assert_allclose(curve.tar, tar)
    assert metrics.auc(curve) == pytest.approx(roc_auc_score(same, scores), abs=1e-12)


@given(scored_pairs(), st.floats(0, 1))
def test_tar_at_far_is_the_best_that_any_threshold_gives(pairs, far):
    scores, same = pairs
    best = max(
        np.mean(scores[same] >= threshold)
        for threshold in [*scores, 2.0]
        if np.mean(scores[~same] >= threshold) <= far
    )
    assert metrics.tar_at_far(metrics.roc(scores, same), far) == best


@given(scored_pairs())
def test_the_equal_error_rate_is_where_the_two_rates_cross(pairs):
    curve = metrics.roc(*pairs)
    rate = metrics.equal_error_rate(curve)
    # The polyline, walked finely: at the false accept rate found, the miss rate is the same.
    steps = np.linspace(0, len(curve.far) - 1, 20001)
    points = np.arange(len(curve.far))
    far, miss = np.interp(steps, points, curve.far), 1 - np.interp(steps, points, curve.tar)
    crossing = np.argmin(np.abs(far - miss))
    assert rate == pytest.approx(far[crossing], abs=2e-3)


@given(scored_pairs())
def test_no_threshold_beats_the_best_one(pairs):
    scores, same = pairs
    best = metrics.best_threshold(scores, same)
    assert np.isfinite(best)
    right = np.sum((scores >= best) == same)
    assert right == max(np.sum((scores >= threshold) == same) for threshold in [*scores, 2.0])


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=60), st.floats(0, 1))
def test_a_threshold_at_a_false_accept_rate_is_the_lowest_that_keeps_it(scores, far):
    scores = np.array(scores) / 9
    threshold = metrics.threshold_at_far(scores, far)
    assert np.mean(scores >= threshold) <= far
    lower = scores[scores < threshold]
    if lower.size:
        assert np.mean(scores >= lower.max()) > far


def test_cross_validation_equals_facenets_protocol_on_its_thresholds():
    scores, same, folds = lfw_like(400)
    result = metrics.verify_folds(scores, same, folds, thresholds=1 - np.arange(0, 4, 0.01) / 2)
    assert (result.accuracy, result.std) == pytest.approx(facenet_by_hand(scores, same), abs=1e-12)
    assert len(result.folds) == 10


def test_val_at_a_false_accept_rate_is_facenets_but_for_its_interpolation():
    scores, same, folds = lfw_like(3000)
    result = metrics.validate_folds(scores, same, folds, 0.01)
    vals, fars = [], []
    for fold in range(10):
        train = folds != fold
        # facenet's way: false accept rates on a grid of distances, the threshold where 1% falls.
        grid = np.arange(0, 4, 0.001)
        rates = np.array([np.mean(2 - 2 * scores[train & ~same] < threshold) for threshold in grid])
        threshold = np.interp(0.01, rates, grid)
        accepted = 2 - 2 * scores[~train] < threshold
        vals.append(np.mean(accepted[same[~train]]))
        fars.append(np.mean(accepted[~same[~train]]))
    assert result.val == pytest.approx(np.mean(vals), abs=0.01)
    assert result.std == pytest.approx(np.std(vals), abs=0.005)
    assert result.far == pytest.approx(np.mean(fars), abs=0.002)


def test_the_threshold_lies_midway_between_the_classes_it_parts():
    scores = np.array([0.9, 0.8, 0.2, 0.1] * 2)
    same = np.array([True, True, False, False] * 2)
    result = metrics.verify_folds(scores, same, np.repeat([0, 1], 4))
    assert result == metrics.Verification(1.0, 0.0, 0.5, [1.0, 1.0])


def test_neighbouring_floats_are_told_apart():
    low = np.float64(0.3)
    scores = np.array([low, np.nextafter(low, 1)])
    assert metrics.best_threshold(scores, np.array([False, True])) == scores[1]


def test_folds_may_have_any_sizes_and_numbers():
    scores, same, _ = lfw_like(400)
    folds = np.repeat([7, 3, 12], [5, 300, 95])
    result = metrics.verify_folds(scores, same, folds)
    by_hand = []
    for fold in (3, 7, 12):
        test = folds == fold
        threshold = metrics.best_threshold(scores[~test], same[~test])
        by_hand.append(np.mean((scores[test] >= threshold) == same[test]))
    assert result.folds == by_hand
    assert result.accuracy == np.mean(by_hand)


def test_equal_scores_tell_nobody_apart():
    scores, same = np.full(8, 0.4), np.array([True, False] * 4)
    curve = metrics.roc(scores, same)
    assert metrics.auc(curve) == 0.5
    assert metrics.equal_error_rate(curve) == 0.5
    assert metrics.tar_at_far(curve, 0.01) == 0.0
    result = metrics.verify_folds(scores, same, np.arange(8) // 4)
    assert (result.accuracy, result.std) == (0.5, 0.0)
    assert np.isfinite(result.threshold)


def test_a_perfect_model_is_perfect():
    curve = metrics.roc(np.array([0.9, 0.8, 0.1, 0.2]), np.array([True, True, False, False]))
    assert (metrics.auc(curve), metrics.equal_error_rate(curve), metrics.tar_at_far(curve, 0)) == (1, 0, 1)


def test_a_thousandth_of_three_thousand_pairs_is_three():
    different = np.arange(3000) / 3000
    same = np.full(3000, 2996.5 / 3000)
    curve = metrics.roc(np.concatenate([different, same]), np.repeat([False, True], 3000))
    assert metrics.tar_at_far(curve, 0.001) == 1.0
    assert metrics.tar_at_far(curve, 0.0009) == 0.0
    assert np.sum(different >= metrics.threshold_at_far(different, 0.001)) == 3


def test_six_thousand_pairs_take_well_under_a_second():
    scores, same, folds = lfw_like()
    start = time.perf_counter()
    metrics.verify_folds(scores, same, folds)
    metrics.verify_folds(scores, same, folds, thresholds=np.linspace(-1, 1, 4000))
    curve = metrics.roc(scores, same)
    metrics.auc(curve), metrics.equal_error_rate(curve), metrics.tar_at_far(curve, 1e-3)
    assert time.perf_counter() - start < 0.5


@pytest.mark.parametrize(
    ("scores", "same", "folds", "message"),
    [
        ([0.1, 0.2], [True, True], [0, 1], "one kind is absent"),
        ([], [], [], "one kind is absent"),
        ([0.1, np.nan], [True, False], [0, 1], "not finite"),
        ([0.1, 0.2, 0.3], [True, False], [0, 1], "two equal rows"),
        ([0.1, 0.2], [True, False], [0, 0], "needs two folds or more"),
    ],
)
def test_pairs_that_cannot_be_judged_are_refused(scores, same, folds, message):
    with pytest.raises(FacetpuError, match=message):
        metrics.verify_folds(np.array(scores), np.array(same, bool), np.array(folds))


def test_unit_rows_have_length_one():
    embeddings = np.random.default_rng(0).normal(size=(5, 8)) * 100
    rows = metrics.unit(embeddings, "model")
    assert rows.dtype == np.float32
    np.testing.assert_allclose(
        rows, embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True), rtol=1e-6
    )
    assert metrics.unit(embeddings[:1], "model").shape == (1, 8)


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        (np.ones((4, 3)), "all 4 crops have one embedding"),
        (np.outer([1, 2, 3], [3, 4, 5]), "all 3 crops have one embedding"),
        (1 + 1e-3 * np.eye(3), "all 3 crops have one embedding"),
        ([[1, 0], [0, 0], [0, 1]], "1 of 3 embeddings are all zero"),
        ([[1, 0], [np.nan, 1]], "hold NaN or infinity"),
    ],
)
def test_a_broken_model_is_said_to_be_broken(embeddings, message):
    with pytest.raises(FacetpuError, match=f"^base.tflite: is broken: .*{message}"):
        metrics.unit(np.array(embeddings, float), "base.tflite")


def test_rank1_counts_probes_nearest_to_their_own_person():
    gallery = np.eye(3, dtype=np.float32)
    probes = np.array([[0.9, 0.1, 0], [0, 0.2, 0.8], [0.1, 0.9, 0], [0.4, 0.4, 0]], np.float32)
    assert metrics.rank1(gallery, np.array([5, 6, 7]), probes, np.array([5, 6, 6, 5])) == 0.75
    many = np.tile(probes, (1000, 1))
    assert metrics.rank1(gallery, np.array([5, 6, 7]), many, np.tile([5, 6, 6, 5], 1000)) == 0.75


def test_rank1_is_closed_set():
    with pytest.raises(FacetpuError, match="each of a person in the gallery"):
        metrics.rank1(np.eye(2), np.array([0, 1]), np.eye(2), np.array([0, 2]))
    with pytest.raises(FacetpuError, match="needs probes"):
        metrics.rank1(np.eye(2), np.array([0, 1]), np.zeros((0, 2)), np.array([], int))
