"""What one op must be for the Edge TPU to run it, as Coral documents it and as its compiler was seen to act.

``fault(op)`` is None, or what is wrong and how to mend it. Sources: Coral's table of supported
operations ("TensorFlow models on the Edge TPU") for compiler 16, and the ops that compiler mapped in
Coral's public models where the two differ.
"""

from __future__ import annotations

from typing import Any, Callable

import numpy as np

from ..tflite.model import tensor_shape, type_name
from ..tflite.schema import ActivationFunctionType, TensorType
from .graph import Op

_SUPPORTED = """
    ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D EXPAND_DIMS FULLY_CONNECTED
    L2_NORMALIZATION LOGISTIC MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL PACK PAD PRELU QUANTIZE REDUCE_MAX
    REDUCE_MIN RELU RELU6 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR RSQRT SLICE SOFTMAX
    SPACE_TO_DEPTH SPLIT SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM TANH TILE TRANSPOSE
    TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM
"""
SUPPORTED = frozenset(_SUPPORTED.split())

# What to do about ops that have a near relation on the Edge TPU.
INSTEAD = {
    "ARG_MAX": "let the program take the maximum of the output",
    "CAST": "feed the model its own type: uint8 pixels",
    "DEQUANTIZE": "convert with an integer output type; the caller dequantises",
    "DIV": "multiply by the reciprocal",
    "ELU": "train with ReLU",
    "GELU": "train with ReLU",
    "HARD_SWISH": "train with ReLU6",
    "LEAKY_RELU": "train with ReLU or PReLU",
    "LSTM": "use a unidirectional sequence LSTM",
    "POW": "multiply",
    "SPLIT_V": "split into equal parts (SPLIT)",
    "SQRT": "use RSQRT and MUL",
    "SQUARE": "multiply the tensor with itself",
}
_CUT = "cut the model before it (facetpu split --tensor) and compile the part before"
_QUANTIZE = "quantise the model to full integer (facetpu quantize)"

# Inputs that must be constants in the file, by place.
_PARAMETERS = {
    "CONV_2D": (1, 2),
    "DEPTHWISE_CONV_2D": (1, 2),
    "EXPAND_DIMS": (1,),
    "FULLY_CONNECTED": (1, 2),
    "MEAN": (1,),
    "PAD": (1,),
    "PRELU": (1,),
    "REDUCE_MAX": (1,),
    "REDUCE_MIN": (1,),
    "RESHAPE": (1,),
    "RESIZE_BILINEAR": (1,),
    "RESIZE_NEAREST_NEIGHBOR": (1,),
    "SLICE": (1, 2),
    "SPLIT": (0,),
    "STRIDED_SLICE": (1, 2, 3),
    "SUM": (1,),
    "TILE": (1,),
    "TRANSPOSE": (1,),
    "TRANSPOSE_CONV": (0, 1),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": tuple(range(1, 18)),
}
# What the chip keeps of a small model's parameters; large activations take from it.
CACHE_BYTES = round(7.7 * 2**20)
_EIGHT_BITS = (TensorType.INT8, TensorType.UINT8)
_SOFTMAX_LIMIT = 16000  # elements, from Coral's table
# Where the compiler stops to map a resize is not documented ("depending on size"). Seen in public models:
# 2 times mapped, 33 times not; outputs of 3 MiB and more not, of half a MiB mapped.
_RESIZE_FACTOR = 8
_RESIZE_LIMIT = 3 << 20  # bytes


def fault(op: Op) -> str | None:
    """What keeps this op off the Edge TPU, and what to do about it; None if nothing does.

    Raises:
        FacetpuError: a constant of the op is damaged.
    """
    if op.name not in SUPPORTED:
        return f"the Edge TPU has no {op.name}: {INSTEAD.get(op.name, _CUT)}"
    for rule in (_types, _parameters, _rank, _BY_OP.get(op.name)):
        found = rule(op) if rule is not None else None
        if found:
            return found
    return None


