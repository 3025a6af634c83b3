"""Join a base and a head into one model: the graph that Coral's ``join_tflite_models`` makes, checked.

Tensors are the same where they have the same name. Beyond Coral's tool, this keeps metadata, signatures
and every field of a tensor, and refuses what would not work.
"""

from __future__ import annotations

import copy
import re
from typing import Any

import numpy as np

from ..errors import FacetpuError
from .edit import (
    MIN_RUNTIME,
    drop_unused,
    moved,
    moved_tensor,
    named_ends,
    only_graph,
    placed,
    renumbered,
    same_constant,
    warn_of_packed_files,
)
from .flatbuffer import Record
from .model import quantization, read_model, tensor_shape, type_name, write_model

SCALE_TOLERANCE = 1e-5  # relative; the same scale after a trip through another tool's text


def join_models(
    base: bytes,
    head: bytes,
    bypass: bool = False,
    base_name: str = "the base",
    head_name: str = "the head",
) -> bytes:
    """One model: ``base``, and ``head`` fed from the tensors of ``base`` that its inputs are named after.

    Its inputs are the base's, its outputs the head's. Version, name and description are the base's, but
    for a head's list of imprinted classes, which stays. A constant that both hold alike is kept once.

    Args:
        base: a .tflite file.
        head: a .tflite file.
        bypass: give the base's outputs too, after the head's.
        base_name: what to call the base in messages.
        head_name: what to call the head in messages.

    Raises:
        FacetpuError: an input of the head is not in the base, or differs from what is there in shape,
            type, scale or zero point; or both have a tensor of one name that are two things.
    """
    model, other = read_model(base, base_name), read_model(head, head_name)
    graph, added = only_graph(model, base_name), only_graph(other, head_name)
    if not len(added.inputs):
        raise FacetpuError(f"{head_name}: has no input, so nothing would connect it; give another head")
    place = _connect(graph, added, base_name, head_name)
    place.update(_shared(model, other, place, base_name, head_name))
    first = len(graph.tensors)
    for index, tensor in enumerate(added.tensors):
        if index not in place:
            place[index] = len(graph.tensors)
            graph.tensors.append(tensor)
            if tensor.buffer:
                tensor.buffer += len(model.buffers)
    for index in range(first, len(graph.tensors)):
        graph.tensors[index] = moved_tensor(graph.tensors[index], place)
    graph.operators += [_operator(model, other, operator, place) for operator in added.operators]
    base_outputs = graph.outputs.tolist()
    outputs = placed(added.outputs, place).tolist()
    outputs += [index for index in base_outputs if bypass and index not in outputs]
    graph.outputs = np.array(outputs, np.int32)
    model.signature_defs = _signatures(model, other, place)
    _add_metadata(model, other)
    model.buffers += other.buffers
    if _lists_classes(other.description):
        model.description = other.description
    drop_unused(model)
    for data, name in ((base, base_name), (head, head_name)):
        warn_of_packed_files(data, name)
    return write_model(model, "the joined model")


def _connect(graph: Record, added: Record, base: str, head: str) -> dict[int, int]:
    """Where in the base each input of the head is."""
    place: dict[int, int] = {}
    made = sorted({int(index) for op in graph.operators for index in op.outputs})
    for index in added.inputs:
        wanted = added.tensors[index]
        candidates = [i for i in made if graph.tensors[i].name == wanted.name]
        found = [i for i in candidates if i in graph.outputs] or candidates
        if not wanted.name or not found:
            names = ", ".join(repr(graph.tensors[i].name) for i in graph.outputs)
            raise FacetpuError(
                f"{head}: its input {wanted.name!r} is not in {base}, which gives {names}; "
                "build the head for this base, or split both from one model"
            )
        if len(found) > 1:
            raise FacetpuError(
                f"{base}: has {len(found)} tensors named {wanted.name!r}; give each its own name"
            )
        _check_alike(graph.tensors[found[0]], wanted, base, head)
        place[int(index)] = found[0]
    return place


