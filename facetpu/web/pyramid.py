"""P-Net for a runtime that cannot give a network another input size: the whole pyramid on one page.

Each level has a slot of its own, so that P-Net reads all of them at once whatever the shape of the image.
Slots begin at even pixels, since a cell sees 12 x 12 pixels from an even one on, and lie 2 or more apart,
since P-Net's pooling at the edge of a level sees one pixel beyond.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from ..mtcnn.boxes import CELL
from ..mtcnn.detector import FACTOR
from ..runtime import interpreter
from ..tflite.model import read_model, write_model

GAP = 2


class Slot(NamedTuple):
    """A square on the page: its upper left pixel and its side."""

    x: int
    y: int
    side: int


class Page(NamedTuple):
    """Where the levels lie, the largest first, on a page of ``width`` x ``height`` pixels."""

    width: int
    height: int
    slots: list[Slot]


def lay_out(longest: int, min_face: int) -> Page:
    """The page for images with sides up to ``longest`` pixels and faces from ``min_face`` pixels on.

    Columns from left to right, each as wide as its first level and filled downwards: levels shrink, so
    the first that does not fit below begins the next column.
    """
    slots: list[Slot] = []
    tall = _even(math.ceil(longest * CELL / min_face))
    column = edge = below = 0
    while True:
        side = math.ceil(longest * CELL / min_face * FACTOR ** len(slots))
        if side < CELL:
            return Page(edge - GAP, tall, slots)
        if slots and below + side > tall:
            column, below = edge, 0
        slots.append(Slot(column, below, side))
        edge = max(edge, column + _even(side) + GAP)
        below += _even(side) + GAP


def with_input_size(model: Path, height: int, width: int) -> bytes:
    """``model``, whose size is free, for images of ``height`` x ``width`` only.

    The shapes of its tensors are those that the TFLite runtime finds.
    """
    running = interpreter(model)
    running.resize_tensor_input(running.get_input_details()[0]["index"], (1, height, width, 3))
    running.allocate_tensors()
    record = read_model(model)
    tensors = record.subgraphs[0].tensors
    for detail in running.get_tensor_details():
        if detail["index"] < len(tensors):  # the runtime appends some of its own
            tensors[detail["index"]].shape = detail["shape"]
    return write_model(record, str(model))


def _even(side: int) -> int:
    return side + side % 2
