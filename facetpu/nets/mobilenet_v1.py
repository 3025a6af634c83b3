"""MobileNet v1 in tf-slim, with the variable names of its public checkpoints.

Howard et al., MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications,
arXiv:1704.04861, table 1. All of it runs on the Edge TPU.
"""

from __future__ import annotations

from typing import Any

from ..config import Network
from .layers import convolutions
from .tensorflow import slim, v1

FIRST_DEPTH = 32
MIN_DEPTH = 8
# Stride of the depthwise and depth of the pointwise convolution of each separable block.
BLOCKS = (
    (1, 64),
    (2, 128),
    (1, 128),
    (2, 256),
    (1, 256),
    (2, 512),
    (1, 512),
    (1, 512),
    (1, 512),
    (1, 512),
    (1, 512),
    (2, 1024),
    (1, 1024),
)


def mobilenet_v1(images: Any, network: Network, is_training: bool) -> Any:
    """The feature map of ``images``, a 32nd of their size.

    Args:
        images: float32 ``[B, H, W, 3]``, about -1 to 1.
        network: gives the depth multiplier and the batch norm's decay.
        is_training: whether batch norm uses the batch's statistics.

    Returns:
        float32 ``[B, H / 32, W / 32, 1024 * depth_multiplier]``, 0 to 6.
    """

    def depth(full: int) -> int:
        return max(int(full * network.multiplier), MIN_DEPTH)

    with v1.variable_scope("MobilenetV1"), convolutions(network, is_training):
        net = slim.conv2d(images, depth(FIRST_DEPTH), 3, stride=2, scope="Conv2d_0")
        for index, (stride, full) in enumerate(BLOCKS, 1):
            name = f"Conv2d_{index}"
            net = slim.separable_conv2d(
                net, None, 3, depth_multiplier=1, stride=stride, scope=f"{name}_depthwise"
            )
            net = slim.conv2d(net, depth(full), 1, scope=f"{name}_pointwise")
    return net
