"""MobileFaceNet in tf-slim: MobileNet v2's blocks, and a depthwise convolution that weighs the face's places.

Chen et al., MobileFaceNets: Efficient CNNs for Accurate Real-Time Face Verification on Mobile Devices,
arXiv:1804.07573, table 1, with ReLU6 where the paper has PReLU: that quantises, and all of it runs on
the Edge TPU. The global depthwise convolution loses most in int8.
"""

from __future__ import annotations

from typing import Any

from ..config import Network
from .fake_quant import rounded_sum, rounding
from .layers import convolutions, he_normal
from .tensorflow import slim, v1

LAST_DEPTH = 512
# Expansion, depth, repeats, and stride of the first of them.
BLOCKS = (
    (2, 64, 5, 2),
    (4, 128, 1, 2),
    (2, 128, 6, 1),
    (4, 128, 1, 2),
    (2, 128, 2, 1),
)


def mobilefacenet(images: Any, network: Network, is_training: bool) -> Any:
    """What ``images`` hold, weighed over their places.

    Args:
        images: float32 ``[B, H, W, 3]``, about -1 to 1.
        network: gives the batch norm's decay.
        is_training: whether batch norm uses the batch's statistics.

    Returns:
        float32 ``[B, 1, 1, 512]``.
    """
    with (
        v1.variable_scope("MobileFaceNet"),
        convolutions(network, is_training, initializer=he_normal()),
    ):
        net = slim.conv2d(images, 64, 3, stride=2, scope="Conv2d_0")
        net = slim.separable_conv2d(net, None, 3, depth_multiplier=1, scope="Conv2d_1_depthwise")
        index = 0
        for expansion, depth, repeats, first_stride in BLOCKS:
            for repeat in range(repeats):
                stride = 1 if repeat else first_stride
                net = _block(net, expansion, depth, stride, f"Bottleneck_{index}", network, is_training)
                index += 1
        net = slim.conv2d(net, LAST_DEPTH, 1, scope="Conv2d_2")
        return slim.separable_conv2d(
            net,
            None,
            net.shape[1:3],
            depth_multiplier=1,
            activation_fn=rounding(None, network, is_training),
            padding="VALID",
            scope="Global_depthwise",
        )


def _block(
    net: Any, expansion: int, depth: int, stride: int, scope: str, network: Network, is_training: bool
) -> Any:
    before, linear = net, rounding(None, network, is_training)
    with v1.variable_scope(scope):
        net = slim.conv2d(net, net.shape[-1] * expansion, 1, scope="expand")
        net = slim.separable_conv2d(net, None, 3, depth_multiplier=1, stride=stride, scope="depthwise")
        net = slim.conv2d(net, depth, 1, activation_fn=linear, scope="project")
    if stride != 1 or before.shape[-1] != depth:
        return net
    return rounded_sum(before, net, scope, network, is_training)
