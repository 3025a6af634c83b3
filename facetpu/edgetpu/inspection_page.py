"""What ``inspect`` found as a page: figures, the model's graph drawn, and a table of its ops."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..page import write_page
from .layout import GAP_Y, HEIGHT, WIDTH, Box, layout

if TYPE_CHECKING:
    from .inspect import Inspection, OpInspection, TensorReport

_NAME, _DETAIL = 22, 28  # letters that fit into a box


class Node(NamedTuple):
    """A box of the drawing.

    ``kind`` is ``tpu``, ``cpu`` or ``end`` (an input or output of the model), ``name`` and ``detail`` the
    two lines in the box, ``told`` what shows on pointing at it.
    """

    box: Box
    kind: str
    name: str
    detail: str
    told: str


class Row(NamedTuple):
    """An op of the table: its activations and constants in words, and why it is not on the TPU."""

    op: OpInspection
    takes: list[str]
    constants: list[str]
    gives: list[str]


def write_inspection(path: Path, found: Inspection, overwrite: bool = False) -> None:
    """Write the page of ``found`` to ``path``."""
    parents = _parents(found)
    drawing = layout(parents)
    write_page(
        path,
        "inspect.html",
        overwrite,
        found=found,
        nodes=[] if drawing is None else _nodes(found, drawing.boxes),
        drawing=drawing,
        box=(WIDTH, HEIGHT, GAP_Y),
        rows=[_row(found, op) for op in found.ops],
        reasons=_reasons(found),
    )


def _parents(found: Inspection) -> list[list[int]]:
    """The model's inputs, its ops and its outputs as one graph: for each node, the ones before it."""
    makers: dict[int, int] = {}
    parents: list[list[int]] = []
    for index in found.input_numbers:
        makers[index] = len(parents)
        parents.append([])
    for op in found.ops:
        parents.append([makers[index] for index in op.inputs if index in makers])
        makers.update(dict.fromkeys(op.outputs, len(parents) - 1))
    parents += [[makers[index]] if index in makers else [] for index in found.output_numbers]
    return parents


def _nodes(found: Inspection, boxes: list[Box]) -> list[Node]:
    first, last = len(found.inputs), len(found.inputs) + len(found.ops)
    nodes = [_end(box, tensor) for box, tensor in zip(boxes, found.inputs)]
    for box, op in zip(boxes[first:last], found.ops):
        made = [found.tensors[index] for index in op.outputs]
        told = [f"op {op.index} {op.op} version {op.version} on the {op.target}", op.reason, *map(str, made)]
        name = f"{op.index} {op.op}"
        nodes.append(
            Node(box, op.target.lower(), _fit(name, _NAME), _form(made), "\n".join(filter(None, told)))
        )
    return nodes + [_end(box, tensor) for box, tensor in zip(boxes[last:], found.outputs)]


def _end(box: Box, tensor: TensorReport) -> Node:
    return Node(box, "end", _fit(tensor.shown_name, _NAME), _form([tensor]), str(tensor))


def _form(tensors: list[TensorReport]) -> str:
    """``1×56×56×32 int8``; how many more there are, where there are."""
    if not tensors:
        return ""
    sizes = "×".join(map(str, tensors[0].shape)) or "scalar"
    more = f" +{len(tensors) - 1}" if len(tensors) > 1 else ""
    return _fit(f"{sizes} {tensors[0].type}{more}", _DETAIL)


def _row(found: Inspection, op: OpInspection) -> Row:
    given = [found.tensors[index] for index in op.inputs if index >= 0]
    return Row(
        op,
        [str(tensor) for tensor in given if not tensor.constant],
        [str(tensor) for tensor in given if tensor.constant],
        [str(found.tensors[index]) for index in op.outputs],
    )


def _reasons(found: Inspection) -> list[tuple[str, list[int]]]:
    """Why ops are on the CPU, and which."""
    reasons: dict[str, Any] = {}
    for op in found.ops:
        if op.reason:
            reasons.setdefault(op.reason, []).append(op.index)
    return list(reasons.items())


def _fit(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - 1] + "…"
