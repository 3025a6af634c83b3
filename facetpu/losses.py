"""The losses that a config can name, each a function of the classifier's output and the true labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .config import nearest
from .errors import FacetpuError
from .nets.classifier import Output
from .nets.tensorflow import tf


def softmax_cross_entropy(output: Output, labels: Any) -> Any:
    """The mean cross-entropy of ``softmax(scale * cosines)``.

    Args:
        output: of B images, N people.
        labels: int64 ``[B]``, 0 to N-1.

    Returns:
        float32 scalar.
    """
    logits = output.scale * output.cosines
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))


# What the config's loss may be.
LOSSES: dict[str, Callable[[Output, Any], Any]] = {"softmax": softmax_cross_entropy}


def find_loss(name: str) -> Callable[[Output, Any], Any]:
    """The loss called ``name``.

    Raises:
        FacetpuError: there is none.
    """
    if name not in LOSSES:
        raise FacetpuError(f"loss: there is no loss {name!r}{nearest(name, LOSSES)}")
    return LOSSES[name]
