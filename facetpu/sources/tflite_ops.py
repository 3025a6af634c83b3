"""TFLite's float ops as TensorFlow's.

Each builder takes a node and its inputs, constants as NumPy arrays and all else as tensors, and gives its
output. Meanings of ops and options: TensorFlow Lite's schema and reference kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import FacetpuError
from ..nets.tensorflow import tf
from ..tflite.schema import ActivationFunctionType, Padding

_ACTIVATIONS: dict[int, Callable[[Any], Any]] = {
    ActivationFunctionType.NONE: lambda tensor: tensor,
    ActivationFunctionType.RELU: tf.nn.relu,
    ActivationFunctionType.RELU6: tf.nn.relu6,
    ActivationFunctionType.RELU_N1_TO_1: lambda tensor: tf.clip_by_value(tensor, -1.0, 1.0),
    ActivationFunctionType.TANH: tf.nn.tanh,
}


class Node(NamedTuple):
    """An op of the model, named after its first output."""

    op: str
    name: str
    options: Any  # the schema's options of the op
    where: str  # file and place, for messages
    outputs: int

    def get(self, name: str, default: Any = None) -> Any:
        """An option's value."""
        value = getattr(self.options, name, None)
        return default if value is None else value

    def refusal(self, reason: str) -> FacetpuError:
        """The one line for what cannot be rebuilt."""
        return FacetpuError(
            f"{self.where}, {self.op} {self.name!r}, {reason}; export what the .tflite was made from"
        )


def build_node(node: Node, inputs: Sequence[Any]) -> list[Any]:
    """The outputs of ``node``; NumPy arrays where all its inputs are.

    Raises:
        FacetpuError: the op, or this form of it, is not known.
    """
    builder = _BUILDERS.get(node.op)
    if builder is None:
        raise node.refusal("is an op that facetpu does not rebuild")
    made = builder(node, *inputs)
    made = list(made) if isinstance(made, (list, tuple)) else [made]
    activation = _ACTIVATIONS.get(node.get("fused_activation_function", ActivationFunctionType.NONE))
    if activation is None:
        raise node.refusal("has an activation that facetpu does not rebuild")
    return made if node.op == "DEQUANTIZE" else [activation(tensor) for tensor in made]


def _constant(node: Node, value: Any) -> np.ndarray:
    if not isinstance(value, np.ndarray):
        raise node.refusal("has weights or sizes that are not constant")
    return value.astype(np.float32) if value.dtype == np.float16 else value


def _padding(node: Node) -> str:
    return "SAME" if node.get("padding", Padding.SAME) == Padding.SAME else "VALID"


def _strides(node: Node) -> list[int]:
    return [node.get("stride_h"), node.get("stride_w")]


def _dilations(node: Node) -> list[int]:
    return [node.get("dilation_h_factor", 1), node.get("dilation_w_factor", 1)]


def _with_bias(node: Node, tensor: Any, bias: Any) -> Any:
    return tensor if bias is None else tf.nn.bias_add(tensor, _constant(node, bias))


def _conv(node: Node, image: Any, weights: Any, bias: Any = None) -> Any:
    kernel = _constant(node, weights).transpose(1, 2, 3, 0)  # from [out, h, w, in]
    if kernel.shape[2] != image.shape[3]:
        raise node.refusal("is a convolution in groups")
    result = tf.nn.conv2d(image, kernel, _strides(node), _padding(node), dilations=_dilations(node))
    return _with_bias(node, result, bias)


def _depthwise(node: Node, image: Any, weights: Any, bias: Any = None) -> Any:
    kernel = _constant(node, weights)[0]  # [h, w, out]
    kernel = kernel.reshape(*kernel.shape[:2], int(image.shape[3]), -1)
    strides = [1, *_strides(node), 1]
    result = tf.nn.depthwise_conv2d(image, kernel, strides, _padding(node), dilations=_dilations(node))
    return _with_bias(node, result, bias)


def _dense(node: Node, rows: Any, weights: Any, bias: Any = None) -> Any:
    """As a 1x1 convolution, which keeps a scale for each of its outputs when quantised."""
    kernel = _constant(node, weights).T  # [in, out]
    image = tf.reshape(rows, [1, 1, 1, kernel.shape[0]])
    result = _with_bias(node, tf.nn.conv2d(image, kernel[None, None], 1, "VALID"), bias)
    return tf.reshape(result, [1, kernel.shape[1]])


def _prelu(node: Node, tensor: Any, slope: Any) -> Any:
    alpha = _constant(node, slope)
    # The converter knows this sum for one op, PRELU.
    return tf.nn.relu(tensor) + (-alpha) * tf.nn.relu(-tensor)


