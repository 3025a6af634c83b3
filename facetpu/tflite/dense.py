"""Split a dense layer into several that stand side by side, each with some of its rows."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from ..errors import FacetpuError
from .cut import part_of
from .edit import drop_unused, is_constant, only_graph, warn_of_packed_files
from .flatbuffer import Record
from .model import NO_TENSOR, op_name, read_model, tensor_data, tensor_shape, write_model
from .schema import BuiltinOperator, TensorType, new

DENSE = "FULLY_CONNECTED"


def split_dense(model: bytes, layer: str, parts: int, where: str = "the model") -> bytes:
    """``model`` with one dense layer in several, whose outputs are joined again: the same numbers come out.

    Coral's ``split_fc`` splits the columns too, and adds; rows alone need no addition, so nothing is rounded
    twice.

    Args:
        model: a .tflite file.
        layer: name of the layer's output tensor.
        parts: how many, 2 or more.
        where: what to call the model in messages.

    Raises:
        FacetpuError: there is no such layer, or it cannot be split so.
    """
    whole = read_model(model, where)
    graph = only_graph(whole, where)
    place = _find(whole, graph, layer, where)
    weights, bias = _constants(whole, graph, graph.operators[place], where)
    if not 2 <= parts <= len(weights):
        raise FacetpuError(
            f"{where}: the dense layer {layer!r} has {len(weights)} rows, which make no {parts} parts"
        )
    warn_of_packed_files(model, where)
    rows = np.array_split(np.arange(len(weights)), parts)
    made = [
        _part(whole, graph, graph.operators[place], weights, bias, part, number)
        for number, part in enumerate(rows)
    ]
    graph.operators[place : place + 1] = [*made, _joining(whole, graph, graph.operators[place], made)]
    split = part_of(whole, graph.operators, graph.inputs.tolist(), graph.outputs.tolist())
    drop_unused(split)
    return write_model(split, "the split model")


def _find(model: Record, graph: Record, layer: str, where: str) -> int:
    """Number of the dense op whose output is called ``layer``."""
    dense = {
        graph.tensors[op.outputs[0]].name: number
        for number, op in enumerate(graph.operators)
        if op_name(model, op) == DENSE and len(op.outputs)
    }
    if layer not in dense:
        names = ", ".join(map(repr, dense)) or "none"
        raise FacetpuError(f"{where}: has no dense layer whose output is {layer!r}; it has {names}")
    return dense[layer]


def _constants(model: Record, graph: Record, op: Record, where: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The weights [rows, columns] and the bias [rows] of a dense layer; None where it has no bias."""
    inputs = [graph.tensors[index] if index != NO_TENSOR else None for index in op.inputs]
    name = graph.tensors[op.outputs[0]].name
    if len(inputs) < 2 or any(tensor is not None and not is_constant(model, tensor) for tensor in inputs[1:]):
        raise FacetpuError(f"{where}: the weights of {name!r} are computed, not constant; fold them first")
    weights, bias = ([*inputs, None][place] for place in (1, 2))
    rows = None if weights is None else tensor_data(model, weights)
    shifts = None if bias is None else tensor_data(model, bias)
    if rows is None or rows.ndim != 2 or getattr(op.builtin_options, "weights_format", False):
        raise FacetpuError(f"{where}: the weights of {name!r} are no plain matrix; convert the model anew")
    if len(op.outputs) != 1 or tensor_shape(graph.tensors[op.outputs[0]])[-1:] != (len(rows),):
        raise FacetpuError(f"{where}: the output of {name!r} does not fit its weights; the model is damaged")
    if shifts is not None and shifts.shape != (len(rows),):
        raise FacetpuError(f"{where}: the bias of {name!r} does not fit its weights; the model is damaged")
    return rows, shifts


def _part(
    model: Record,
    graph: Record,
    op: Record,
    weights: np.ndarray,
    bias: np.ndarray | None,
    rows: np.ndarray,
    number: int,
) -> Record:
    """An op with some of the rows of ``op``; its tensors are added to the graph."""
    part = copy.copy(op)
    inputs = op.inputs.tolist()
    inputs[1] = _sliced(model, graph, inputs[1], weights, rows, number)
    if bias is not None:
        inputs[2] = _sliced(model, graph, inputs[2], bias, rows, number)
    output = copy.copy(graph.tensors[op.outputs[0]])
    output.name = _name(graph, output.name, number)
    for field in ("shape", "shape_signature"):
        if getattr(output, field) is not None:
            setattr(output, field, np.append(getattr(output, field)[:-1], np.int32(len(rows))))
    graph.tensors.append(output)
    part.inputs = np.array(inputs, np.int32)
    part.outputs = np.array([len(graph.tensors) - 1], np.int32)
    return part


def _sliced(model: Record, graph: Record, index: int, data: np.ndarray, rows: np.ndarray, number: int) -> int:
    """A new constant of some rows of another, each row's own scale with it."""
    tensor = copy.copy(graph.tensors[index])
    part = np.ascontiguousarray(data[rows[0] : rows[-1] + 1])
    tensor.name, tensor.shape = _name(graph, tensor.name, number), np.array(part.shape, np.int32)
    tensor.buffer = len(model.buffers)
    model.buffers.append(new("Buffer", data=part.reshape(-1).view(np.uint8)))
    params = tensor.quantization
    if params is not None and params.scale is not None and len(params.scale) > 1:
        tensor.quantization = copy.copy(params)
        for field in ("scale", "zero_point", "min", "max"):
            values = getattr(params, field)
            if values is not None and len(values) == len(data):
                setattr(tensor.quantization, field, values[rows[0] : rows[-1] + 1])
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _joining(model: Record, graph: Record, op: Record, parts: list[Record]) -> Record:
    """The op that puts the parts' outputs side by side into the output of ``op``."""
    output = graph.tensors[op.outputs[0]]
    code = new(
        "OperatorCode",
        builtin_code=BuiltinOperator.CONCATENATION,
        deprecated_builtin_code=BuiltinOperator.CONCATENATION,
        version=2 if output.type == TensorType.INT8 else 1,
    )
    model.operator_codes.append(code)
    return new(
        "Operator",
        opcode_index=len(model.operator_codes) - 1,
        inputs=np.array([part.outputs[0] for part in parts], np.int32),
        outputs=op.outputs,
        builtin_options=new("ConcatenationOptions", axis=len(tensor_shape(output)) - 1),
    )


def _name(graph: Record, name: Any, number: int) -> str:
    """A name for a part that no other tensor has."""
    taken = {tensor.name for tensor in graph.tensors}
    wanted = f"{name}/part{number}"
    while wanted in taken:
        wanted += "_"
    return wanted
