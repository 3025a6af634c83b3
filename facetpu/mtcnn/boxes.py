"""Arithmetic on boxes, in float64, exactly as the reference aligner does it.

The reference is davidsandberg/facenet's ``detect_face.py``, a port of the authors' MATLAB. Hence boxes
count pixels from 1 and reach from x1 to x2 and y1 to y2, both inclusive: a box of width 1 has x1 = x2.
Where the reference leaves the 1 out, so does this module; a box moved by one pixel at an early stage is
another crop at the next.

Boxes are float64 [n, 4], scores [n].
"""

from __future__ import annotations

from typing import Sequence

import numpy as np

STRIDE, CELL = 2, 12  # pixels between two cells of P-Net, and pixels that a cell sees

_FEW = 500  # boxes whose overlaps are cheap to compute all with all
_BLOCK = 24  # boxes that are compared with all the others at once
_PAIRS = 1 << 20  # overlaps computed at once: 8 MB each array


def cell_boxes(x: np.ndarray, y: np.ndarray, scale: float | np.ndarray) -> np.ndarray:
    """What P-Net's cells in column ``x``, row ``y`` see at ``scale`` (one or [n, 1]), in the photo."""
    corner = STRIDE * np.stack([x, y], axis=1)
    return np.fix(np.concatenate([corner + 1, corner + CELL], axis=1) / scale)


def regress(boxes: np.ndarray, offsets: np.ndarray, inclusive: bool = True) -> np.ndarray:
    """Move each side by its offset, a share of the box's width or height.

    Args:
        boxes: [n, 4].
        offsets: [n, 4], for x1, y1, x2, y2.
        inclusive: count the last pixel in width and height, as all stages but the first do.
    """
    size = boxes[:, 2:] - boxes[:, :2] + int(inclusive)
    return boxes + np.tile(size, 2) * offsets


def squares(boxes: np.ndarray) -> np.ndarray:
    """The squares around the same centres with the longer side."""
    size = boxes[:, 2:] - boxes[:, :2]
    side = size.max(axis=1, keepdims=True)
    corner = boxes[:, :2] + size * 0.5 - side * 0.5
    return np.concatenate([corner, corner + side], axis=1)


def suppress(boxes: np.ndarray, scores: np.ndarray, threshold: float, of_smaller: bool = False) -> np.ndarray:
    """Non-maximum suppression: the indices of the boxes to keep, best first.

    A box goes when it overlaps a better one that stays by more than ``threshold``. Of equal scores the
    later one counts as better. (The reference leaves ties, and float32 has many at a probability of 1, to
    NumPy's unstable sort: that moves one main face in 200 by a few pixels.)

    Args:
        boxes: [n, 4].
        scores: [n].
        threshold: the largest overlap between two that both stay.
        of_smaller: measure the overlap by the smaller box rather than by the union.
    """
    kept: list[int] = []
    left = np.argsort(scores, kind="stable")[::-1]
    while len(left):
        # A block at a time: what the best suppress is compared with nothing more.
        block = left[: max(1, min(_BLOCK, _PAIRS // len(left)))]
        apart = _overlaps(boxes[block], boxes[left], of_smaller) <= threshold
        stays = np.ones(len(left), bool)
        for row, index in enumerate(block.tolist()):
            if stays[row]:
                kept.append(index)
                stays &= apart[row]
        stays[: len(block)] = False
        left = left[stays]
    return np.array(kept, np.intp)


def suppress_each(boxes: np.ndarray, scores: np.ndarray, threshold: float, groups: np.ndarray) -> np.ndarray:
    """``suppress`` among the boxes of each group for itself: the indices to keep, in no order.

    Args:
        boxes: [n, 4] of whole numbers.
        scores: [n].
        threshold: the largest overlap between two of a group that both stay.
        groups: [n], the number of each box's group.
    """
    if len(boxes) <= _FEW:  # One call for all, far apart; whole numbers stay exact.
        return suppress(boxes + groups[:, None] * float(1 << 32), scores, threshold)
    members = (np.flatnonzero(groups == group) for group in np.unique(groups))
    kept = [some[suppress(boxes[some], scores[some], threshold)] for some in members]
    return np.concatenate(kept) if kept else np.empty(0, np.intp)


def cut(image: np.ndarray, box: Sequence[int]) -> np.ndarray:
    """The pixels of ``image`` in ``box``, black where it reaches beyond: [h, w, 3] of the image's type.

    Args:
        image: [H, W, 3].
        box: x1, y1, x2, y2, with x1 <= x2 and y1 <= y2.
    """
    x1, y1, x2, y2 = box
    inside = image[max(y1, 1) - 1 : max(y2, 0), max(x1, 1) - 1 : max(x2, 0)]
    if inside.shape[:2] == (y2 - y1 + 1, x2 - x1 + 1):
        return inside
    crop = np.zeros((y2 - y1 + 1, x2 - x1 + 1, 3), image.dtype)
    top, left = max(1 - y1, 0), max(1 - x1, 0)
    crop[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return crop


def _overlaps(some: np.ndarray, others: np.ndarray, of_smaller: bool) -> np.ndarray:
    """How much each of ``some`` overlaps each of ``others``: [len(some), len(others)]."""
    sides, other_sides = some.T[:, :, None], others.T[:, None, :]
    common = np.minimum(sides[2:], other_sides[2:]) - np.maximum(sides[:2], other_sides[:2])
    common += 1
    np.maximum(common, 0, out=common)
    shared = common[0] * common[1]
    width, height = sides[2:] - sides[:2] + 1
    other_width, other_height = other_sides[2:] - other_sides[:2] + 1
    area, other_area = width * height, other_width * other_height
    if of_smaller:
        return shared / np.minimum(area, other_area)
    return shared / (area + other_area - shared)
