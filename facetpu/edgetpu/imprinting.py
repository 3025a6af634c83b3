"""Whether Coral's ``ImprintingEngine`` takes a model: its own conditions, in its order and its words."""

from __future__ import annotations

from typing import Any

from ..tflite.model import tensor_shape, type_name
from ..tflite.schema import TensorType
from .graph import Op, ops_of

_HEAD = ["CONV_2D", "MUL", "RESHAPE", "SOFTMAX"]


def imprinting_problem(model: Any, where: str = "the model") -> str:
    """What stops pycoral from imprinting on ``model``, in pycoral's own words; empty if nothing does.

    The last condition is ours: pycoral reads the kernel as uint8 with one scale, and corrupts any other
    without a word.

    Args:
        model: as ``facetpu.tflite.model.read_model`` gives it.
        where: the file, for messages.

    Raises:
        FacetpuError: an op lacks a tensor.
    """
    ops = ops_of(model, where)
    norms = [op for op in ops if op.name == "L2_NORMALIZATION"]
    if not norms:
        return "Unsupported model architecture. Input model must have an L2Norm layer."
    if [op.name for op in ops[-4:]] != _HEAD:
        return "The last 4 operators must be Conv2d, Mul, Reshape, Softmax"
    convolution, softmax = ops[-4], ops[-1]
    if len(norms) > 1 or norms[0].output(0) is not _source(ops, convolution):
        return (
            "Unsupported model architecture. L2Norm operator must be followed with the last Conv2d operator."
        )
    shape = tensor_shape(norms[0].output(0))
    if len(shape) != 4 or shape[:3] != (1, 1, 1):
        return "Embedding extractor's output tensor should be [1, 1, 1, x]"
    if not 0 <= _zero_point(convolution.input(2)) <= 255:
        return "bias_zero_point is out of [0, 255] range!"
    scores = softmax.output(0)
    if len(tensor_shape(scores)) != 2 or tensor_shape(scores)[0] != 1:
        return "Logit output tensor should be [1, x]"
    graph = model.subgraphs[0]
    if [graph.tensors[i] is scores for i in graph.outputs] != [True]:
        return "Graph must have output from Softmax"
    return _corrupted(convolution.input(1))


def _source(ops: list[Op], convolution: Op) -> Any:
    """The tensor that the head's convolution reads, seen through a QUANTIZE."""
    tensor = convolution.input(0)
    for op in ops:
        if op.name == "QUANTIZE" and op.output(0) is tensor:
            return op.input(0)
    return tensor


def _zero_point(tensor: Any) -> int:
    points = tensor.quantization.zero_point if tensor.quantization else None
    return int(points[0]) if points is not None and len(points) else 0


def _corrupted(kernel: Any) -> str:
    scales = kernel.quantization.scale if kernel.quantization else None
    if kernel.type == TensorType.UINT8 and scales is not None and len(scales) == 1:
        return ""
    count = 0 if scales is None else len(scales)
    return (
        f"pycoral would accept it and corrupt its kernel {kernel.name!r}, which is {type_name(kernel)} with "
        f"{count} scales and must be uint8 with one: write the head with facetpu"
    )
