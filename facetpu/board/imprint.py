"""Weight imprinting: a new class is the normalised sum of its embeddings, written into the last layer.

``ImprintingEngine`` has the interface of Coral's engine of that name (pycoral.learn.imprinting.engine),
its refusals and its bytes, so that a program written for it runs by changing one import. Method: Qi,
Brown and Lowe, "Low-Shot Learning with Imprinted Weights", CVPR 2018.
"""

from __future__ import annotations

import operator
import re
from pathlib import Path
from typing import NamedTuple, Sequence

import numpy as np

from ..errors import FacetpuError
from ..tflite.flatbuffer import Record
from ..tflite.head import quantize_rows
from ..tflite.model import (
    NO_TENSOR,
    op_number,
    read_model,
    tensor_shape,
    type_name,
    write_model,
)
from ..tflite.schema import BuiltinOperator, TensorType, new
from .runner import read_tflite

_TAIL = [BuiltinOperator.CONV_2D, BuiltinOperator.MUL, BuiltinOperator.RESHAPE, BuiltinOperator.SOFTMAX]


class UnfitModel(FacetpuError, ValueError):
    """The model cannot be imprinted; a ValueError too, since pycoral raises that."""


class NotTrainable(FacetpuError, RuntimeError):
    """A class cannot be trained, or nothing was; a RuntimeError too, since pycoral raises that."""


class Head(NamedTuple):
    """The last four ops of an imprinting model and the L2 norm before them."""

    l2_norm: Record
    conv: Record
    mul: Record
    reshape: Record
    softmax: Record


class ImprintingEngine:
    """Adds classes to an imprinting model, each from a few embeddings.

    Example::

        engine = ImprintingEngine("model.tflite")
        for embedding in embeddings_of_ana:  # float32 [D], the dequantised output of the extractor
            engine.train(embedding, 0)
        Path("ana.tflite").write_bytes(engine.serialize_model())
    """

    def __init__(self, model: Path | str | bytes, keep_classes: bool = False) -> None:
        """Read ``model``, a path or the bytes of a .tflite file.

        Args:
            model: ends in L2_NORMALIZATION, CONV_2D, MUL, RESHAPE, SOFTMAX; a base compiled for the
                Edge TPU may precede them.
            keep_classes: start with the model's classes. Those that were imprinted can be trained
                further; the others stay as they are.

        Raises:
            UnfitModel: it does not end so; with pycoral's message for each of pycoral's rules.
            FacetpuError: it is no TFLite model.
        """
        given = isinstance(model, (bytes, bytearray))
        self._data = bytes(model) if given else read_tflite(Path(model))  # type: ignore[arg-type]
        record = read_model(self._data, "the model" if given else str(model))
        head = _checked_head(record)
        tensors = record.subgraphs[0].tensors
        kernel = tensors[head.conv.inputs[1]]
        self._dim = tensor_shape(tensors[head.l2_norm.outputs[0]])[3]
        self._scale, self._zero_point = kernel.quantization.scale[0], _zero_point(kernel)
        self._weights: list[np.ndarray] = []
        self._trainable: list[bool] = []
        if keep_classes:
            self._load_classes(record.buffers[kernel.buffer].data, record.description)

    @property
    def embedding_dim(self) -> int:
        """Numbers in an embedding."""
        return self._dim

    @property
    def num_classes(self) -> int:
        """Classes so far, those kept from the model included."""
        return len(self._weights)

    def train(self, embedding: np.ndarray, class_id: int) -> None:
        """Add one embedding to a class.

        Args:
            embedding: [embedding_dim], real numbers: the dequantised output of the extractor.
            class_id: an imprinted class, or ``num_classes`` for a new one.

        Raises:
            NotTrainable: the class is one of the base model's or leaves a gap, or the shape is wrong.
        """
        embedding = np.asarray(embedding, np.float32)
        class_id = operator.index(class_id)
        if embedding.shape != (self._dim,):
            raise NotTrainable("Invalid weights array shape.")
        if class_id < 0:
            raise NotTrainable("The class index is negative!")
        if class_id > self.num_classes:
            raise NotTrainable("The class index of a new category is too large!")
        if class_id == self.num_classes:
            self._weights.append(np.zeros(self._dim, np.float32))
            self._trainable.append(True)
        if not self._trainable[class_id]:
            raise NotTrainable("Cannot change the base model classes not trained with imprinting method!")
        self._weights[class_id] = self._weights[class_id] + embedding

    def serialize_model(self) -> bytes:
        """The model with its classes written into the last layer.

        Its description notes the norm of each imprinted class's sum, from which a later engine with
        ``keep_classes`` goes on.

        Raises:
            NotTrainable: there is no class.
        """
        if not self._weights:
            raise NotTrainable("Model is not trained.")
        rows, norms = zip(*(self._row(weights) for weights in self._weights))
        model = read_model(self._data)
        _write_classes(model, _checked_head(model), np.stack(rows))
        notes = (f"{i} {norm:f}\n" for i, norm in enumerate(norms) if self._trainable[i])
        model.description = "".join(notes) or None
        return write_model(model)

    def serialize_extractor_model(self) -> bytes:
        """The model as it was given, with the output of its L2 norm, the embedding, for its only output."""
        model = read_model(self._data)
        model.subgraphs[0].outputs = np.array(_checked_head(model).l2_norm.outputs[:1], np.int32)
        return write_model(model)

    def _load_classes(self, kernel: np.ndarray, description: str | None) -> None:
        norms = _training_notes(description or "")
        rows = np.asarray(kernel).reshape(-1, self._dim)
        weights = self._scale * (rows.astype(np.float32) - self._zero_point)
        self._trainable = [index in norms for index in range(len(rows))]
        self._weights = [row * norms.get(index, np.float32(1)) for index, row in enumerate(weights)]

    def _row(self, weights: np.ndarray) -> tuple[np.ndarray, np.float32]:
        """The quantised kernel row of a class, and the norm of its weights, summed in Coral's order."""
        norm = np.sqrt(np.cumsum(weights * weights, dtype=np.float32)[-1])
        unit = weights / norm if norm > 1e-5 else weights
        return quantize_rows(unit, float(self._scale), self._zero_point), norm


