"""What cutting and joining share: tensors moved to new numbers, what is left unused dropped."""

from __future__ import annotations

import copy
import io
import logging
import zipfile
from typing import Any, Iterable, Mapping

import numpy as np

from ..errors import FacetpuError
from .flatbuffer import Record
from .model import DETAILS_OF_TENSORS, NO_TENSOR
from .schema import new

log = logging.getLogger(__name__)

MIN_RUNTIME = "min_runtime_version"


def only_graph(model: Record, where: str) -> Record:
    """The model's graph.

    Raises:
        FacetpuError: there are several, which refer to each other, or weights are kept in another file.
    """
    if len(model.subgraphs) != 1:
        raise FacetpuError(
            f"{where}: has {len(model.subgraphs)} graphs; a model with control flow cannot be cut or joined"
        )
    if model.external_buffers:
        raise FacetpuError(f"{where}: keeps weights in another file; convert it with the weights inside")
    graph: Record = model.subgraphs[0]
    return graph


def warn_of_packed_files(data: bytes, where: str) -> None:
    """Say that the ZIP of labels that TFLite's metadata tools append to a model is left out."""
    if zipfile.is_zipfile(io.BytesIO(data)):
        log.warning("%s: the files packed behind the model are not carried over", where)


def is_constant(model: Record, tensor: Record) -> bool:
    """Whether the tensor has its values in the file."""
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def same_constant(model: Record, tensor: Record, other: Record, twin: Record) -> bool:
    """Whether two tensors, each of its own model, are constants alike in every field and every byte."""
    if not is_constant(model, tensor) or not is_constant(other, twin):
        return False
    aligned = copy.copy(twin)
    aligned.buffer = tensor.buffer
    data, same = model.buffers[tensor.buffer].data, other.buffers[twin.buffer].data
    return bool(aligned == tensor and np.array_equal(data, same))


def placed(indices: Iterable[int], place: Mapping[int, int]) -> np.ndarray:
    """Numbers of tensors as ``place`` gives them; an optional input that is not given stays so."""
    return np.array([i if i == NO_TENSOR else place[int(i)] for i in indices], np.int32)


def moved(operator: Record, place: Mapping[int, int]) -> Record:
    """A copy of the op on the tensors that ``place`` gives."""
    copied = copy.copy(operator)
    copied.inputs, copied.outputs = placed(operator.inputs, place), placed(operator.outputs, place)
    if operator.intermediates is not None:
        copied.intermediates = placed(operator.intermediates, place)
    return copied


def details_refer_to(model: Record, graph: Record, tensor: Record) -> list[int]:
    """Numbers of the constants with a tensor's scales and zero points, where each block has its own."""
    details = _details(tensor)
    numbers = [] if details is None else [details.scales, details.zero_points]
    return [number for number in numbers if number >= 0 and is_constant(model, graph.tensors[number])]


def moved_tensor(tensor: Record, place: Mapping[int, int]) -> Record:
    """A copy of the tensor whose quantisation refers to the tensors that ``place`` gives."""
    copied, details = copy.copy(tensor), copy.copy(_details(tensor))
    if details is not None:
        for name in ("scales", "zero_points"):  # 0 where the field is left out, -1 where there is none
            number = getattr(details, name)
            setattr(details, name, place.get(number, min(number, 0)))
        copied.quantization = copy.copy(tensor.quantization)
        copied.quantization.details = details
    return copied


def _details(tensor: Record) -> Any:
    """A tensor's quantisation details where they refer to other tensors, else None."""
    details = None if tensor.quantization is None else tensor.quantization.details
    return details if type(details).__name__ in DETAILS_OF_TENSORS else None


def drop_unused(model: Record) -> None:
    """Drop the op codes and buffers that nothing refers to, save buffer 0, which every file has empty."""
    graph = model.subgraphs[0]
    codes = list(dict.fromkeys(op.opcode_index for op in graph.operators))
    for op in graph.operators:
        op.opcode_index = codes.index(op.opcode_index)
    model.operator_codes = [model.operator_codes[index] for index in codes]
    listed = [] if model.metadata_buffer is None else model.metadata_buffer.tolist()
    model.metadata = [copy.copy(entry) for entry in model.metadata]
    owners = graph.tensors + model.metadata
    used = sorted({0}.union(listed, (owner.buffer for owner in owners)))
    place = {old: number for number, old in enumerate(used)}
    for owner in owners:
        owner.buffer = place[owner.buffer]
    if model.metadata_buffer is not None:
        model.metadata_buffer = placed(listed, place)
    model.buffers = [model.buffers[index] for index in used]


def renumbered(entries: Iterable[Record] | None, place: Mapping[int, int]) -> list[Record]:
    """A signature's names on the tensors that ``place`` gives; those without a place are left out."""
    return [
        new("TensorMap", name=entry.name, tensor_index=place[entry.tensor_index])
        for entry in entries or ()
        if entry.tensor_index in place
    ]


def named_ends(entries: Iterable[Record], ends: Iterable[int], graph: Record) -> list[Record]:
    """Those of ``entries`` that name one of ``ends``, and the tensor's own name for any other of these."""
    ends = [int(index) for index in ends]
    kept = [entry for entry in entries if entry.tensor_index in ends]
    named = {entry.tensor_index for entry in kept}
    own = [index for index in ends if index not in named]
    return kept + [new("TensorMap", name=graph.tensors[index].name, tensor_index=index) for index in own]