def _types(op: Op) -> str | None:
    for tensor in op.activations():
        if tensor.type not in _EIGHT_BITS:
            mend = _QUANTIZE if _is_real(tensor) else "keep indices out of the model"
            return f"works on {type_name(tensor)} (tensor {tensor.name!r}), not int8 or uint8: {mend}"
        if tensor.quantization is None or tensor.quantization.scale is None:
            return f"tensor {tensor.name!r} is {type_name(tensor)} without a scale: {_QUANTIZE}"
    for tensor in op.inputs:
        if tensor is not None and _is_real(tensor):
            return f"its constant {tensor.name!r} is {type_name(tensor)}: {_QUANTIZE}"
    return None


def _is_real(tensor: Any) -> bool:
    return type_name(tensor).startswith(("float", "bfloat"))


def _parameters(op: Op) -> str | None:
    for place in _PARAMETERS.get(op.name, ()):
        tensor = op.inputs[place] if place < len(op.inputs) else None
        if tensor is not None and not tensor.is_variable and not op.is_constant(tensor):
            return f"its parameter {tensor.name!r} is computed, not constant: fold it before converting"
    return None


def _rank(op: Op) -> str | None:
    for tensor in op.activations():
        shape = tensor_shape(tensor)
        if any(size != 1 for size in shape[:-3]):
            return (
                f"tensor {tensor.name!r} is {list(shape)}, and only the 3 innermost dimensions may exceed 1: "
                "convert with a batch of 1 and no further dimensions"
            )
    return None


def _no_activation(op: Op) -> str | None:
    kind = op.option("fused_activation_function")
    if kind == ActivationFunctionType.NONE:
        return None
    known = 0 <= kind < len(ActivationFunctionType)
    name = ActivationFunctionType(kind).name if known else f"activation {kind}"
    return f"has {name} fused into it: make that an op of its own"


def _concatenation(op: Op) -> str | None:
    found = _no_activation(op)
    constants = [place for place, tensor in enumerate(op.inputs) if op.is_constant(tensor)]
    if found or not constants:
        return found
    values, tensor = op.constant(constants[0]), op.inputs[constants[0]]
    zero_point = tensor.quantization.zero_point[0] if tensor.quantization else 0
    if len(op.inputs) == 2 and values is not None and (values == zero_point).all():
        return None
    return "joins a constant that is not one block of zeros beside one tensor: use PAD, or add it on the CPU"


def _dilation(op: Op) -> str | None:
    x, y = op.option("dilation_w_factor", 1), op.option("dilation_h_factor", 1)
    return None if x == y else f"is dilated {y} x {x}: use the same dilation in x and y"


def _fully_connected(op: Op) -> str | None:
    output, weights = op.output(0), op.input(1)
    scales = weights.quantization.scale if weights.quantization else None
    if scales is not None and len(scales) > 1:
        return (
            f"its weights {weights.name!r} have a scale for each channel, which older runtimes take for "
            "garbage: convert with _experimental_disable_per_channel_quantization_for_dense_layers"
        )
    if op.option("weights_format"):
        return "its weights are shuffled: convert with the default weight format"
    size = int(np.prod(tensor_shape(weights), dtype=np.int64))
    if size > CACHE_BYTES:
        return (
            f"its weights take {size / 2**20:.1f} MiB, and the chip keeps {CACHE_BYTES / 2**20:.1f}: "
            f"split it (facetpu split --dense {-(-size // CACHE_BYTES)})"
        )
    return _one_dimensional(output)


def _one_dimensional(tensor: Any) -> str | None:
    shape = tensor_shape(tensor)
    if all(size == 1 for size in shape[:-1]):
        return None
    return (
        f"tensor {tensor.name!r} is {list(shape)} and must be one-dimensional: use a 1x1 convolution instead"
    )


def _not_the_batch(op: Op, place: int = 1) -> str | None:
    axes = op.constant(place)
    rank = len(tensor_shape(op.input(1 - place)))
    if axes is None or rank < 4 or 0 not in np.mod(axes, rank).ravel():
        return None
    return "works along the batch: use another dimension"