def _checked_head(model: Record) -> Head:
    """The head of an imprinting model.

    Raises:
        UnfitModel: a rule is broken; the rules are tried in Coral's order and with Coral's words, then
            those that Coral does not try and whose breach it answers with a crash or wrong numbers.
    """
    graph = model.subgraphs[0]
    numbers = [op_number(model.operator_codes[op.opcode_index]) for op in graph.operators]
    l2_norms = [i for i, number in enumerate(numbers) if number == BuiltinOperator.L2_NORMALIZATION]
    if not l2_norms:
        raise UnfitModel("Unsupported model architecture. Input model must have an L2Norm layer.")
    if numbers[-4:] != _TAIL:
        raise UnfitModel("The last 4 operators must be Conv2d, Mul, Reshape, Softmax")
    between = numbers[l2_norms[0] + 1 : -4]
    if len(l2_norms) != 1 or between not in ([], [BuiltinOperator.QUANTIZE]):
        raise UnfitModel(
            "Unsupported model architecture. L2Norm operator must be followed with the last Conv2d operator."
        )
    head = Head(graph.operators[l2_norms[0]], *graph.operators[-4:])
    for op, least in zip(head, (1, 2, 2, 1, 1)):
        if len(op.inputs) < least or NO_TENSOR in op.inputs[:least] or len(op.outputs) != 1:
            raise UnfitModel("An op of the last layer lacks a tensor: the model is damaged; get it again")
    _check_tensors(graph, head)
    _check_constants(model, head)
    return head


def _check_tensors(graph: Record, head: Head) -> None:
    embedding = tensor_shape(graph.tensors[head.l2_norm.outputs[0]])
    if len(embedding) != 4 or embedding[:3] != (1, 1, 1):
        raise UnfitModel("Embedding extractor's output tensor should be [1, 1, 1, x]")
    if len(head.conv.inputs) < 3 or head.conv.inputs[2] == NO_TENSOR:
        raise UnfitModel("The last Conv2d has no bias; split the model and join it with a head of facetpu's")
    if not 0 <= _zero_point(graph.tensors[head.conv.inputs[2]]) <= 255:
        raise UnfitModel("bias_zero_point is out of [0, 255] range!")
    for op, rank in ((head.conv, 4), (head.mul, 1), (head.reshape, 1)):
        if len(tensor_shape(graph.tensors[op.outputs[0]])) < rank:
            raise _unfit(graph.tensors[op.outputs[0]], "has no shape that fits")
    logits = tensor_shape(graph.tensors[head.softmax.outputs[0]])
    if len(logits) != 2 or logits[0] != 1:
        raise UnfitModel("Logit output tensor should be [1, x]")
    if list(graph.outputs) != [head.softmax.outputs[0]]:
        raise UnfitModel("Graph must have output from Softmax")