def _check_alike(given: Record, wanted: Record, base: str, head: str) -> None:
    have, want = quantization(given), quantization(wanted)
    pairs: list[tuple[str, Any, Any]] = [
        ("shape", list(tensor_shape(given)), list(tensor_shape(wanted))),
        ("type", type_name(given), type_name(wanted)),
        ("quantisation", have is not None, want is not None),
    ]
    if have and want:
        near = abs(have.scale - want.scale) <= SCALE_TOLERANCE * abs(want.scale)
        pairs += [
            ("scale", have.scale, have.scale if near else want.scale),
            ("zero point", have.zero_point, want.zero_point),
        ]
    for what, left, right in pairs:
        if left != right:
            raise FacetpuError(
                f"tensor {wanted.name!r}: its {what} is {left} in {base} and {right} in {head}; "
                "build the head for this base"
            )


def _shared(model: Record, other: Record, place: dict[int, int], base: str, head: str) -> dict[int, int]:
    """Constants that base and head hold alike; any other name in both is refused."""
    graph, added = model.subgraphs[0], other.subgraphs[0]
    names = {tensor.name: index for index, tensor in reversed(list(enumerate(graph.tensors)))}
    shared = {}
    for index, tensor in enumerate(added.tensors):
        if index in place or not tensor.name or tensor.name not in names:
            continue
        twin = names[tensor.name]
        if not same_constant(model, graph.tensors[twin], other, tensor):
            raise FacetpuError(
                f"{base} and {head} both have a tensor {tensor.name!r}, and not the same; rename one of them"
            )
        shared[index] = twin
    return shared


def _operator(model: Record, other: Record, operator: Record, place: dict[int, int]) -> Record:
    """An op of the head, on the joined model's tensors; its code is added to ``model`` where it is new."""
    code = other.operator_codes[operator.opcode_index]
    if code not in model.operator_codes:
        model.operator_codes.append(code)
    joined = moved(operator, place)
    joined.opcode_index = model.operator_codes.index(code)
    return joined


def _signatures(model: Record, other: Record, place: dict[int, int]) -> list[Record]:
    """The base's signatures with the outputs of the head's; a tensor without a name goes by its own."""
    graph = model.subgraphs[0]
    ends = placed(other.subgraphs[0].outputs, place)
    heads = {signature.signature_key: signature for signature in reversed(other.signature_defs)}
    joined = []
    for signature in model.signature_defs or other.signature_defs:
        head = heads.get(signature.signature_key) or next(iter(heads.values()), None)
        made = named_ends(renumbered(head.outputs if head else (), place), ends, graph)
        whole = copy.copy(signature)
        if model.signature_defs:
            made += signature.outputs or []
        else:
            whole.inputs = named_ends((), graph.inputs, graph)
        whole.outputs = named_ends(made, graph.outputs, graph)
        joined.append(whole)
    return joined


def _add_metadata(model: Record, other: Record) -> None:
    """Add the head's metadata to the base's, which goes first; the later minimal runtime holds for both."""
    offset = len(model.buffers)
    mine = {entry.name: entry for entry in model.metadata}
    for entry in other.metadata:
        if entry.name == MIN_RUNTIME and entry.name in mine:
            older = _version(model.buffers[mine[MIN_RUNTIME].buffer].data)
            if _version(other.buffers[entry.buffer].data) > older:
                mine[MIN_RUNTIME].buffer = entry.buffer + offset
        elif entry.name not in mine:
            entry.buffer += offset
            model.metadata.append(entry)
    if other.metadata_buffer is not None:
        mine_too = [] if model.metadata_buffer is None else list(model.metadata_buffer)
        model.metadata_buffer = np.array(
            mine_too + [int(index) + offset for index in other.metadata_buffer], np.int32
        )


def _version(data: Any) -> list[int]:
    return [int(number) for number in re.findall(rb"\d+", b"" if data is None else bytes(data))]


def _lists_classes(description: str | None) -> bool:
    """Whether a description is Coral's list of imprinted classes: ``id norm`` a line."""
    return bool(re.match(r"(\d+ -?\d+(\.\d+)?\n)+$", description or ""))
