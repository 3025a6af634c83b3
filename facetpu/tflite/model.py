"""A TFLite model as records: read whole or refused, written back without loss.

Fields are named as in the TFLite schema: ``model.subgraphs[0].tensors[3].name``,
``operator.builtin_options.stride_w``. Arrays are read-only views of the file: put a new one in their
place to change them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Iterable, NamedTuple, Sequence

import numpy as np

from ..errors import FacetpuError
from .flatbuffer import Record, decode, encode
from .schema import IDENTIFIER, SCHEMA, BuiltinOperator, TensorType, new

NO_TENSOR = -1  # an optional input that is not given
# Forms of quantisation whose scales and zero points are tensors of their own, named by number.
DETAILS_OF_TENSORS = ("BlockwiseQuantization", "MultiAxisQuantization")

# The types whose elements NumPy has; the others are packed, of varying length, or have no values.
_DTYPES = {
    kind: np.dtype(kind.name.lower())
    for kind in TensorType
    if kind.name != "BOOL" and hasattr(np, kind.name.lower())
}
_DTYPES[TensorType.BOOL] = np.dtype(np.bool_)


class Quantization(NamedTuple):
    """``real = scale * (stored - zero_point)``."""

    scale: float
    zero_point: int


def read_model(source: Any, where: str | None = None) -> Record:
    """The model in a file or in bytes, with every index in it checked.

    Args:
        source: path, or the file's bytes.
        where: what to call it in messages; the path unless given.

    Raises:
        FacetpuError: there is no such file, it is no TFLite model, or it is damaged.
    """
    data = source
    if isinstance(source, (str, Path)):
        where = where or str(source)
        if not os.path.isfile(str(source)):
            raise FacetpuError(f"{source}: no such file; give a .tflite model")
        data = Path(source).read_bytes()
    where = where or "the model"
    if bytes(data[4:8]) != IDENTIFIER:
        raise FacetpuError(f"{where}: is no TFLite model; give a .tflite file")
    model = decode(SCHEMA, "Model", data, where)
    _fill(model, "operator_codes subgraphs buffers metadata signature_defs")
    model.buffers = model.buffers or [new("Buffer")]  # a graph without constants may come without any
    for graph in model.subgraphs:
        _fill(graph, "tensors operators inputs outputs")
        for operator in graph.operators:
            _fill(operator, "inputs outputs")
    _bring_in(model, data, where)
    check_model(model, where)
    return model


def write_model(model: Record, where: str = "the new model") -> bytes:
    """``model`` as the bytes of a .tflite file, every buffer aligned to 16.

    Raises:
        FacetpuError: an index in it leads nowhere, or it does not fit the format.
    """
    check_model(model, where)
    return encode(SCHEMA, model, where, IDENTIFIER)


def check_model(model: Record, where: str) -> None:
    """Refuse a model in which an op, tensor or signature names something that is not there.

    Raises:
        FacetpuError: naming the place.
    """
    if not model.subgraphs:
        raise FacetpuError(f"{where}: holds no graph; give another model")
    buffers = len(model.buffers)
    for number, graph in enumerate(model.subgraphs):
        at, tensors = f"subgraphs[{number}]", len(graph.tensors)
        _check(graph.inputs, tensors, f"{where}: {at}.inputs")
        _check(graph.outputs, tensors, f"{where}: {at}.outputs")
        _check([t.buffer for t in graph.tensors], buffers, f"{where}: the buffers of {at}.tensors")
        _check(_details(graph), tensors, f"{where}: the quantisation details of {at}.tensors", NO_TENSOR)
        for index, op in enumerate(graph.operators):
            name = f"{where}: {at}.operators[{index}]"
            _check([op.opcode_index], len(model.operator_codes), name)
            _check(op.inputs, tensors, name + ".inputs", NO_TENSOR)
            _check(op.outputs, tensors, name + ".outputs")
            _check(() if op.intermediates is None else op.intermediates, tensors, name, NO_TENSOR)
    _check([entry.buffer for entry in model.metadata], buffers, f"{where}: metadata")
    listed = () if model.metadata_buffer is None else model.metadata_buffer
    _check(listed, buffers, f"{where}: metadata_buffer")
    for signature in model.signature_defs:
        name = f"{where}: signature {signature.signature_key!r}"
        _check([signature.subgraph_index], len(model.subgraphs), name)
        maps = (signature.inputs or []) + (signature.outputs or [])
        tensors = len(model.subgraphs[signature.subgraph_index].tensors)
        _check([entry.tensor_index for entry in maps], tensors, name)


def op_name(model: Record, operator: Record) -> str:
    """The op's name in the schema, ``CONV_2D``; a custom op's own name, ``edgetpu-custom-op``."""
    code = model.operator_codes[operator.opcode_index]
    number = op_number(code)
    if number == BuiltinOperator.CUSTOM:
        return code.custom_code or "CUSTOM"
    return BuiltinOperator(number).name if 0 <= number < len(BuiltinOperator) else f"BUILTIN_{number}"


def op_number(code: Record) -> int:
    """An operator code's number: old writers fill only the first field, which holds no more than 127."""
    return int(max(code.builtin_code, code.deprecated_builtin_code))