def _check_constants(model: Record, head: Head) -> None:
    """Refuse constants that Coral's engine takes for what they are not, and writes wrong numbers or crashes.

    Raises:
        UnfitModel: kernel or factor is not uint8 with one scale for all, or the kernel is not 1x1.
    """
    tensors = model.subgraphs[0].tensors
    dim = tensor_shape(tensors[head.l2_norm.outputs[0]])[3]
    kernel, bias, factor = (
        tensors[op.inputs[n]] for op, n in ((head.conv, 1), (head.conv, 2), (head.mul, 1))
    )
    if tensor_shape(kernel)[1:] != (1, 1, dim) or not dim or not tensor_shape(bias):
        raise _unfit(kernel, f"has shape {list(tensor_shape(kernel))} and must have [people, 1, 1, {dim}]")
    for tensor in (kernel, factor):
        params = tensor.quantization
        if (
            tensor.type != TensorType.UINT8
            or params is None
            or params.scale is None
            or len(params.scale) != 1
        ):
            raise _unfit(tensor, f"is {type_name(tensor)} and must be uint8 with one scale for all")
    for tensor in (kernel, bias, factor):
        data = model.buffers[tensor.buffer].data
        if data is None or not len(data):
            raise _unfit(tensor, "is computed and must be a constant")
    if len(model.buffers[kernel.buffer].data) != tensor_shape(kernel)[0] * dim:
        raise _unfit(kernel, "has another number of bytes than its shape")
    if len(head.reshape.inputs) == 2:
        sizes = tensors[head.reshape.inputs[1]]
        if model.buffers[sizes.buffer].data is None or len(model.buffers[sizes.buffer].data) != 8:
            raise _unfit(sizes, "is no constant of two numbers")


def _unfit(tensor: Record, how: str) -> UnfitModel:
    advice = "split the model and join it with a head of facetpu's"
    return UnfitModel(f"tensor {tensor.name!r} of the last layer {how}; {advice}")


def _zero_point(tensor: Record) -> int:
    params = tensor.quantization
    known = params is not None and params.zero_point is not None and len(params.zero_point)
    return int(params.zero_point[0]) if known else 0


def _training_notes(description: str) -> dict[int, np.float32]:
    """The norm of each imprinted class, from "ID NORM" lines; none at all if one pair is not numbers."""
    words = re.split("[ \n]", description)
    norms: dict[int, np.float32] = {}
    for index, norm in zip(words[::2], words[1::2]):
        if not re.match(r"[+-]?\d+$", index) or not re.match(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$", norm):
            return {}
        norms.setdefault(int(index), np.float32(norm))
    return norms


def _write_classes(model: Record, head: Head, rows: np.ndarray) -> None:
    """Give the head ``rows`` (uint8 [N, D]) for its kernel, and every tensor after it N classes."""
    graph, count = model.subgraphs[0], len(rows)
    tensors = graph.tensors
    kernel, bias = tensors[head.conv.inputs[1]], tensors[head.conv.inputs[2]]
    _set_data(model, kernel, rows.ravel())
    _set_size(kernel, 0, count)
    _set_data(model, bias, np.full(4 * count, _zero_point(bias), np.uint8))
    _set_size(bias, 0, count)

    cosines = tensors[head.conv.outputs[0]]
    _set_size(cosines, 3, count)
    cosines.quantization = _symmetric(np.float32(1))

    factor = tensors[head.mul.inputs[1]]
    stored, zero_point = int(model.buffers[factor.buffer].data[0]), _zero_point(factor)
    largest = np.float32(factor.quantization.scale[0]) * np.float32(stored - zero_point)
    for logits in (tensors[head.mul.outputs[0]], tensors[head.reshape.outputs[0]]):
        _set_size(logits, -1, count)
        logits.quantization = _symmetric(largest)

    if len(head.reshape.inputs) == 2:
        shape = tensors[head.reshape.inputs[1]]
        sizes = np.frombuffer(model.buffers[shape.buffer].data.tobytes(), "<i4").copy()
        sizes[1] = count
        _set_data(model, shape, sizes.view(np.uint8))
    options = head.reshape.builtin_options
    if getattr(options, "new_shape", None) is not None and len(options.new_shape):
        options.new_shape = np.append(options.new_shape[:-1], np.int32(count))

    _set_size(tensors[head.softmax.outputs[0]], 1, count)
    graph.outputs = np.array(head.softmax.outputs[:1], np.int32)


def _symmetric(largest: np.float32) -> Record:
    """Quantisation of -largest..largest to uint8 around 128."""
    return new(
        "QuantizationParameters",
        min=np.array([-largest]),
        max=np.array([largest]),
        scale=np.array([largest / np.float32(128)]),
        zero_point=np.array([128], np.int64),
    )


def _set_size(tensor: Record, axis: int, size: int) -> None:
    shape: Sequence[int] = tensor.shape
    tensor.shape = np.array(shape, np.int32)
    tensor.shape[axis] = size


def _set_data(model: Record, tensor: Record, data: np.ndarray) -> None:
    """Give ``tensor`` new content, in a buffer of its own where another tensor shares the old one."""
    shared = sum(other.buffer == tensor.buffer for graph in model.subgraphs for other in graph.tensors) > 1
    if shared:
        model.buffers.append(new("Buffer"))
        tensor.buffer = len(model.buffers) - 1
    model.buffers[tensor.buffer].data = data