def _leaky_relu(node: Node, tensor: Any) -> Any:
    # As PRELU, which the Edge TPU takes; it does not take LEAKY_RELU.
    slope = (
        np.full(tensor.shape[1:], 1, np.float32)
        if len(tensor.shape) < 3
        else np.ones((1, 1, tensor.shape[3]))
    )
    return _prelu(node, tensor, (slope * node.get("alpha")).astype(np.float32))


def _pool(function: Any) -> Callable[[Node, Any], Any]:
    def build(node: Node, image: Any) -> Any:
        size = [node.get("filter_height"), node.get("filter_width")]
        return function(image, size, _strides(node), _padding(node))

    return build


def _reduce(function: Any) -> Callable[[Node, Any, Any], Any]:
    return lambda node, tensor, axes: function(
        tensor, _constant(node, axes).ravel().tolist(), keepdims=bool(node.get("keep_dims"))
    )


def _mean(node: Node, tensor: Any, axes: Any) -> Any:
    over = sorted(axis % len(tensor.shape) for axis in _constant(node, axes).ravel().tolist())
    if len(tensor.shape) != 4 or over != [1, 2]:
        return tf.reduce_mean(tensor, over, keepdims=bool(node.get("keep_dims")))
    pooled = tf.nn.avg_pool2d(tensor, tensor.shape[1:3], 1, "VALID")
    return pooled if node.get("keep_dims") else tf.reshape(pooled, [1, tensor.shape[3]])


def _reshape(node: Node, tensor: Any, shape: Any = None) -> Any:
    sizes = node.get("new_shape") if shape is None else _constant(node, shape)
    target = [int(size) for size in np.ravel(sizes)]
    if len(target) > 1 and -1 in target[1:] and target[0] == -1:
        raise node.refusal("has two open sizes")
    return tf.reshape(tensor, [1, *target[1:]] if target[0] == -1 and len(target) > 1 else target)


def _squeeze(node: Node, tensor: Any) -> Any:
    axes = node.get("squeeze_dims")
    return tf.squeeze(tensor, None if axes is None or not len(axes) else [int(axis) for axis in axes])


def _pad(node: Node, tensor: Any, paddings: Any, value: Any = None) -> Any:
    fill = 0.0 if value is None else float(_constant(node, value).reshape(()))
    return tf.pad(tensor, _constant(node, paddings).tolist(), constant_values=fill)


def _split(node: Node, axis: Any, tensor: Any) -> Any:
    return tf.split(tensor, node.outputs, int(_constant(node, axis).reshape(())))


def _dequantize(node: Node, value: Any) -> Any:
    return _constant(node, value).astype(np.float32)


def _concat(node: Node, *tensors: Any) -> Any:
    return tf.concat(list(tensors), node.get("axis", 0))


def _hard_swish(node: Node, tensor: Any) -> Any:
    return tensor * tf.nn.relu6(tensor + 3.0) * np.float32(1 / 6)


def _of(function: Any) -> Callable[..., Any]:
    """A builder of an op that has no options but an activation."""
    return lambda node, *tensors: function(
        *(tensor.astype(np.float32) if isinstance(tensor, np.ndarray) else tensor for tensor in tensors)
    )


_BUILDERS: dict[str, Callable[..., Any]] = {
    "ADD": _of(lambda first, second: first + second),
    "AVERAGE_POOL_2D": _pool(tf.nn.avg_pool2d),
    "CONCATENATION": _concat,
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "DEQUANTIZE": _dequantize,
    "DIV": _of(lambda first, second: first / second),
    "FULLY_CONNECTED": _dense,
    "HARD_SWISH": _hard_swish,
    "L2_NORMALIZATION": _of(lambda tensor: tf.nn.l2_normalize(tensor, -1)),
    "LEAKY_RELU": _leaky_relu,
    "LOGISTIC": _of(tf.nn.sigmoid),
    "MAXIMUM": _of(tf.maximum),
    "MAX_POOL_2D": _pool(tf.nn.max_pool2d),
    "MEAN": _mean,
    "MINIMUM": _of(tf.minimum),
    "MUL": _of(lambda first, second: first * second),
    "NEG": _of(lambda tensor: -tensor),
    "PAD": _pad,
    "PADV2": _pad,
    "PRELU": _prelu,
    "RELU": _of(tf.nn.relu),
    "RELU6": _of(tf.nn.relu6),
    "RESHAPE": _reshape,
    "RSQRT": _of(tf.math.rsqrt),
    "SPLIT": _split,
    "SQRT": _of(tf.sqrt),
    "SQUARE": _of(tf.square),
    "SQUEEZE": _squeeze,
    "SUB": _of(lambda first, second: first - second),
    "SUM": _reduce(tf.reduce_sum),
    "TANH": _of(tf.nn.tanh),
    "TRANSPOSE": lambda node, tensor, order: tf.transpose(tensor, _constant(node, order).tolist()),
}
