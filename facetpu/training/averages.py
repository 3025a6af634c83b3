"""Averages of the weights along a training, which are a little better than the last ones."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

from ..nets.checkpoint import AVERAGE
from ..nets.tensorflow import tf


class Averages:
    """A moving average of each weight, named as slim names it; none without a decay.

    Over the first steps the decay is less, (1 + n) / (10 + n) of n steps as tf.train's average has it: else
    the weights that a training began with would count for most of it long after they were left.

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

    def update(self, steps: Any) -> None:
        """Move each average towards its weight, as it is after so many ``steps``."""
        count = tf.cast(steps, tf.float32)
        decay = tf.minimum(self.decay or 0.0, (1 + count) / (10 + count))
        for average, weight in zip(self.variables, self.weights, strict=True):
            average.assign_sub((1 - decay) * (average - weight))

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