def tensor_type(dtype: Any) -> TensorType:
    """The TFLite type of a NumPy dtype.

    Raises:
        FacetpuError: TFLite has none.
    """
    wanted = np.dtype(dtype)
    for kind, known in _DTYPES.items():
        if known == wanted:
            return kind
    raise FacetpuError(f"TFLite has no tensors of {wanted}; convert them first")


def type_name(tensor: Record) -> str:
    """The tensor's type as NumPy calls it where NumPy has it: ``uint8``."""
    known = 0 <= tensor.type < len(TensorType)
    return TensorType(tensor.type).name.lower() if known else f"type {tensor.type}"


def tensor_shape(tensor: Record) -> tuple[int, ...]:
    """The tensor's shape; () where the file gives none."""
    return () if tensor.shape is None else tuple(int(size) for size in tensor.shape)


def tensor_data(model: Record, tensor: Record) -> np.ndarray | None:
    """The constant that the tensor holds, in its shape; None for an activation.

    Raises:
        FacetpuError: its bytes do not fit its shape and type, or NumPy has no such type.
    """
    data = model.buffers[tensor.buffer].data
    if data is None or not len(data):
        return None
    dtype, shape = _DTYPES.get(tensor.type), tensor_shape(tensor)
    if dtype is None or tensor.sparsity is not None:
        kind = "sparse" if tensor.sparsity is not None else type_name(tensor)
        raise FacetpuError(f"tensor {tensor.name!r} is {kind}, which has no plain array; use another model")
    if min(shape, default=1) < 0 or _volume(shape) * dtype.itemsize != len(data):
        raise FacetpuError(
            f"tensor {tensor.name!r} has {len(data)} bytes, and not {list(shape)} of {dtype}: "
            "the model is damaged; get it again"
        )
    return np.frombuffer(np.ascontiguousarray(data), dtype.newbyteorder("<")).reshape(shape)


def quantization(tensor: Record) -> Quantization | None:
    """The tensor's one scale and zero point; None for a tensor of real numbers.

    Raises:
        FacetpuError: it has a scale for each channel.
    """
    params = tensor.quantization
    if params is None or params.scale is None or not len(params.scale):
        return None
    zero_points = [0] if params.zero_point is None or not len(params.zero_point) else params.zero_point
    if len(params.scale) != 1 or len(zero_points) != 1:
        raise FacetpuError(f"tensor {tensor.name!r} has a scale for each channel; one for all is needed here")
    return Quantization(float(params.scale[0]), int(zero_points[0]))


def _details(graph: Record) -> list[int]:
    """The tensors that other tensors' quantisation refers to."""
    all_details = [t.quantization.details for t in graph.tensors if t.quantization is not None]
    ours = [details for details in all_details if type(details).__name__ in DETAILS_OF_TENSORS]
    return [number for details in ours for number in (details.scales, details.zero_points)]


def _volume(shape: Sequence[int]) -> int:
    volume = 1
    for size in shape:
        volume *= size
    return volume


def _fill(record: Record, names: str) -> None:
    """Put an empty list in the place of an absent one, so that nobody need ask."""
    for field in record.fields:
        if field.name in names.split() and getattr(record, field.name) is None:
            setattr(record, field.name, [] if field.many else np.empty(0, np.int32))


def _bring_in(model: Record, data: Any, where: str) -> None:
    """Fetch what a file over 2 GiB keeps behind its flatbuffer, at offsets that a copy would not keep."""
    for number, buffer in enumerate(model.buffers):
        if buffer.offset > 1:
            buffer.data = _behind(data, buffer.offset, buffer.size, f"{where}: buffers[{number}]")
        buffer.offset = buffer.size = 0
    for graph in model.subgraphs:
        for op in graph.operators:
            if op.large_custom_options_offset > 1:
                op.custom_options = _behind(
                    data,
                    op.large_custom_options_offset,
                    op.large_custom_options_size,
                    f"{where}: custom options",
                )
            op.large_custom_options_offset = op.large_custom_options_size = 0


def _behind(data: Any, offset: int, size: int, name: str) -> np.ndarray:
    if offset + size > len(data):
        raise FacetpuError(f"{name} leads out of the file: it is damaged or cut short; get it again")
    return np.frombuffer(data, np.uint8, size, offset) if size else np.empty(0, np.uint8)


def _check(indices: Iterable[int], count: int, name: str, least: int = 0) -> None:
    for index in indices:
        if not least <= index < count:
            raise FacetpuError(f"{name}: number {index} is not one of {count}: it is damaged; get it again")
