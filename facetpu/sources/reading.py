"""What every reader of a foreign model is told, and what it gives: how to build the network in TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Settings(NamedTuple):
    """How a foreign model is to be read, where it does not say so itself.

    Attributes:
        mean: what is taken from a pixel of 0 to 255, one number or one for each channel in the network's
            order; None for what the network does itself, else for the usual.
        std: what the rest is divided by, likewise.
        channels: ``rgb`` or ``bgr``, the order that the network wants.
        size: side of its image in pixels.
        output: name of the embedding.
        input: name of what is the image, in a graph in which that is no placeholder.
        config: of facetpu's own training, for a checkpoint without a graph beside it.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    channels: str = "rgb"
    size: int | None = None
    output: str | None = None
    input: str | None = None
    config: Path | None = None


class Reading(NamedTuple):
    """A network that has been read and not yet built.

    Attributes:
        where: the file, for messages.
        size: side in pixels of the image it takes.
        output: what the embedding is called there.
        build: float32 ``[1, S, S, 3]`` as the network wants it -> the embedding before its L2 norm.
        original: the same in NumPy, by the file's own runtime, to check what was built: ``[N, S, S, 3]``
            -> ``[N, D]``; None where nothing was rebuilt or that runtime is not installed.
        kernel: float32 ``[N, D]``, unit rows of its own head; None where it has none.
        scale: what its head multiplies a cosine by.
    """

    where: str
    size: int
    output: str
    build: Callable[[Any], Any]
    original: Callable[[np.ndarray], np.ndarray] | None = None
    kernel: np.ndarray | None = None
    scale: float | None = None
