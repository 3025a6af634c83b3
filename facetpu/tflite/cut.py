"""Split a model in two at one tensor: a base that gives it and a head that takes it."""

from __future__ import annotations

import copy
import logging

from ..errors import FacetpuError
from .edit import (
    MIN_RUNTIME,
    details_refer_to,
    drop_unused,
    is_constant,
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
from .model import NO_TENSOR, op_name, read_model, write_model

log = logging.getLogger(__name__)


def split_model(model: bytes, tensor: str | None = None, where: str = "the model") -> tuple[bytes, bytes]:
    """The base and the head of ``model``; ``join_models`` puts them together again without loss.

    The base keeps the model's metadata; both keep its description, and signatures for their own part.
    What a part does not use is left out of it: tensors, buffers, op codes. A tensor of the head that
    would have the name of another one in the base gets a number after its name.

    Args:
        model: a .tflite file.
        tensor: name of the tensor to cut at; unless given, the input of the one L2 norm.
        where: what to call the model in messages.

    Raises:
        FacetpuError: there is no such tensor, or not one L2 norm, or other tensors too would have to
            cross from base to head.
    """
    whole = read_model(model, where)
    graph = only_graph(whole, where)
    cut = _cut(whole, graph, tensor, where)
    first, second = _sides(whole, graph, cut, where)
    base = part_of(whole, first, graph.inputs.tolist(), [cut])
    head = part_of(whole, second, [cut], graph.outputs.tolist())
    head.metadata = [entry for entry in head.metadata if entry.name == MIN_RUNTIME]
    head.metadata_buffer = None
    _rename_duplicates(base, head)
    warn_of_packed_files(model, where)
    for part in (base, head):
        drop_unused(part)
    return write_model(base, "the base"), write_model(head, "the head")


def cut_tensor(model: Record, where: str, tensor: str | None = None) -> Record:
    """The tensor at which ``split_model`` cuts.

    Raises:
        FacetpuError: as ``split_model`` does.
    """
    graph = only_graph(model, where)
    cut: Record = graph.tensors[_cut(model, graph, tensor, where)]
    return cut


def _cut(model: Record, graph: Record, name: str | None, where: str) -> int:
    """Number of the tensor to cut at."""
    if name is None:
        norms = [op for op in graph.operators if op_name(model, op) == "L2_NORMALIZATION"]
        if len(norms) != 1:
            raise FacetpuError(
                f"{where}: has {len(norms) or 'no'} L2 norm{'s' * (len(norms) > 1)} to cut before; "
                "name the tensor to cut at with --tensor"
            )
        if not len(norms[0].inputs) or norms[0].inputs[0] == NO_TENSOR:
            raise FacetpuError(f"{where}: its L2 norm has no input: it is damaged; get it again")
        return int(norms[0].inputs[0])
    found = [index for index, tensor in enumerate(graph.tensors) if tensor.name == name]
    if len(found) != 1:
        raise FacetpuError(
            f"{where}: has {len(found) or 'no'} tensor{'s' * (len(found) > 1)} named {name!r}; "
            "see facetpu inspect for their names"
        )
    return found[0]


def _sides(model: Record, graph: Record, cut: int, where: str) -> tuple[list[Record], list[Record]]:
    """The ops that ``cut`` needs, and the others; nothing but ``cut`` may lead from these to those."""
    name = repr(graph.tensors[cut].name)
    before: list[Record] = []
    after: list[Record] = []
    needed = {cut}
    for op in reversed(graph.operators):
        if needed.intersection(op.outputs.tolist()):
            needed.update(op.inputs.tolist())
            before.insert(0, op)
        else:
            after.insert(0, op)
    if not before:
        raise FacetpuError(f"{where}: nothing is computed before {name}; cut at a later tensor")
    if not after:
        raise FacetpuError(f"{where}: nothing is computed after {name}; it is a base already")
    known = needed.union(graph.inputs.tolist(), *(op.outputs.tolist() for op in before))
    wanted = set(graph.outputs.tolist()).union(*(op.inputs.tolist() for op in after))
    crossing = [
        graph.tensors[index].name
        for index in sorted(known & wanted - {cut, NO_TENSOR})
        if not is_constant(model, graph.tensors[index])
    ]
    if crossing:
        raise FacetpuError(
            f"{where}: {', '.join(map(repr, crossing))} too would have to cross the cut at {name}; "
            "cut where one tensor leads from the one part to the other"
        )
    if cut in graph.outputs:
        log.warning("%s is an output of the model too: join the parts with --bypass to have it again", name)
    return before, after


def part_of(model: Record, operators: list[Record], inputs: list[int], outputs: list[int]) -> Record:
    """A model of some of the ops and of the tensors they use, numbered anew in their old order.

    Args:
        model: the whole, of one graph; it stays as it is.
        operators: of its graph.
        inputs: numbers of tensors of the whole.
        outputs: numbers of tensors of the whole.
    """
    graph = model.subgraphs[0]
    used = set(inputs) | set(outputs)
    for op in operators:
        for indices in (op.inputs, op.outputs, () if op.intermediates is None else op.intermediates):
            used.update(int(index) for index in indices)
    used.discard(NO_TENSOR)
    used.update(*(details_refer_to(model, graph, graph.tensors[index]) for index in list(used)))
    kept = sorted(used)
    place = {old: number for number, old in enumerate(kept)}
    part, piece = copy.copy(model), copy.copy(graph)
    piece.tensors = [moved_tensor(graph.tensors[index], place) for index in kept]
    piece.inputs, piece.outputs = placed(inputs, place), placed(outputs, place)
    piece.operators = [moved(op, place) for op in operators]
    part.subgraphs = [piece]
    part.signature_defs = [_signature(sig, piece, place) for sig in model.signature_defs]
    return part


def _signature(signature: Record, piece: Record, place: dict[int, int]) -> Record:
    """The signature of a part; the tensor at the cut goes by its own name."""
    part = copy.copy(signature)
    part.inputs = named_ends(renumbered(signature.inputs, place), piece.inputs, piece)
    part.outputs = named_ends(renumbered(signature.outputs, place), piece.outputs, piece)
    return part


def _rename_duplicates(base: Record, head: Record) -> None:
    """Give the head's tensors names that the base has not, but for the cut and for shared constants."""
    graph, piece = base.subgraphs[0], head.subgraphs[0]
    owners = {tensor.name: tensor for tensor in reversed(graph.tensors)}
    taken = set(owners) | {tensor.name for tensor in piece.tensors}
    for index, tensor in enumerate(piece.tensors):
        name = tensor.name
        if not name or name not in owners or index in piece.inputs:
            continue
        if same_constant(base, owners[name], head, tensor):
            continue
        number = 1
        while f"{name}_{number}" in taken:
            number += 1
        tensor.name = f"{name}_{number}"
        taken.add(tensor.name)
