"""Averages of the weights along a training, which are a little better than the last ones."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

from ..nets.checkpoint import AVERAGE
from ..nets.tensorflow import tf


class Averages:
    """A moving average of each weight, named as slim names it; none without a decay.

    Inside a ``with`` block the weights are the averages.
    """

    def __init__(self, weights: Sequence[Any], decay: float | None) -> None:
        self.decay = decay
        self.weights = list(weights) if decay is not None else []
        self.variables = [
            tf.Variable(weight.read_value(), name=weight.name.split(":")[0] + AVERAGE, trainable=False)
            for weight in self.weights
        ]
        self._kept: list[Any] = []

    def start(self) -> None:
        """Begin anew at the weights as they are."""
        for average, weight in zip(self.variables, self.weights, strict=True):
            average.assign(weight)

    def update(self) -> None:
        """Move each average towards its weight by a step."""
        for average, weight in zip(self.variables, self.weights, strict=True):
            average.assign_sub((1 - (self.decay or 0)) * (average - weight))

    def __enter__(self) -> Averages:
        self._kept = [weight.numpy() for weight in self.weights]
        for average, weight in zip(self.variables, self.weights, strict=True):
            weight.assign(average)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for weight, kept in zip(self.weights, self._kept, strict=True):
            weight.assign(kept)
