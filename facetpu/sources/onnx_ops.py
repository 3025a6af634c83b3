"""ONNX's ops as TensorFlow's, for images held as ``[1, H, W, C]`` where ONNX says ``[1, C, H, W]``.

Each builder takes a node and its inputs, constants as NumPy arrays and all else as ``Value``, and gives
the value of its one output. Meanings of ops and attributes: https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from ..errors import FacetpuError
from ..nets.tensorflow import tf

CONVERTER = (
    "python3 -m venv onnx2tf && onnx2tf/bin/pip install onnx2tf && "
    "onnx2tf/bin/onnx2tf -i {path} -o saved_model, then export the folder saved_model"
)


class Node(NamedTuple):
    """A node of the ONNX graph."""

    op: str
    name: str
    attributes: dict[str, Any]
    path: str  # of the file, for messages
    opset: int
    proto: Any

    @classmethod
    def of(cls, proto: Any, path: str, opset: int) -> Node:
        """The node of an ``onnx.NodeProto``."""
        attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in proto.attribute}
        return cls(proto.op_type, proto.name or proto.output[0], attributes, path, opset, proto)

    def get(self, name: str, default: Any) -> Any:
        """The value of an attribute; strings as text."""
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value


class Value(NamedTuple):
    """What a node gives.

    Attributes:
        tensor: as TensorFlow holds it: ``[1, H, W, C]`` for an image, else in ONNX's own order.
        shape: as ONNX sees it.
        image: ``(C, H, W)`` where the tensor is an image, though ONNX may see it flattened already.
    """

    tensor: Any
    shape: tuple[int, ...]
    image: tuple[int, int, int] | None = None

    @property
    def flat(self) -> bool:
        """Whether this is an image that ONNX sees flattened to ``[1, C * H * W]``."""
        return self.image is not None and len(self.shape) != 4

    def plain(self) -> Any:
        """The tensor in ONNX's own order and shape."""
        if self.image is None:
            return self.tensor
        tensor = self.tensor
        if self.image[1:] != (1, 1):
            tensor = tf.transpose(tensor, [0, 3, 1, 2])
        return tf.reshape(tensor, self.shape)


def refuse(node: Node, reason: str) -> FacetpuError:
    """The one line for what cannot be rebuilt."""
    return FacetpuError(
        f"{node.path}: node {node.name} ({node.op}) {reason}; convert the model with onnx2tf in an "
        f"environment of its own: {CONVERTER.format(path=node.path)}"
    )


def fold_constants(node: Node, inputs: Sequence[Any]) -> list[np.ndarray] | None:
    """The outputs of a node that depends on constants and shapes only; None for any other."""
    if node.op == "Shape" and isinstance(inputs[0], Value):
        shape = np.array(inputs[0].shape, np.int64)
        return [shape[node.get("start", 0) : node.get("end", len(shape))]]
    if any(isinstance(value, Value) for value in inputs):
        return None
    kept = [name for name in node.proto.input if name]
    feeds = {name: value for name, value in zip(node.proto.input, inputs, strict=True) if name}
    kinds = [
        onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(np.asarray(feeds[name]).dtype), None
        )
        for name in kept
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.proto.output]
    graph = onnx.helper.make_graph([node.proto], "constant", kinds, outputs)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", node.opset)])
    try:
        return [np.asarray(value) for value in ReferenceEvaluator(model).run(None, feeds)]
    except (NotImplementedError, RuntimeError, ValueError) as error:
        raise refuse(node, f"cannot be computed from its constants: {str(error).splitlines()[0]}") from None


def build_node(node: Node, inputs: Sequence[Any]) -> list[Value]:
    """The outputs of ``node``.

    Raises:
        FacetpuError: the op, or this form of it, is not known.
    """
    builder = _BUILDERS.get(node.op)
    if builder is None or node.proto.domain not in ("", "ai.onnx"):
        raise refuse(node, "is an op that facetpu does not rebuild")
    made = builder(node, *inputs)
    return made if isinstance(made, list) else [made]


# --- what the builders share


