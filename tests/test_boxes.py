"""The detector's arithmetic on boxes against plain statements of it, number by number."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from facetpu.mtcnn import boxes as room
from facetpu.mtcnn.boxes import cell_boxes, cut, regress, squares, suppress, suppress_each


@st.composite
def some_boxes(draw: st.DrawFn, least: int = 0) -> np.ndarray:
    """Boxes of whole and broken numbers, many of them overlapping."""
    count = draw(st.integers(least, 25))
    corners = draw(arrays(np.float64, (count, 2), elements=st.integers(-20, 60)))
    sizes = draw(arrays(np.float64, (count, 2), elements=st.integers(0, 160).map(lambda n: n / 4)))
    return np.concatenate([corners, corners + sizes], axis=1)


def overlap(one: np.ndarray, other: np.ndarray, of_smaller: bool) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0]) + 1
    height = min(one[3], other[3]) - max(one[1], other[1]) + 1
    common = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (one, other)]
    return common / min(areas) if of_smaller else common / (sum(areas) - common)


def naive_suppress(boxes: np.ndarray, scores: np.ndarray, threshold: float, of_smaller: bool) -> list[int]:
    left = sorted(range(len(boxes)), key=lambda index: (scores[index], index))
    kept = []
    while left:
        best = left.pop()
        kept.append(best)
        left = [other for other in left if overlap(boxes[best], boxes[other], of_smaller) <= threshold]
    return kept


@given(
    some_boxes(),
    st.sampled_from([0.3, 0.5, 0.7]),
    st.booleans(),
    st.sampled_from([1, 40, 1 << 20]),
    st.data(),
)
def test_suppression_keeps_what_no_better_box_covers(
    boxes: np.ndarray, threshold: float, of_smaller: bool, pairs: int, draw: st.DataObject
) -> None:
    levels = st.integers(0, 6).map(lambda n: n / 8)  # so that scores are often equal
    scores = draw.draw(arrays(np.float64, len(boxes), elements=levels))
    before, room._PAIRS = room._PAIRS, pairs
    try:
        found = suppress(boxes, scores, threshold, of_smaller)
    finally:
        room._PAIRS = before
    assert found.tolist() == naive_suppress(boxes, scores, threshold, of_smaller)


@given(some_boxes(), st.sampled_from([0, 1000]), st.data())
def test_groups_are_suppressed_each_for_itself(boxes: np.ndarray, few: int, draw: st.DataObject) -> None:
    boxes = np.floor(boxes)
    scores = draw.draw(arrays(np.float64, len(boxes), elements=st.integers(0, 6).map(lambda n: n / 8)))
    groups = draw.draw(arrays(np.int64, len(boxes), elements=st.integers(0, 3)))
    expected = []
    for group in range(4):
        members = np.flatnonzero(groups == group)
        expected += members[naive_suppress(boxes[members], scores[members], 0.5, False)].tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "_FEW", few)
        assert sorted(suppress_each(boxes, scores, 0.5, groups).tolist()) == sorted(expected)


def test_very_many_boxes_are_suppressed_in_blocks() -> None:
    grid = np.stack(np.meshgrid(np.arange(50), np.arange(50)), axis=2).reshape(-1, 2) * 40.0
    boxes = np.concatenate([grid, grid + 19], axis=1)
    boxes = np.concatenate([boxes, boxes + 1])
    scores = np.linspace(1, 0, len(boxes))
    np.testing.assert_array_equal(suppress(boxes, scores, 0.5), np.arange(50 * 50))


@given(some_boxes(1))
def test_squares_have_the_longer_side_and_the_same_centre(boxes: np.ndarray) -> None:
    found = squares(boxes)
    for box, square in zip(boxes, found, strict=True):
        side = max(box[2] - box[0], box[3] - box[1])
        centre = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        expected = [centre[0] - side / 2, centre[1] - side / 2, centre[0] + side / 2, centre[1] + side / 2]
        np.testing.assert_allclose(square, expected, atol=1e-9)


def test_sides_move_by_shares_of_the_size() -> None:
    box, offsets = np.array([[10.0, 20.0, 19.0, 39.0]]), np.array([[0.1, -0.1, 0.2, 0.0]])
    np.testing.assert_allclose(regress(box, offsets), [[11, 18, 21, 39]])
    np.testing.assert_allclose(regress(box, offsets, inclusive=False), [[10.9, 18.1, 20.8, 39]])


def test_cells_see_twelve_pixels_every_two() -> None:
    found = cell_boxes(np.array([0, 3]), np.array([0, 5]), 0.5)
    assert found.tolist() == [[2, 2, 24, 24], [14, 22, 36, 44]]
    assert cell_boxes(np.array([1]), np.array([0]), 0.6).tolist() == [[5, 1, 23, 20]]  # towards zero


@given(st.tuples(st.integers(-9, 20), st.integers(-9, 20)), st.tuples(st.integers(1, 30), st.integers(1, 30)))
def test_a_cut_is_black_beyond_the_photo(corner: tuple[int, int], size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(1, 256, (12, 15, 3), dtype=np.uint8)
    found = cut(image, [*corner, corner[0] + size[0] - 1, corner[1] + size[1] - 1])
    assert found.shape == (size[1], size[0], 3)
    for y, x in np.ndindex(size[1], size[0]):
        row, column = corner[1] - 1 + y, corner[0] - 1 + x
        inside = 0 <= row < 12 and 0 <= column < 15
        np.testing.assert_array_equal(found[y, x], image[row, column] if inside else 0)


@pytest.mark.parametrize("min_face", [12, 13, 14, 16, 20, 33, 50])
def test_boxes_of_two_levels_never_overlap_by_the_share_that_would_suppress_one(min_face: int) -> None:
    # What lets the detector leave the reference's second suppression out.
    def sizes(scale: float) -> np.ndarray:
        cells = np.arange(4000)
        boxes = cell_boxes(cells, cells, scale)
        return boxes[:, 2] - boxes[:, 0] + 1

    scales = 12 / min_face * 0.709 ** np.arange(6)
    for finer, coarser in itertools.pairwise(scales):
        assert (sizes(finer).max() / sizes(coarser).min()) ** 2 < 0.7
