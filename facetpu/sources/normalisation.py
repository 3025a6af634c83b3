"""What a network wants done to a raw RGB pixel first; facetpu does it inside the model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import FacetpuError
from ..nets.scaling import INPUT, begins_with_scaling
from ..nets.tensorflow import tf, v1
from .reading import Reading

log = logging.getLogger(__name__)

USUAL = 127.5  # mean and std of most face embedders: pixels of -1 to 1


class Normalisation(NamedTuple):
    """``(pixel - mean) / std`` of an RGB pixel of 0 to 255, its channels in the network's order."""

    mean: tuple[float, ...] = (0.0,)  # one number, or one for each channel
    std: tuple[float, ...] = (1.0,)
    channels: str = "rgb"  # or bgr

    def __str__(self) -> str:
        if not any(self.mean) and set(self.std) == {1.0}:
            return f"{self.channels.upper()}, scaled by the network itself"
        return f"{self.channels.upper()}, (pixel - {_words(self.mean)}) / {_words(self.std)}"

    def graph(self, pixels: Any) -> Any:
        """Raw pixels as the network wants them, in a TensorFlow graph."""
        images = tf.reverse(pixels, [3]) if self.channels == "bgr" else pixels
        if any(self.mean):
            images = images - _constant(self.mean)
        return images if set(self.std) == {1.0} else images * _constant([1 / number for number in self.std])

    def array(self, pixels: np.ndarray) -> np.ndarray:
        """Raw pixels as the network wants them, float32."""
        images = pixels[..., ::-1] if self.channels == "bgr" else pixels
        return np.ascontiguousarray((images - np.array(self.mean)) / np.array(self.std), np.float32)


def normalisation_of(
    reading: Reading, mean: Sequence[float] | None, std: Sequence[float] | None, channels: str
) -> Normalisation:
    """The normalisation that goes in front of a network: as given, else none or the usual one.

    Raises:
        FacetpuError: the numbers given make none.
    """
    for option, numbers in (("--mean", mean), ("--std", std)):
        if numbers is not None and (len(numbers) not in (1, 3) or not np.isfinite(numbers).all()):
            raise FacetpuError(f"{option}: give one number, or three for the three channels")
    if std is not None and min(std) <= 0:
        raise FacetpuError("--std: give positive numbers")
    if mean is None and std is None and not _scales_itself(reading):
        log.warning(
            "%s: scales no pixels itself, so (pixel - %g) / %g, the usual, is put in front of it; "
            "if it was trained with another, give that by --mean and --std",
            reading.where,
            USUAL,
            USUAL,
        )
        mean, std = (USUAL,), (USUAL,)
    return Normalisation(tuple(mean or (0.0,)), tuple(std or (1.0,)), channels)


def _scales_itself(reading: Reading) -> bool:
    """Whether the network scales its image before anything else."""
    with tf.Graph().as_default() as graph:
        reading.build(v1.placeholder(tf.float32, [1, reading.size, reading.size, 3], name=INPUT))
    return begins_with_scaling(graph.as_graph_def())


def _constant(numbers: Sequence[float]) -> np.ndarray:
    return np.array(numbers[0] if len(set(numbers)) == 1 else numbers, np.float32)


def _words(numbers: Sequence[float]) -> str:
    text = ", ".join(f"{number:g}" for number in numbers)
    return f"({text})" if len(numbers) > 1 else text
