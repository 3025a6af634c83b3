"""The head: from a base's embedding to a softmax over people, in the form that imprinting needs.

    embedding uint8 [1,1,1,D] -> L2_NORMALIZATION -> CONV_2D -> MUL -> RESHAPE -> SOFTMAX [1,N]

A row of the convolution's kernel is a person: with rows and input of length 1 its output is the cosine
between them, which MUL scales to a logit. Coral's imprinting engine reads and rewrites exactly these
ops, and its kernel as uint8 with one scale: the converter would give int8 with a scale for each row,
which that engine corrupts without a word. So this flatbuffer is written here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..errors import FacetpuError
from .build import Builder
from .model import quantization, read_model, tensor_shape, type_name
from .schema import ActivationFunctionType, Padding, new

# Cosines, embeddings and rows all lie in [-1, 1]: 1/128 around 128 holds any of them, the rows of people
# yet unknown included. A scale fitted to today's rows would be finer and would clip tomorrow's; and the
# L2 norm's output, whose form the runtime prescribes, is no finer either. Rounding the rows so moves a
# cosine by 1/128/sqrt(12) = .0023 (one standard deviation), whatever D is.
UNIT_SCALE = 1 / 128
UNIT_ZERO_POINT = 128
PROBABILITY_SCALE = 1 / 256  # prescribed for softmax by the runtime

NORM_TOLERANCE = 1e-3


class Source(NamedTuple):
    """What a head is fed from: the base's output."""

    name: str
    dimension: int
    scale: float
    zero_point: int


def base_output(base: bytes, where: str = "the base") -> Source:
    """The embedding that ``base`` gives.

    Raises:
        FacetpuError: it has not one output, uint8 ``[1,1,1,D]`` with a scale.
    """
    model = read_model(base, where)
    graph = model.subgraphs[0]
    if len(graph.outputs) != 1:
        raise FacetpuError(f"{where}: has {len(graph.outputs)} outputs; a base has one, the embedding")
    tensor = graph.tensors[graph.outputs[0]]
    shape, form = tensor_shape(tensor), quantization(tensor)
    if type_name(tensor) != "uint8" or form is None or len(shape) != 4 or shape[:3] != (1, 1, 1):
        raise FacetpuError(
            f"{where}: its output {tensor.name!r} is {type_name(tensor)} {list(shape)}; "
            "a base gives uint8 [1, 1, 1, D]: quantize it so"
        )
    return Source(tensor.name, shape[3], form.scale, form.zero_point)


def build_head(
    kernel: np.ndarray,
    scale_factor: float,
    input_scale: float,
    input_zero_point: int,
    input_name: str = "embedding",
    description: str = "",
) -> bytes:
    """The head as a .tflite file.

    Args:
        kernel: float32 ``[N, D]``, a row of length 1 for each person.
        scale_factor: what a cosine is multiplied by to make a logit.
        input_scale: of the base's output, ``real = input_scale * (stored - input_zero_point)``.
        input_zero_point: of the base's output, 0 to 255.
        input_name: the name of the base's output, by which ``join_models`` connects the two.
        description: Coral's list of the classes that can be trained further; empty for none.

    Raises:
        FacetpuError: a row is not of length 1, or a number is out of its range.
    """
    rows = np.asarray(kernel, np.float32)
    _check(rows, scale_factor, input_scale, input_zero_point)
    classes, dimension = rows.shape
    stored = quantize_rows(rows, UNIT_SCALE, UNIT_ZERO_POINT).reshape(classes, 1, 1, dimension)
    cosine: dict[str, Any] = {"dtype": np.uint8, "scale": UNIT_SCALE, "zero_point": UNIT_ZERO_POINT}
    logit: dict[str, Any] = {"dtype": np.uint8, "scale": scale_factor / 128, "zero_point": 128}

    net = Builder()
    source = net.input(input_name, [1, 1, 1, dimension], np.uint8, input_scale, input_zero_point)
    unit = net.activation("head/unit_embedding", [1, 1, 1, dimension], **cosine)
    people = net.constant("head/kernel", stored, UNIT_SCALE, UNIT_ZERO_POINT)
    bias = net.constant("head/bias", np.zeros(classes, np.int32), UNIT_SCALE * UNIT_SCALE)
    cosines = net.activation("head/cosines", [1, 1, 1, classes], **cosine)
    # 128 steps of factor/128: exactly the factor, in float32 too.
    factor = net.constant("head/scale_factor", np.array(128, np.uint8), scale_factor / 128)
    logits = net.activation("head/logits", [1, 1, 1, classes], **logit)
    shape = net.constant("head/shape", np.array([1, classes], np.int32))
    flat = net.activation("head/flat_logits", [1, classes], **logit)
    probabilities = net.activation("head/probabilities", [1, classes], np.uint8, PROBABILITY_SCALE)

    none = ActivationFunctionType.NONE
    conv = new("Conv2DOptions", padding=Padding.VALID, stride_w=1, stride_h=1, fused_activation_function=none)
    net.op("L2_NORMALIZATION", [source], [unit], new("L2NormOptions", fused_activation_function=none))
    net.op("CONV_2D", [unit, people, bias], [cosines], conv)
    net.op("MUL", [cosines, factor], [logits], new("MulOptions", fused_activation_function=none))
    reshape = new("ReshapeOptions", new_shape=np.array([1, classes], np.int32))
    net.op("RESHAPE", [logits, shape], [flat], reshape)
    net.op("SOFTMAX", [flat], [probabilities], new("SoftmaxOptions", beta=1.0))
    return net.finish([probabilities], description)


def quantize_rows(rows: np.ndarray, scale: float, zero_point: int) -> np.ndarray:
    """uint8 of ``rows``: ``zero_point + rows / scale`` in float32, halves rounded away from zero, clipped.

    This is Coral's arithmetic, so that equal rows give equal bytes.
    """
    real = np.float32(zero_point) + np.asarray(rows, np.float32) / np.float32(scale)
    exact = real.astype(np.float64)  # adding a half in float32 would round twice
    rounded = np.copysign(np.floor(np.abs(exact) + 0.5), exact)
    return np.clip(rounded, 0, 255).astype(np.uint8)


def _check(rows: np.ndarray, factor: float, scale: float, zero_point: int) -> None:
    if rows.ndim != 2 or 0 in rows.shape:
        raise FacetpuError(f"the head's kernel has shape {list(rows.shape)}; give [people, dimension]")
    norms = np.sqrt(np.square(rows, dtype=np.float64).sum(axis=1))
    wrong = np.flatnonzero(~(np.abs(norms - 1) <= NORM_TOLERANCE))
    if len(wrong):
        raise FacetpuError(
            f"row {wrong[0]} of the head's kernel has length {norms[wrong[0]]:.4g}; divide each by its length"
        )
    for name, value in (("scale factor", factor), ("input scale", scale)):
        if not (np.isfinite(value) and value > 0):
            raise FacetpuError(f"the head's {name} is {value}; give a positive number")
    if not 0 <= zero_point <= 255:
        raise FacetpuError(f"the head's input zero point is {zero_point}; a uint8 base has one in 0 to 255")
