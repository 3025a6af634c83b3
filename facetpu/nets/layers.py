"""How the networks' convolutions are normalised, activated and begun: the one arg scope they share."""

from __future__ import annotations

from typing import Any

from ..config import Network
from .batch_norm import batch_norm
from .fake_quant import folded_batch_norm, rounding
from .tensorflow import slim, tf, v1


def convolutions(
    network: Network, is_training: bool, activation: Any = tf.nn.relu6, initializer: Any = None
) -> Any:
    """An arg scope for slim's ``conv2d`` and ``separable_conv2d``: batch norm, padded to keep the size.

    Args:
        network: gives the batch norm's decay, which scopes are trained, and whether for integers.
        is_training: whether batch norm uses the batch's statistics.
        activation: what follows each convolution; ReLU6 is what quantises best.
        initializer: of the weights; a truncated normal of deviation 0.09, MobileNet's, unless given.
    """
    return slim.arg_scope(
        [slim.conv2d, slim.separable_conv2d],
        activation_fn=rounding(activation, network, is_training),
        weights_initializer=initializer or v1.truncated_normal_initializer(stddev=0.09),
        normalizer_fn=folded_batch_norm if network.quantization_aware else batch_norm,
        normalizer_params={
            "decay": network.batch_norm_decay,
            "is_training": is_training,
            "trainable_scopes": network.trainable_scopes,
        },
        padding="SAME",
    )


def he_normal() -> Any:
    """He et al.'s initializer for deep nets of ReLUs (arXiv:1502.01852): variance 2 / inputs."""
    return v1.variance_scaling_initializer(scale=2.0, mode="fan_in", distribution="truncated_normal")
