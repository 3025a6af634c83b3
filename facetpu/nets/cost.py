"""What a network costs: its parameters and its multiply-adds, counted in its graph."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ..config import Network
from .tensorflow import tf, v1


class Cost(NamedTuple):
    """Of one image, up to the feature map's average or, with a head, the embedding.

    Attributes:
        weights: numbers in the kernels of the convolutions.
        parameters: all that is trained: kernels, biases, the scale and offset of batch norm.
        multiply_adds: of the convolutions; the rest is small beside them.
        map_shape: height, width and depth of what the network gives.
    """

    weights: int
    parameters: int
    multiply_adds: int
    map_shape: tuple[int, ...]


def cost(build: Any, network: Network) -> Cost:
    """The cost of the feature map that ``build`` makes of an image.

    Args:
        build: a network function, as ``mobilenet_v1``, or another of its form.
        network: its settings, the image's size among them.
    """
    side = network.image_size
    with tf.Graph().as_default() as graph:
        out = build(v1.placeholder(tf.float32, [1, side, side, 3]), network, False)
        trained = v1.trainable_variables()
    kernels = [variable for variable in trained if variable.name.endswith("weights:0")]
    return Cost(
        weights=sum(_numbers(variable) for variable in kernels),
        parameters=sum(_numbers(variable) for variable in trained),
        multiply_adds=sum(_multiply_adds(op) for op in graph.get_operations()),
        map_shape=tuple(out.shape.as_list()[1:]),
    )


def _numbers(tensor: Any) -> int:
    return math.prod(tensor.shape.as_list())


def _multiply_adds(op: Any) -> int:
    """Output numbers times the products in each."""
    if op.type not in ("Conv2D", "DepthwiseConv2dNative"):
        return 0
    height, width, depth, _ = op.inputs[1].shape.as_list()
    each = height * width * (depth if op.type == "Conv2D" else 1)
    return _numbers(op.outputs[0]) * each
