"""Inception-ResNet-v1 in tf-slim as facenet has it, with the variable names of its checkpoints.

Szegedy et al., arXiv:1602.07261, section 3.1, with facenet's narrower 1x7 and 1x3 branches. All of it
runs on the Edge TPU; its 23 million weights are streamed from the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..config import Network
from .layers import convolutions
from .tensorflow import slim, tf, v1

# A branch is a row of (scope, depth, kernel); a residual block has several side by side.
Branch = Sequence[tuple[str, int, Any]]
BLOCK35: Sequence[Branch] = (
    (("Conv2d_1x1", 32, 1),),
    (("Conv2d_0a_1x1", 32, 1), ("Conv2d_0b_3x3", 32, 3)),
    (("Conv2d_0a_1x1", 32, 1), ("Conv2d_0b_3x3", 32, 3), ("Conv2d_0c_3x3", 32, 3)),
)
BLOCK17: Sequence[Branch] = (
    (("Conv2d_1x1", 128, 1),),
    (("Conv2d_0a_1x1", 128, 1), ("Conv2d_0b_1x7", 128, (1, 7)), ("Conv2d_0c_7x1", 128, (7, 1))),
)
BLOCK8: Sequence[Branch] = (
    (("Conv2d_1x1", 192, 1),),
    (("Conv2d_0a_1x1", 192, 1), ("Conv2d_0b_1x3", 192, (1, 3)), ("Conv2d_0c_3x1", 192, (3, 1))),
)
# The last convolution of each of these branches halves the map; a max pool stands beside them.
MIXED_6A: Sequence[Branch] = (
    (("Conv2d_1a_3x3", 384, 3),),
    (("Conv2d_0a_1x1", 192, 1), ("Conv2d_0b_3x3", 192, 3), ("Conv2d_1a_3x3", 256, 3)),
)
MIXED_7A: Sequence[Branch] = (
    (("Conv2d_0a_1x1", 256, 1), ("Conv2d_1a_3x3", 384, 3)),
    (("Conv2d_0a_1x1", 256, 1), ("Conv2d_1a_3x3", 256, 3)),
    (("Conv2d_0a_1x1", 256, 1), ("Conv2d_0b_3x3", 256, 3), ("Conv2d_1a_3x3", 256, 3)),
)


def inception_resnet_v1(images: Any, network: Network, is_training: bool) -> Any:
    """The feature map of ``images``, about a 50th of their size.

    Args:
        images: float32 ``[B, H, W, 3]``, about -1 to 1, at least 75 px a side.
        network: gives the batch norm's decay.
        is_training: whether batch norm uses the batch's statistics.

    Returns:
        float32 ``[B, h, w, 1792]``.
    """
    initializer = v1.truncated_normal_initializer(stddev=0.1)
    with (
        v1.variable_scope("InceptionResnetV1"),
        convolutions(network, is_training, tf.nn.relu, initializer),
    ):
        net = _stem(images)
        net = _repeat(net, 5, BLOCK35, 0.17, "Repeat/block35")
        net = _reduce(net, MIXED_6A, "Mixed_6a")
        net = _repeat(net, 10, BLOCK17, 0.10, "Repeat_1/block17")
        net = _reduce(net, MIXED_7A, "Mixed_7a")
        net = _repeat(net, 5, BLOCK8, 0.20, "Repeat_2/block8")
        return _residual(net, BLOCK8, 1.0, "Block8")


def _stem(net: Any) -> Any:
    net = slim.conv2d(net, 32, 3, stride=2, padding="VALID", scope="Conv2d_1a_3x3")
    net = slim.conv2d(net, 32, 3, padding="VALID", scope="Conv2d_2a_3x3")
    net = slim.conv2d(net, 64, 3, scope="Conv2d_2b_3x3")
    net = tf.nn.max_pool2d(net, 3, strides=2, padding="VALID")
    net = slim.conv2d(net, 80, 1, padding="VALID", scope="Conv2d_3b_1x1")
    net = slim.conv2d(net, 192, 3, padding="VALID", scope="Conv2d_4a_3x3")
    return slim.conv2d(net, 256, 3, stride=2, padding="VALID", scope="Conv2d_4b_3x3")


def _repeat(net: Any, times: int, branches: Sequence[Branch], scale: float, scope: str) -> Any:
    for number in range(1, times + 1):
        net = tf.nn.relu(_residual(net, branches, scale, f"{scope}_{number}"))
    return net


def _residual(net: Any, branches: Sequence[Branch], scale: float, scope: str) -> Any:
    """``net`` and a share of what ``branches`` make of it."""
    with v1.variable_scope(scope):
        parts = [_branch(net, branch, index) for index, branch in enumerate(branches)]
        mixed = slim.conv2d(
            tf.concat(parts, axis=3),
            net.shape[-1],
            1,
            activation_fn=None,
            normalizer_fn=None,
            normalizer_params=None,
            scope="Conv2d_1x1",
        )
    return net + scale * mixed


def _reduce(net: Any, branches: Sequence[Branch], scope: str) -> Any:
    """``net`` at half its size, by ``branches`` and a max pool side by side."""
    with v1.variable_scope(scope):
        parts = [_branch(net, branch, index, halve=True) for index, branch in enumerate(branches)]
        parts.append(tf.nn.max_pool2d(net, 3, strides=2, padding="VALID"))
    return tf.concat(parts, axis=3)


def _branch(net: Any, branch: Branch, index: int, halve: bool = False) -> Any:
    with v1.variable_scope(f"Branch_{index}"):
        for place, (scope, depth, kernel) in enumerate(branch, 1):
            last = {"stride": 2, "padding": "VALID"} if halve and place == len(branch) else {}
            net = slim.conv2d(net, depth, kernel, scope=scope, **last)
    return net
