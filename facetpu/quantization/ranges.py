"""The range of each activation over the calibration crops: what its 256 steps are spread over.

TensorFlow Lite's own calibration reads an op's inputs after the op has run, and where an addition writes
its sum into the place of one of its inputs it takes the sum's range for that input's: up to twice the
true one before every residual addition. So the ranges are measured here, with every tensor kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from ..tflite.model import write_model
from .tensors import AllTensors

_BINS = 4096

Ranges = dict[int, tuple[float, float]]


def measured(model: bytes, images: Callable[[], Iterable[np.ndarray]], clip: float | None) -> bytes:
    """``model`` with the ranges that its activations have on ``images``.

    Args:
        model: a float model, prepared for calibration.
        images: gives the images anew each time, each ``[1, S, S, 3]`` float32.
        clip: the percentage of each activation's numbers that its range must hold; None for all of them.
    """
    tensors = AllTensors(model)
    source = int(tensors.graph.inputs[0])
    wanted = [
        index
        for index in tensors.activations
        if (form := tensors.graph.tensors[index].quantization) is not None and form.min is not None
    ]
    ranges = _extremes(tensors, images(), wanted)
    if clip is not None:
        inner = [index for index in wanted if index != source]  # a pixel may always be black or white
        ranges.update(_clipped(tensors, images(), {index: ranges[index] for index in inner}, clip))
    for index, (low, high) in ranges.items():
        form = tensors.graph.tensors[index].quantization
        form.min, form.max = np.array([low], np.float32), np.array([high], np.float32)
    return write_model(tensors.model)


def _extremes(tensors: AllTensors, images: Iterable[np.ndarray], wanted: list[int]) -> Ranges:
    """The least and the greatest number of each tensor; zero, which integers must hold, among them."""
    low, high = dict.fromkeys(wanted, 0.0), dict.fromkeys(wanted, 0.0)
    for image in images:
        tensors.run(image)
        for index in wanted:
            values = tensors.real(index)
            low[index] = min(low[index], float(values.min()))
            high[index] = max(high[index], float(values.max()))
    return {index: (low[index], high[index]) for index in wanted}


def _clipped(tensors: AllTensors, images: Iterable[np.ndarray], ranges: Ranges, clip: float) -> Ranges:
    """The ranges without the rarest numbers: half of what ``clip`` leaves out at either end."""
    counts = {index: np.zeros(_BINS, np.int64) for index in ranges}
    for image in images:
        tensors.run(image)
        for index, bounds in ranges.items():
            counts[index] += np.histogram(tensors.real(index), _BINS, bounds)[0]
    clipped = {}
    for index, (low, high) in ranges.items():
        share = np.cumsum(counts[index]) / max(1, counts[index].sum())
        edges = np.linspace(low, high, _BINS + 1)
        rare = (1 - clip / 100) / 2
        first, last = np.searchsorted(share, rare, "right"), np.searchsorted(share, 1 - rare)
        clipped[index] = (min(0.0, float(edges[first])), max(0.0, float(edges[min(last + 1, _BINS)])))
    return clipped
