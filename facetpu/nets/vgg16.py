"""VGG-16's convolutions in tf-slim, with the variable names of slim's public checkpoint.

Simonyan and Zisserman, arXiv:1409.1556, configuration D; the backbone of VGGFace, whose dense layers
give way to the average pool and the embedding. There is no batch norm. All of it runs on the Edge TPU,
but its 15 million weights are streamed from the host: the chip keeps about 8 million.
"""

from __future__ import annotations

from typing import Any

from ..config import Network
from .layers import convolutions, he_normal
from .tensorflow import slim, tf, v1

# Convolutions of each block, and their depth.
BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))


def vgg16(images: Any, network: Network, is_training: bool) -> Any:
    """The feature map of ``images``, a 32nd of their size.

    Args:
        images: float32 ``[B, H, W, 3]``, about -1 to 1.
        network: not used but for the arg scope.
        is_training: not used; there is no batch norm.

    Returns:
        float32 ``[B, H / 32, W / 32, 512]``, 0 or more.
    """
    net = images
    with (
        v1.variable_scope("vgg_16"),
        convolutions(network, is_training, tf.nn.relu, he_normal()),
        slim.arg_scope([slim.conv2d], normalizer_fn=None, normalizer_params=None),
    ):
        for block, (repeats, depth) in enumerate(BLOCKS, 1):
            for repeat in range(1, repeats + 1):
                net = slim.conv2d(net, depth, 3, scope=f"conv{block}/conv{block}_{repeat}")
            net = tf.nn.max_pool2d(net, 2, strides=2, padding="VALID")
    return net
