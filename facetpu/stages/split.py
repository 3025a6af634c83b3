"""Split: a model, ours or another's, to a base and a head."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

from ..artefacts import check_new, digest, finished, new_folder, write_bytes, write_manifest
from ..errors import FacetpuError
from ..tflite.cut import cut_tensor, split_model
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
