"""Join: a base and a head, each a .tflite file, to one model."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

from ..artefacts import check_new, write_bytes
from ..errors import FacetpuError
from ..tflite.concat import join_models
from ..tflite.model import op_name, read_model

log = logging.getLogger(__name__)


class Joined(NamedTuple):
    """The model that was written: its ops in order, its inputs and outputs by name."""

    model: Path
    ops: list[str]
    inputs: list[str]
    outputs: list[str]

    def __str__(self) -> str:
        return f"{self.model}: {len(self.ops)} ops, {', '.join(self.inputs)} -> {', '.join(self.outputs)}"


def join(base: Path, head: Path, out: Path, bypass: bool = False, overwrite: bool = False) -> Joined:
    """Join ``base`` and ``head`` to ``out``.

    Args:
        base: a .tflite file, compiled or not, that gives what ``head`` takes.
        head: a .tflite file; its inputs are named after tensors of ``base``.
        out: the file to write; where it stands already with the same content, nothing is done.
        bypass: give the base's outputs too, after the head's.
        overwrite: replace ``out``.

    Raises:
        FacetpuError: a file is missing or no model, or the two do not fit together.
    """
    data = join_models(_read(base), _read(head), bypass, str(base), str(head))
    if out.is_file() and out.read_bytes() == data:
        log.info("%s is joined from these already", out)
    else:
        check_new(out, overwrite)
        write_bytes(out, data, overwrite)
    return _summary(out)


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise FacetpuError(f"{path}: no such file; give a .tflite model")
    return path.read_bytes()


def _summary(path: Path) -> Joined:
    """What stands in the file now, read again."""
    model = read_model(path)
    graph = model.subgraphs[0]
    inputs, outputs = (
        [graph.tensors[index].name for index in indices] for indices in (graph.inputs, graph.outputs)
    )
    return Joined(path, [op_name(model, operator) for operator in graph.operators], inputs, outputs)
