"""SqueezeNet 1.0 in tf-slim, with batch norm and the variable names that facenet's has.

Iandola et al., SqueezeNet, arXiv:1602.07360, table 1, up to fire9. All of it runs on the Edge TPU.
"""

from __future__ import annotations

from typing import Any

from ..config import Network
from .layers import convolutions, he_normal
from .tensorflow import slim, tf, v1

# Squeezed and expanded depth of each fire module, and whether the map is halved before it.
FIRES = (
    (16, 64, True),
    (16, 64, False),
    (32, 128, False),
    (32, 128, True),
    (48, 192, False),
    (48, 192, False),
    (64, 256, False),
    (64, 256, True),
)


def squeezenet(images: Any, network: Network, is_training: bool) -> Any:
    """The feature map of ``images``, about a 16th of their size.

    Args:
        images: float32 ``[B, H, W, 3]``, about -1 to 1.
        network: gives the batch norm's decay.
        is_training: whether batch norm uses the batch's statistics.

    Returns:
        float32 ``[B, h, w, 512]``, 0 or more.
    """
    with (
        v1.variable_scope("squeezenet"),
        convolutions(network, is_training, tf.nn.relu, he_normal()),
    ):
        net = slim.conv2d(images, 96, 7, stride=2, scope="conv1")
        for index, (squeezed, expanded, halved) in enumerate(FIRES, 2):
            if halved:
                net = tf.nn.max_pool2d(net, 3, strides=2, padding="VALID")
            net = _fire(net, squeezed, expanded, f"fire{index}")
    return net


def _fire(net: Any, squeezed: int, expanded: int, scope: str) -> Any:
    """A squeeze to few channels, and an expansion by 1x1 and by 3x3 side by side."""
    with v1.variable_scope(scope):
        net = slim.conv2d(net, squeezed, 1, scope="squeeze")
        with v1.variable_scope("expand"):
            parts = [slim.conv2d(net, expanded, side, scope=f"{side}x{side}") for side in (1, 3)]
    return tf.concat(parts, axis=3)