def _mean(op: Op) -> str | None:
    axes, shape = op.constant(1), tensor_shape(op.input(0))
    if axes is not None and shape and len(shape) - 1 in np.mod(axes, len(shape)).ravel() and shape[-1] % 4:
        return f"averages {shape[-1]} channels: make them a multiple of 4"
    return _not_the_batch(op)


def _pack(op: Op) -> str | None:
    rank = len(tensor_shape(op.output(0)))
    batch = rank >= 4 and op.option("axis") % rank == 0
    return "packs along the batch: use another dimension" if batch else None


def _pad(op: Op) -> str | None:
    paddings, shape = op.constant(1), tensor_shape(op.input(0))
    if paddings is not None and len(shape) >= 4 and paddings.reshape(-1, 2)[0].any():
        return "pads the batch: pad other dimensions only"
    return None


def _prelu(op: Op) -> str | None:
    shape = tensor_shape(op.input(1))
    if all(size == 1 for size in shape[:-1]):
        return None
    return f"its alpha is {list(shape)}: share it over the image (shared_axes=[1, 2])"


def _resize(op: Op) -> str | None:
    before, after = (tensor_shape(tensor) for tensor in (op.input(0), op.output(0)))
    if len(before) == len(after) == 4 and any(
        new > _RESIZE_FACTOR * old for old, new in zip(before[1:3], after[1:3])
    ):
        return f"enlarges {list(before)} to {list(after)}, too far for its precision: enlarge in steps"
    size = int(np.prod(after, dtype=np.int64))
    if size < _RESIZE_LIMIT:
        return None
    return f"resizes to {size / 2**20:.1f} MiB, which is too much for the Edge TPU: resize to less"


def _softmax(op: Op) -> str | None:
    size = tensor_shape(op.input(0))[-1:]
    if size and size[0] > _SOFTMAX_LIMIT:
        return f"has {size[0]} classes, and the Edge TPU takes {_SOFTMAX_LIMIT}: leave the softmax to the CPU"
    return _one_dimensional(op.input(0))


def _squeeze(op: Op) -> str | None:
    before, after = tensor_shape(op.input(0)), tensor_shape(op.output(0))
    if before[len(before) - len(after) :] == after:
        return None
    return f"turns {list(before)} into {list(after)}: squeeze leading dimensions only, or use RESHAPE"


def _strided_slice(op: Op) -> str | None:
    strides = op.constant(3)
    if strides is not None and (strides != 1).any():
        return f"slices with strides {strides.tolist()}: use strides of 1, or a pooling of size 1"
    if op.option("ellipsis_mask") or op.option("new_axis_mask"):
        return "slices with an ellipsis or a new axis: write every dimension out"
    return None


def _tile(op: Op) -> str | None:
    # Coral's table has no TILE; the compiler was seen to map one that spreads a 1x1 map.
    if all(size == 1 for size in tensor_shape(op.input(0))[:-1]):
        return None
    return f"repeats more than one pixel: {_CUT}"


def _not_transposing_the_batch(op: Op) -> str | None:
    order = op.constant(1)
    if order is None or len(order) < 4 or order[0] == 0:
        return None
    return f"transposes the batch {order.tolist()}: leave the first dimension in its place"


_BY_OP: dict[str, Callable[[Op], str | None]] = {
    "AVERAGE_POOL_2D": _no_activation,
    "CONCATENATION": _concatenation,
    "CONV_2D": _dilation,
    "DEPTHWISE_CONV_2D": _dilation,
    "FULLY_CONNECTED": _fully_connected,
    "MAX_POOL_2D": _no_activation,
    "MEAN": _mean,
    "PACK": _pack,
    "PAD": _pad,
    "PRELU": _prelu,
    "REDUCE_MAX": _not_the_batch,
    "REDUCE_MIN": _not_the_batch,
    "RESIZE_BILINEAR": _resize,
    "RESIZE_NEAREST_NEIGHBOR": _resize,
    "SOFTMAX": _softmax,
    "SPLIT": lambda op: _not_the_batch(op, place=0),
    "SQUEEZE": _squeeze,
    "STRIDED_SLICE": _strided_slice,
    "SUM": _not_the_batch,
    "TILE": _tile,
    "TRANSPOSE": _not_transposing_the_batch,
}
