"""Split: a model, ours or another's, to a base and a head; or its large dense layers to smaller ones."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

from ..artefacts import check_new, digest, finished, new_folder, write_bytes, write_manifest
from ..edgetpu.graph import ops_of
from ..edgetpu.rules import CACHE_BYTES
from ..errors import FacetpuError
from ..tflite.cut import cut_tensor, split_model
from ..tflite.dense import DENSE, split_dense
from ..tflite.model import read_model, tensor_shape, type_name

log = logging.getLogger(__name__)


class Split(NamedTuple):
    """The two parts, and the tensor that leads from the one to the other."""

    base: Path
    head: Path
    tensor: str
    shape: list[int]
    type: str

    def __str__(self) -> str:
        return f"{self.base} and {self.head.name}, cut at {self.tensor}: {self.type} {self.shape}"


def split(model: Path, out: Path, tensor: str | None = None, overwrite: bool = False) -> Split:
    """Split ``model`` into ``base.tflite`` and ``head.tflite`` in ``out``.

    Args:
        model: a .tflite file.
        out: the folder to make.
        tensor: name of the tensor to cut at; unless given, the input of the one L2 norm.
        overwrite: replace ``out``.

    Raises:
        FacetpuError: the file is missing or no model, or it cannot be cut there.
    """
    if not model.is_file():
        raise FacetpuError(f"{model}: no such file; give a .tflite model")
    config, inputs = {"tensor": tensor}, {"model": digest(model)}
    if finished(out, "split", config, inputs):
        log.info("%s is split from this model already", out)
    else:
        check_new(out, overwrite)
        base, head = split_model(model.read_bytes(), tensor, str(model))
        with new_folder(out, overwrite) as folder:
            write_bytes(folder / "base.tflite", base)
            write_bytes(folder / "head.tflite", head)
            write_manifest(folder, "split", config, inputs)
    cut = cut_tensor(read_model(model), str(model), tensor)
    return Split(out / "base.tflite", out / "head.tflite", cut.name, list(tensor_shape(cut)), type_name(cut))


class DenseSplit(NamedTuple):
    """The model, and those of its dense layers that are in ``parts`` parts now, by their outputs."""

    model: Path
    layers: list[str]
    parts: int

    def __str__(self) -> str:
        return f"{self.model}: {', '.join(self.layers)} in {self.parts} parts each"


def split_dense_layers(
    model: Path, out: Path, parts: int, tensor: str | None = None, overwrite: bool = False
) -> DenseSplit:
    """Split dense layers that are too large for the Edge TPU; ``out`` gets ``model.tflite``.

    Args:
        model: a .tflite file.
        out: the folder to make.
        parts: how many to make of each layer.
        tensor: name of the one layer's output; every layer whose weights the chip cannot keep unless given.
        overwrite: replace ``out``.

    Raises:
        FacetpuError: the file is missing or no model, or there is no such layer.
    """
    if not model.is_file():
        raise FacetpuError(f"{model}: no such file; give a .tflite model")
    config, inputs = {"dense": parts, "tensor": tensor}, {"model": digest(model)}
    done = finished(out, "split", config, inputs)
    if done:
        log.info("%s is split from this model already", out)
        return DenseSplit(out / "model.tflite", done["layers"], parts)
    check_new(out, overwrite)
    layers = _large_layers(model) if tensor is None else [tensor]
    data = model.read_bytes()
    for layer in layers:
        data = split_dense(data, layer, parts, str(model))
    with new_folder(out, overwrite) as folder:
        write_bytes(folder / "model.tflite", data)
        write_manifest(folder, "split", config, inputs, layers=layers)
    return DenseSplit(out / "model.tflite", layers, parts)


def _large_layers(model: Path) -> list[str]:
    """The outputs of the dense layers whose weights the chip cannot keep."""
    dense = [op for op in ops_of(read_model(model), str(model)) if op.name == DENSE]
    sizes = {op.output(0).name: op.constant(1) for op in dense}
    large = [name for name, weights in sizes.items() if weights is not None and weights.nbytes > CACHE_BYTES]
    if not large:
        names = ", ".join(map(repr, sizes)) or "none"
        raise FacetpuError(
            f"{model}: has no dense layer larger than the {CACHE_BYTES / 2**20:.1f} MiB that the chip keeps; "
            f"name one to split all the same with --tensor: {names}"
        )
    return large
