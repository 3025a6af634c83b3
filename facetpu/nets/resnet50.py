"""ResNet-50 and SE-ResNet-50 in tf-slim: the backbones of VGGFace2.

He et al., arXiv:1512.03385, table 1; Hu et al., Squeeze-and-Excitation Networks, arXiv:1709.01507, table
1, reduction 16. Variables are named as in slim's ``resnet_v1_50``. As in the papers and in
keras-vggface, the first 1x1 convolution of a block halves the map; slim's own network halves it in the
last unit of the block before, so its checkpoint fits but wants a little training.

ResNet-50 runs wholly on the Edge TPU; its 24 million weights are streamed from the host. The gates of
SE-ResNet-50 are a sigmoid and a product, which run there too.
"""

from __future__ import annotations

from typing import Any

from ..config import Network
from .layers import convolutions, he_normal
from .tensorflow import slim, tf, v1

# Units of each block, their narrow depth, and the stride of the first.
BLOCKS = ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2))
WIDEN = 4
REDUCTION = 16


def resnet50(images: Any, network: Network, is_training: bool) -> Any:
    """The feature map of ``images``, a 32nd of their size.

    Args:
        images: float32 ``[B, H, W, 3]``, about -1 to 1.
        network: gives the batch norm's decay.
        is_training: whether batch norm uses the batch's statistics.

    Returns:
        float32 ``[B, H / 32, W / 32, 2048]``, 0 or more.
    """
    return _resnet(images, network, is_training, "resnet_v1_50", gated=False)


def se_resnet50(images: Any, network: Network, is_training: bool) -> Any:
    """As :func:`resnet50`, with a gate on every channel of each unit."""
    return _resnet(images, network, is_training, "se_resnet_v1_50", gated=True)


def _resnet(images: Any, network: Network, is_training: bool, scope: str, gated: bool) -> Any:
    with v1.variable_scope(scope), convolutions(network, is_training, tf.nn.relu, he_normal()):
        net = slim.conv2d(images, 64, 7, stride=2, scope="conv1")
        net = tf.nn.max_pool2d(net, 3, strides=2, padding="SAME")
        for block, (units, depth, first_stride) in enumerate(BLOCKS, 1):
            for unit in range(1, units + 1):
                with v1.variable_scope(f"block{block}/unit_{unit}/bottleneck_v1"):
                    net = _unit(net, depth, first_stride if unit == 1 else 1, gated)
    return net


def _unit(net: Any, depth: int, stride: int, gated: bool) -> Any:
    """A bottleneck: narrow, filter, widen, and add what came in."""
    shortcut = net
    if net.shape[-1] != WIDEN * depth:
        shortcut = slim.conv2d(net, WIDEN * depth, 1, stride=stride, activation_fn=None, scope="shortcut")
    net = slim.conv2d(net, depth, 1, stride=stride, scope="conv1")
    net = slim.conv2d(net, depth, 3, scope="conv2")
    net = slim.conv2d(net, WIDEN * depth, 1, activation_fn=None, scope="conv3")
    if gated:
        net *= _gate(net)
    return tf.nn.relu(shortcut + net)


def _gate(net: Any) -> Any:
    """``[B, 1, 1, C]``, 0 to 1: what each channel is worth, told by the means of all."""
    depth = net.shape[-1]
    gate = tf.nn.avg_pool2d(net, net.shape[1:3], strides=1, padding="VALID")
    with v1.variable_scope("se"), slim.arg_scope([slim.conv2d], normalizer_fn=None, normalizer_params=None):
        gate = slim.conv2d(gate, depth // REDUCTION, 1, scope="down")
        return slim.conv2d(gate, depth, 1, activation_fn=tf.nn.sigmoid, scope="up")
