"""MobileNet v2 in tf-slim, with the variable names of its public checkpoints.

Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, arXiv:1801.04381, table 2. All
of it runs on the Edge TPU; the linear bottlenecks lose a little more in int8 than v1's ReLU6 does.
"""

from __future__ import annotations

from typing import Any

from ..config import Network
from .fake_quant import rounded_sum, rounding
from .layers import convolutions
from .tensorflow import slim, v1

FIRST_DEPTH = 32
LAST_DEPTH = 1280
# Expansion, depth, repeats, and stride of the first of them.
BLOCKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenet_v2(images: Any, network: Network, is_training: bool) -> Any:
    """The feature map of ``images``, a 32nd of their size.

    Args:
        images: float32 ``[B, H, W, 3]``, about -1 to 1.
        network: gives the depth multiplier and the batch norm's decay.
        is_training: whether batch norm uses the batch's statistics.

    Returns:
        float32 ``[B, H / 32, W / 32, 1280 * max(1, depth_multiplier)]``, 0 to 6.
    """
    multiplier = network.multiplier
    with v1.variable_scope("MobilenetV2"), convolutions(network, is_training):
        net = slim.conv2d(images, divisible(FIRST_DEPTH * multiplier), 3, stride=2, scope="Conv")
        index = 0
        for expansion, depth, repeats, first_stride in BLOCKS:
            for repeat in range(repeats):
                scope = f"expanded_conv_{index}" if index else "expanded_conv"
                stride = 1 if repeat else first_stride
                net = _block(
                    net, expansion, divisible(depth * multiplier), stride, scope, network, is_training
                )
                index += 1
        return slim.conv2d(net, divisible(LAST_DEPTH * max(1.0, multiplier)), 1, scope="Conv_1")


def divisible(depth: float, by: int = 8) -> int:
    """The multiple of ``by`` nearest to ``depth``, but not below nine tenths of it."""
    nearest = max(by, int(depth + by / 2) // by * by)
    return nearest if nearest >= 0.9 * depth else nearest + by


def _block(
    net: Any, expansion: int, depth: int, stride: int, scope: str, network: Network, is_training: bool
) -> Any:
    """An inverted residual: widen, filter each channel, narrow without an activation."""
    before, linear = net, rounding(None, network, is_training)
    with v1.variable_scope(scope):
        if expansion > 1:
            net = slim.conv2d(net, divisible(net.shape[-1] * expansion), 1, scope="expand")
        net = slim.separable_conv2d(net, None, 3, depth_multiplier=1, stride=stride, scope="depthwise")
        net = slim.conv2d(net, depth, 1, activation_fn=linear, scope="project")
    if stride != 1 or before.shape[-1] != depth:
        return net
    return rounded_sum(before, net, scope, network, is_training)
