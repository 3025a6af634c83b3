"""What every reader of a foreign model gives: how to build its network in a TensorFlow graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


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
