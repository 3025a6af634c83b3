"""Levels of the pyramid and crops of it: areas of a photo, averaged to fewer pixels.

Where a C compiler was at hand when facetpu was installed, ``_area.c`` does most of them, with the same
bits as OpenCV and in a third of its time.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FacetpuError
from ..image import resize_area
from .boxes import cut
from .compiled import find_library

_REACH = 4  # times the photo's longer side; the widest box that sound networks propose reaches 3
_LARGE = 1024  # side of a crop that is averaged to this first, so that bytes need not become float32


def load_compiled(path: Path) -> Any:
    """``facetpu_shrink`` of ``_area.c`` from the shared library ``path``."""
    shrink = ctypes.CDLL(str(path)).facetpu_shrink
    pointer = ctypes.c_void_p
    shrink.argtypes = [pointer, ctypes.c_int, pointer, ctypes.c_int, ctypes.c_int, ctypes.c_int, pointer]
    return shrink


def _find_compiled() -> Any:
    path = find_library("_area")
    return None if path is None else load_compiled(path)


compiled: Any = _find_compiled()  # None where there is none


def level(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """All of a photo averaged to [height, width, 3] whole numbers, as the reference averages bytes to bytes.

    Float32 is rounded as OpenCV rounds bytes: halves to even, but up in its own code for half the size.

    Args:
        pixels: uint8 or float32 [H, W, 3].
        height: of the level, H at most.
        width: of the level, W at most.
    """
    if pixels.dtype == np.uint8:
        return resize_area(pixels, height, width)
    if compiled is None:
        averaged = resize_area(pixels, height, width)
    else:
        everything = np.array([[0, 0, pixels.shape[1], pixels.shape[0]]], np.int32)
        averaged = _shrink(pixels, everything, height, width)[0]
    if pixels.shape[:2] == (2 * height, 2 * width):
        return np.floor(averaged + np.float32(0.5))
    return np.rint(averaged)


def crops(pixels: np.ndarray, boxes: np.ndarray, side: int) -> np.ndarray:
    """Each box as float32 [n, side, side, 3]; rounded to bytes they would move boxes by 2-3 pixels.

    Args:
        pixels: uint8 or float32 [H, W, 3].
        boxes: whole numbers [n, 4] as in ``boxes``, not empty; black where they reach beyond the photo.
        side: of a crop.

    Raises:
        FacetpuError: a box reaches further beyond the photo than sound networks place any.
    """
    if not np.abs(boxes).max() <= _REACH * max(pixels.shape[:2]):  # not-a-number included
        raise FacetpuError(
            "the detector's networks place a face far outside the photo: they are damaged; "
            "export the model again"
        )
    boxes = boxes.astype(np.int32)
    out = np.empty((len(boxes), side, side, 3), np.float32)
    left = np.ones(len(boxes), bool)
    if compiled is not None and pixels.dtype == np.float32:
        corners = boxes - np.array([1, 1, 0, 0], np.int32)  # counting from 0, the end exclusive
        size = corners[:, 2:] - corners[:, :2]
        beyond = (corners[:, :2] < 0) | (corners[:, 2:] > pixels.shape[1::-1])
        left = (beyond | (size < side)).any(axis=1) | (size > _LARGE).all(axis=1)
        out[~left] = _shrink(pixels, corners[~left], side, side)
    for index in np.flatnonzero(left).tolist():
        crop = cut(pixels, boxes[index].tolist())
        if min(crop.shape[:2]) > _LARGE:
            crop = resize_area(crop, _LARGE, _LARGE)
        out[index] = resize_area(crop.astype(np.float32, copy=False), side, side)
    return out


def _shrink(pixels: np.ndarray, corners: np.ndarray, height: int, width: int) -> np.ndarray:
    """Boxes of float32 ``pixels``, int32 x1, y1, x2, y2 from 0 and exclusive, as [n, height, width, 3]."""
    pixels, corners = np.ascontiguousarray(pixels), np.ascontiguousarray(corners)
    out = np.empty((len(corners), height, width, 3), np.float32)
    failed = compiled(
        pixels.ctypes.data, pixels.shape[1], corners.ctypes.data, len(corners), height, width, out.ctypes.data
    )
    if failed:
        raise MemoryError(f"no memory to shrink an image of {pixels.shape[1]} x {pixels.shape[0]}")
    return out
