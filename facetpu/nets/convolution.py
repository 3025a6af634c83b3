"""Convolutions by whichever of TensorFlow's kernels trains them fastest."""

from __future__ import annotations

from typing import Any

from .tensorflow import tf


def convolve(net: Any, weights: Any, strides: list[int], padding: Any) -> Any:
    """A convolution, float32 ``[B, H, W, C]``; one of single pixels is a matrix product.

    That gives the same numbers, and a CPU finds its gradient in half the time: at 4 x 4 pixels of 512
    channels, the gradient of ``conv2d`` takes five times the product's.

    Args:
        net: float32 ``[B, H, W, I]``.
        weights: float32 ``[h, w, I, C]``.
        strides: of all four axes.
        padding: ``SAME`` or ``VALID``, in text or bytes.
    """
    if weights.shape[:2] == (1, 1) and set(strides) == {1}:
        return tf.tensordot(net, weights[0, 0], 1)
    return tf.nn.conv2d(net, weights, strides, padding)


def again(convolved: Any) -> Any:
    """What slim's ``conv2d`` gave, by :func:`convolve`; what slim's other layers gave, as it is.

    slim hands a normaliser what its layer gave. In a graph, the first convolution is then nobody's input,
    and is not computed; out of one there is no telling what it was made of.
    """
    if tf.executing_eagerly():
        return convolved
    layer = convolved.op
    if layer.type != "Conv2D":
        return convolved
    net, weights = layer.inputs
    return convolve(net, weights, layer.get_attr("strides"), layer.get_attr("padding"))
