"""The smallest embedder there is, for the tests that measure."""

from __future__ import annotations

import numpy as np

from facetpu.tflite.build import Builder
from facetpu.tflite.schema import new


def pixels_as_embedding(side: int, dtype: type = np.uint8) -> bytes:
    """A base whose embedding is the crop itself, its pixels quantised as (q - 128) / 128 or float."""
    scale = (1 / 128, 128) if dtype == np.uint8 else ()
    net = Builder()
    crop = net.input("crop", [1, side, side, 3], dtype, *scale)
    shape = net.constant("shape", np.array([1, 1, 1, side * side * 3], np.int32))
    embedding = net.activation("embedding", [1, 1, 1, side * side * 3], dtype, *scale)
    net.op("RESHAPE", [crop, shape], [embedding], new("ReshapeOptions", new_shape=[1, 1, 1, side * side * 3]))
    return net.finish([embedding])