def _like(value: Value, tensor: Any) -> Value:
    """``tensor``, computed from ``value`` number by number."""
    return value._replace(tensor=tensor)


def _image(node: Node, value: Value) -> tuple[int, int, int]:
    """``(C, H, W)`` of a value that must be an image."""
    if value.image is None or value.flat:
        raise refuse(node, f"takes {list(value.shape)}, and facetpu rebuilds it for images [1, C, H, W] only")
    return value.image


def _of_image(tensor: Any) -> Value:
    """A new image."""
    _, height, width, channels = (int(side) for side in tensor.shape)
    return Value(tensor, (1, channels, height, width), (channels, height, width))


def _constant(node: Node, value: Any) -> np.ndarray:
    """An input that must be a constant."""
    if isinstance(value, Value) or value is None:
        raise refuse(node, "takes weights that are not constant")
    return np.asarray(value)


def _operand(value: Value, other: Any) -> Any:
    """``other``, a constant or a value, in the order in which ``value`` is held; float32."""
    if isinstance(other, Value):
        return other.tensor
    constant = np.asarray(other, np.float32)
    if value.image is None or constant.size == 1:
        return constant.reshape(()) if constant.size == 1 else constant
    if value.flat:
        channels, height, width = value.image
        constant = np.broadcast_to(constant, (1, channels * height * width)).reshape(1, *value.image)
    constant = constant.reshape((1,) * (4 - constant.ndim) + constant.shape).transpose(0, 2, 3, 1)
    return constant.reshape(constant.shape[3:]) if constant.shape[:3] == (1, 1, 1) else constant


def _padded(value: Value, pads: Sequence[int], constant: float = 0.0) -> Any:
    """The image with rows and columns around it: ``pads`` is top, left, bottom, right."""
    top, left, bottom, right = (int(pad) for pad in pads)
    if not any(pads):
        return value.tensor
    return tf.pad(value.tensor, [[0, 0], [top, bottom], [left, right], [0, 0]], constant_values=constant)


def _pads(
    node: Node, image: tuple[int, int, int], kernel: Sequence[int], strides: Sequence[int]
) -> list[int]:
    """Top, left, bottom, right, of a convolution or a pooling; ``kernel`` with its dilation."""
    kind = node.get("auto_pad", "NOTSET")
    if kind == "NOTSET":
        return list(node.get("pads", [0, 0, 0, 0]))
    if kind == "VALID":
        return [0, 0, 0, 0]
    before, after = [], []
    for side, length, stride in zip(image[1:], kernel, strides, strict=True):
        total = max((-(-side // stride) - 1) * stride + length - side, 0)
        small, large = total // 2, total - total // 2
        before.append(small if kind == "SAME_UPPER" else large)
        after.append(large if kind == "SAME_UPPER" else small)
    return before + after


def _same(image: tuple[int, int, int], kernel: Sequence[int], strides: Sequence[int]) -> list[int]:
    """What TensorFlow's SAME pads: top, left, bottom, right."""
    totals = [
        max((-(-side // stride) - 1) * stride + length - side, 0)
        for side, length, stride in zip(image[1:], kernel, strides, strict=True)
    ]
    return [total // 2 for total in totals] + [total - total // 2 for total in totals]


def _placed(value: Value, pads: list[int], kernel: Sequence[int], strides: Sequence[int]) -> tuple[Any, str]:
    """The image, padded explicitly unless TensorFlow's own padding does the same, and that padding."""
    assert value.image is not None
    if any(pads) and pads == _same(value.image, kernel, strides):
        return value.tensor, "SAME"
    return _padded(value, pads), "VALID"


# --- convolutions and dense layers


def _conv(node: Node, value: Value, weights: Any, bias: Any = None) -> Value:
    image, kernel = (
        _image(node, value),
        _constant(node, weights).astype(np.float32),
    )  # [out, in / group, h, w]
    if kernel.ndim != 4:
        raise refuse(node, f"has weights {list(kernel.shape)}, and facetpu rebuilds 2-D convolutions only")
    group, out = int(node.get("group", 1)), kernel.shape[0]
    strides, dilations = list(node.get("strides", [1, 1])), list(node.get("dilations", [1, 1]))
    reach = [(side - 1) * dilation + 1 for side, dilation in zip(kernel.shape[2:], dilations, strict=True)]
    tensor, padding = _placed(value, _pads(node, image, reach, strides), reach, strides)
    if group == 1:
        result = tf.nn.conv2d(tensor, kernel.transpose(2, 3, 1, 0), strides, padding, dilations=dilations)
    elif group == image[0]:
        filters = kernel.reshape(group, out // group, *kernel.shape[2:]).transpose(2, 3, 0, 1)
        result = tf.nn.depthwise_conv2d(tensor, filters, [1, *strides, 1], padding, dilations=dilations)
    else:  # one convolution with groups would be a version of the op that the Edge TPU compiler cannot read
        parts = zip(tf.split(tensor, group, 3), np.split(kernel, group), strict=True)
        result = tf.concat(
            [
                tf.nn.conv2d(part, each.transpose(2, 3, 1, 0), strides, padding, dilations=dilations)
                for part, each in parts
            ],
            3,
        )
    if bias is not None:
        result = tf.nn.bias_add(result, _constant(node, bias).astype(np.float32))
    return _of_image(result)


def _dense(value: Value, weights: np.ndarray, bias: np.ndarray | None) -> Value:
    """``value`` times ``weights`` [in, out], as a convolution over all of the image it was flattened from.

    Raises nothing: the caller has checked the shapes. A dense layer's bias would be quantised with the
    scales of one for all; a convolution keeps one for each output.
    """
    channels, height, width = value.image or (value.shape[-1], 1, 1)
    tensor = tf.reshape(value.tensor, [1, height, width, channels])
    kernel = weights.reshape(channels, height, width, -1).transpose(1, 2, 0, 3)
    result = tf.nn.conv2d(tensor, np.ascontiguousarray(kernel, np.float32), 1, "VALID")
    if bias is not None:
        result = tf.nn.bias_add(result, np.broadcast_to(bias.astype(np.float32).ravel(), weights.shape[1:]))
    return Value(result, (1, weights.shape[1]), (weights.shape[1], 1, 1))


def _gemm(node: Node, value: Value, weights: Any, bias: Any = None) -> Value:
    matrix = _constant(node, weights).astype(np.float32) * node.get("alpha", 1.0)
    matrix = matrix.T if node.get("transB", 0) else matrix
    _check_dense(node, value, matrix)
    if node.get("transA", 0):
        raise refuse(node, "transposes its input")
    return _dense(value, matrix, None if bias is None else _constant(node, bias) * node.get("beta", 1.0))


def _matmul(node: Node, value: Value, weights: Any) -> Value:
    if not isinstance(value, Value):
        raise refuse(node, "has its weights on the left")
    matrix = _constant(node, weights).astype(np.float32)
    _check_dense(node, value, matrix)
    return _dense(value, matrix, None)


def _check_dense(node: Node, value: Value, matrix: np.ndarray) -> None:
    if matrix.ndim != 2 or value.shape != (1, matrix.shape[0]):
        raise refuse(node, f"multiplies {list(value.shape)} by {list(matrix.shape)}, and one row is needed")


def _batch_norm(node: Node, value: Value, *statistics: Any) -> Value:
    gamma, beta, mean, variance = (_constant(node, each).astype(np.float64) for each in statistics)
    scale = gamma / np.sqrt(variance + node.get("epsilon", 1e-5))
    return _scaled(value, scale, beta - mean * scale)


def _scaled(value: Value, scale: np.ndarray, offset: np.ndarray) -> Value:
    """Each channel times its scale plus its offset.

    Behind a convolution the converter takes a factor and a bias into it. Elsewhere it would leave two ops,
    each with constants on one scale; a depthwise convolution has a scale for each channel.
    """
    if value.image is None or (value.flat and value.image[1:] != (1, 1)):
        scale, offset = (_operand(value, each[None]) for each in (scale, offset))
        return _like(value, value.tensor * scale + offset)
    if _source_op(value.tensor) in ("Conv2D", "DepthwiseConv2dNative", "BiasAdd"):
        return _like(value, tf.nn.bias_add(value.tensor * np.float32(scale), np.float32(offset)))
    result = tf.nn.depthwise_conv2d(
        value.tensor, scale.astype(np.float32).reshape(1, 1, -1, 1), [1, 1, 1, 1], "VALID"
    )
    return _like(value, tf.nn.bias_add(result, offset.astype(np.float32)))


def _source_op(tensor: Any) -> str:
    return str(tensor.op.type)


# --- activations


def _clip(node: Node, value: Value, lowest: Any = None, highest: Any = None) -> Value:
    low = node.get("min", None) if lowest is None else float(_constant(node, lowest))
    high = node.get("max", None) if highest is None else float(_constant(node, highest))
    low = -np.inf if low is None or low < -1e30 else low
    high = np.inf if high is None or high > 1e30 else high
    tensor = value.tensor
    if (low, high) == (0, 6):
        return _like(value, tf.nn.relu6(tensor))
    if low == 0:
        tensor = tf.nn.relu(tensor)
    elif np.isfinite(low):
        tensor = tf.maximum(tensor, np.float32(low))
    return _like(value, tf.minimum(tensor, np.float32(high)) if np.isfinite(high) else tensor)


def _prelu(node: Node, value: Value, slope: Any) -> Value:
    alpha = np.asarray(_operand(value, _constant(node, slope)), np.float32)
    if alpha.ndim > 1:
        raise refuse(node, "has a slope for each pixel, which the Edge TPU does not take")
    if value.image is not None:
        alpha = np.broadcast_to(alpha, value.image[:1]).reshape(1, 1, -1)
    # The converter knows this sum for one op, PRELU.
    return _like(value, tf.nn.relu(value.tensor) + (-alpha) * tf.nn.relu(-value.tensor))


def _hard_sigmoid(tensor: Any, alpha: float, beta: float) -> Any:
    if np.isclose(alpha, 1 / 6) and beta == 0.5:
        return tf.nn.relu6(tensor + 3.0) * np.float32(1 / 6)
    return tf.minimum(tf.nn.relu(tensor * np.float32(alpha) + np.float32(beta)), 1.0)


def _activation(function: Callable[[Any], Any]) -> Callable[[Node, Value], Value]:
    return lambda node, value: _like(value, function(value.tensor))


def _leaky_relu(node: Node, value: Value) -> Value:
    # As PRELU, which the Edge TPU takes; it does not take LEAKY_RELU.
    slope = np.float32(node.get("alpha", 0.01))
    return _prelu(node, value, np.full((value.shape[1],) + (1,) * (len(value.shape) - 2), slope))


# --- arithmetic


def _arithmetic(function: Callable[[Any, Any], Any]) -> Callable[[Node, Any, Any], Value]:
    def build(node: Node, first: Any, second: Any) -> Value:
        if isinstance(first, Value) and isinstance(second, Value):
            if (first.image is None) != (second.image is None) or first.flat != second.flat:
                raise refuse(node, "combines an image and what is none")
            wider = first if np.prod(first.shape) >= np.prod(second.shape) else second
            return _of(wider, function(first.tensor, second.tensor))
        value = first if isinstance(first, Value) else second
        operands = (
            (first.tensor, _operand(first, second))
            if value is first
            else (_operand(second, first), value.tensor)
        )
        return _of(value, function(*operands))

    return build


def _of(value: Value, tensor: Any) -> Value:
    """``tensor`` in the form of ``value``, whose shape it must have."""
    if tensor.shape != value.tensor.shape:
        return (
            _of_image(tensor)
            if value.image is not None and not value.flat
            else Value(tensor, tuple(tensor.shape))
        )
    return _like(value, tensor)


def _divide(numerator: Any, denominator: Any) -> Any:
    if isinstance(denominator, np.ndarray):
        return numerator * (np.float32(1) / denominator)
    return numerator / denominator


# --- pooling and shapes


def _global_average_pool(node: Node, value: Value) -> Value:
    _, height, width = _image(node, value)
    return _of_image(tf.nn.avg_pool2d(value.tensor, [height, width], 1, "VALID"))


def _average_pool(node: Node, value: Value) -> Value:
    image, kernel, strides = _image(node, value), node.get("kernel_shape", None), node.get("strides", [1, 1])
    pads = _pads(node, image, kernel, strides)
    if any(pads) and not node.get("count_include_pad", 0):
        if pads != _same(image, kernel, strides):
            raise refuse(node, f"averages over a border of {pads} without counting it")
        return _of_image(tf.nn.avg_pool2d(value.tensor, kernel, strides, "SAME"))
    if node.get("ceil_mode", 0):
        raise refuse(node, "rounds its size up")
    return _of_image(tf.nn.avg_pool2d(_padded(value, pads), kernel, strides, "VALID"))


def _max_pool(node: Node, value: Value) -> Value:
    image, kernel, strides = _image(node, value), node.get("kernel_shape", None), node.get("strides", [1, 1])
    pads = _pads(node, image, kernel, strides)
    if node.get("ceil_mode", 0) or list(node.get("dilations", [1, 1])) != [1, 1]:
        raise refuse(node, "is dilated or rounds its size up")
    if any(pads) and pads == _same(image, kernel, strides):
        return _of_image(tf.nn.max_pool2d(value.tensor, kernel, strides, "SAME"))
    if any(pads) and _source_op(value.tensor) not in ("Relu", "Relu6"):
        raise refuse(node, "pools over a border of numbers that may be negative")
    return _of_image(tf.nn.max_pool2d(_padded(value, pads), kernel, strides, "VALID"))


def _reduce_mean(node: Node, value: Value, axes: Any = None) -> Value:
    image = _image(node, value)
    over = node.get("axes", None) if axes is None else _constant(node, axes).tolist()
    if over is None or sorted(axis % 4 for axis in over) != [2, 3]:
        raise refuse(node, f"averages over {over}, and only over the whole image [2, 3] is known")
    pooled = _global_average_pool(node, value)
    return pooled if node.get("keepdims", 1) else pooled._replace(shape=(1, image[0]))


def _reshaped(node: Node, value: Value, shape: Sequence[int]) -> Value:
    """``value`` seen in another shape."""
    sizes = [int(size) for size in shape]
    for place, size in enumerate(sizes):
        if size == 0 and not node.get("allowzero", 0):
            sizes[place] = value.shape[place]
    known = -int(np.prod(sizes)) if -1 in sizes else 0
    sizes = [int(np.prod(value.shape)) // known if size == -1 else size for size in sizes]
    target = tuple(sizes)
    if int(np.prod(target)) != int(np.prod(value.shape)):
        raise refuse(node, f"turns {list(value.shape)} into {list(target)}")
    if value.image is None:
        return Value(tf.reshape(value.tensor, target), target)
    if target == (1, *value.image) or target == (1, int(np.prod(value.image))):
        return value._replace(shape=target)
    if value.image[1:] == (1, 1):
        return Value(tf.reshape(value.tensor, target), target)
    raise refuse(node, f"turns an image {list(value.shape)} into {list(target)}")


def _reshape(node: Node, value: Value, shape: Any) -> Value:
    return _reshaped(node, value, _constant(node, shape).tolist())


def _flatten(node: Node, value: Value) -> Value:
    axis = int(node.get("axis", 1)) % (len(value.shape) + 1)
    return _reshaped(node, value, (int(np.prod(value.shape[:axis])), int(np.prod(value.shape[axis:]))))


def _squeeze(node: Node, value: Value, axes: Any = None) -> Value:
    given = node.get("axes", None) if axes is None else _constant(node, axes).tolist()
    rank = len(value.shape)
    dropped = {axis % rank for axis in given} if given else {i for i, n in enumerate(value.shape) if n == 1}
    return _reshaped(node, value, [size for place, size in enumerate(value.shape) if place not in dropped])


def _unsqueeze(node: Node, value: Value, axes: Any = None) -> Value:
    given = node.get("axes", None) if axes is None else _constant(node, axes).tolist()
    shape = list(value.shape)
    for axis in sorted(axis % (len(shape) + len(given)) for axis in given):
        shape.insert(axis, 1)
    if value.image is None and len(shape) == 4 and shape[2:] == [1, 1]:
        return _of_image(tf.reshape(value.tensor, [1, 1, 1, shape[1]]))
    return _reshaped(node, value, shape)


def _transpose(node: Node, value: Value) -> Value:
    order = tuple(node.get("perm", range(len(value.shape))[::-1]))
    shape = tuple(value.shape[axis] for axis in order)
    if value.image is not None and not value.flat and order == (0, 2, 3, 1):
        return Value(value.tensor, shape)
    if value.image is None and order == (0, 3, 1, 2):
        return Value(value.tensor, shape, (shape[1], shape[2], shape[3]))
    if order == tuple(range(len(order))):
        return value
    raise refuse(node, f"transposes {list(value.shape)} by {list(order)}")


def _pad(node: Node, value: Value, pads: Any = None, constant: Any = None, axes: Any = None) -> Value:
    _image(node, value)
    given = node.get("pads", None) if pads is None else _constant(node, pads).tolist()
    fill = node.get("value", 0.0) if constant is None else float(_constant(node, constant))
    if node.get("mode", "constant") != "constant" or fill or axes is not None or len(given) != 8:
        raise refuse(node, "pads with something else than zeros")
    if any(given[:2] + given[4:6]):
        raise refuse(node, "pads the channels or the batch")
    return _of_image(_padded(value, [given[2], given[3], given[6], given[7]]))


def _concat(node: Node, *values: Any) -> Value:
    if not all(isinstance(value, Value) and value.image and not value.flat for value in values):
        raise refuse(node, "joins something else than images")
    if int(node.get("axis", 1)) % 4 != 1:
        raise refuse(node, "joins images along another dimension than their channels")
    return _of_image(tf.concat([value.tensor for value in values], 3))


def _slice(node: Node, value: Value, *bounds: Any) -> Value:
    channels, _, _ = _image(node, value)
    names = ("starts", "ends", "axes", "steps")
    given = (
        [node.get(name, None) for name in names]
        if not bounds
        else [_constant(node, b).tolist() for b in bounds]
    )
    starts, ends, axes, steps = (list(given) + [None] * 4)[:4]
    if axes != [1] or (steps or [1]) != [1]:
        raise refuse(node, "cuts out something else than some of the channels")
    first, last, _ = slice(starts[0], ends[0]).indices(channels)
    return _of_image(value.tensor[:, :, :, first:last])


def _split(node: Node, value: Value, sizes: Any = None) -> list[Value]:
    channels, _, _ = _image(node, value)
    if int(node.get("axis", 0)) % 4 != 1:
        raise refuse(node, "splits something else than the channels")
    count = len(node.proto.output)
    given = node.get("split", None) if sizes is None else _constant(node, sizes).tolist()
    return [_of_image(part) for part in tf.split(value.tensor, given or [channels // count] * count, 3)]


def _same_value(node: Node, value: Value, *_: Any) -> Value:
    return value


_BUILDERS: dict[str, Callable[..., Any]] = {
    "Add": _arithmetic(lambda first, second: first + second),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _same_value,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "Div": _arithmetic(_divide),
    "Dropout": _same_value,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average_pool,
    "HardSigmoid": lambda node, value: _like(
        value, _hard_sigmoid(value.tensor, node.get("alpha", 0.2), node.get("beta", 0.5))
    ),
    "HardSwish": _activation(lambda tensor: tensor * _hard_sigmoid(tensor, 1 / 6, 0.5)),
    "Identity": _same_value,
    "LeakyRelu": _leaky_relu,
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "Mul": _arithmetic(lambda first, second: first * second),
    "PRelu": _prelu,
    "Pad": _pad,
    "ReduceMean": _reduce_mean,
    "Relu": _activation(tf.nn.relu),
    "Reshape": _reshape,
    "Sigmoid": _activation(tf.nn.sigmoid),
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Sub": _arithmetic(lambda first, second: first - second),
    "Tanh": _activation(tf.nn.tanh),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
