"""From a crop of a face to its embedding, by a base model on the Edge TPU or the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import FacetpuError
from ..tflite.cut import split_model
from ..tflite.model import op_number, read_model
from ..tflite.schema import BuiltinOperator
from .folder import BASE, MODEL, ModelFolder
from .gallery import normalised
from .interpreter import DeviceModel
from .runner import read_tflite


class Alignment(NamedTuple):
    """How the crops that a model was trained on were cut out of their photos."""

    template: str = "arcface"
    size: int = 112
    margin: int = 44


class Embedder:
    """A model that gives embeddings, opened on what this machine has.

    Attributes:
        size: side in pixels of the square crops it takes.
        dim: numbers in an embedding.
        alignment: how to cut the crops, from the manifest beside the model.
        scale, zero_point: quantisation of its output; 1 and 0 for a float model.
    """

    def __init__(self, model: Path, threads: int = 0, device: str | None = None) -> None:
        """Open ``model``: an export folder, a base (quantised or float), or a base with its head.

        Args:
            model: the folder, or a model in it.
            threads: CPU threads; as many as there are cores, up to 4, unless given.
            device: ``cpu``, or which Edge TPU, see ``devices.check_device``.

        Raises:
            FacetpuError: it is none of these, or cannot be opened on this machine.
        """
        folder = ModelFolder.find(model)
        self._model = DeviceModel(folder.embedding_model(), device, threads, embedding_part)
        self._input = _only(self._model.inputs, self.path, "input")
        self._output = _only(self._model.outputs, self.path, "output")
        self.size = _crop_size(self._input, self.path)
        self.dim, self.scale, self.zero_point = _embedding_form(self._output, self.path)
        self.alignment = _alignment(folder, self.size)

    @property
    def path(self) -> Path:
        """The file that runs."""
        return self._model.path

    def run(self, crops: np.ndarray) -> np.ndarray:
        """What the model writes for each crop.

        Should the Edge TPU fail, as when it is unplugged, the CPU twin goes on in its place.

        Args:
            crops: uint8 [n, size, size, 3], RGB; the raw pixels, since the model normalises them.

        Returns:
            [n, dim] in the model's own output type.

        Raises:
            FacetpuError: the crops have another size, or the device fails and there is no CPU twin.
        """
        crops = np.asarray(crops)
        if crops.shape[1:] != (self.size, self.size, 3) or crops.dtype != np.uint8:
            raise FacetpuError(
                f"{self.path}: takes uint8 crops of {self.size}x{self.size} px, not "
                f"{crops.dtype} {list(crops.shape[1:])}; align the photos with --size {self.size}"
            )
        rows = np.empty((len(crops), self.dim), self._output["dtype"])
        for row, crop in zip(rows, crops):
            (output,) = self._model.run(crop[None].astype(self._input["dtype"], copy=False))
            row[:] = output.ravel()
        return rows

    def dequantised(self, rows: np.ndarray) -> np.ndarray:
        """Embeddings of length 1, float32 [n, dim], from what ``run`` gave: scale * (q - zero point)."""
        return normalised((rows.astype(np.float32) - self.zero_point) * np.float32(self.scale))

    def embed(self, crops: np.ndarray) -> np.ndarray:
        """The embeddings of ``crops`` (uint8 [n, size, size, 3]): float32 [n, dim], of length 1."""
        return self.dequantised(self.run(crops))


def embedding_part(data: bytes, path: Path) -> bytes:
    """The part of a model up to its embedding before the L2 norm; all of it where it ends there.

    Raises:
        FacetpuError: it is a classifier without an L2 norm, so there is nowhere to cut it.
    """
    model = read_model(data, str(path))
    numbers = [op_number(model.operator_codes[op.opcode_index]) for op in model.subgraphs[0].operators]
    if not numbers or numbers[-1] != BuiltinOperator.SOFTMAX:
        return data
    if BuiltinOperator.L2_NORMALIZATION not in numbers:
        raise FacetpuError(
            f"{path}: is a classifier without an L2 norm before its last layer, so it gives no embeddings; "
            "export an embedder with facetpu export"
        )
    return split_model(data, where=str(path))[0]


def base_model(folder: ModelFolder) -> bytes:
    """The base of ``folder`` as it runs on the CPU: ``base.tflite``, else cut out of ``model.tflite``.

    Raises:
        FacetpuError: the folder has neither, or the model cannot be cut.
    """
    if (folder.root / BASE).is_file():
        return read_tflite(folder.root / BASE)
    path = folder.needed(MODEL, "facetpu export")
    return embedding_part(read_tflite(path), path)


def _only(details: list[dict[str, Any]], path: Path, what: str) -> dict[str, Any]:
    if len(details) != 1:
        raise FacetpuError(f"{path}: has {len(details)} {what}s, and a face embedder has one")
    return details[0]


def _crop_size(details: dict[str, Any], path: Path) -> int:
    shape = [int(side) for side in details["shape"]]
    if len(shape) != 4 or shape[0] != 1 or shape[1] != shape[2] or shape[3] != 3:
        raise FacetpuError(f"{path}: its input {shape} is no square RGB crop [1, size, size, 3]")
    if details["dtype"] not in (np.uint8, np.float32):
        kind = np.dtype(details["dtype"]).name
        raise FacetpuError(
            f"{path}: its input is {kind}, not uint8 or float32; quantise it with facetpu export"
        )
    return shape[1]


def _embedding_form(details: dict[str, Any], path: Path) -> tuple[int, float, int]:
    """Length, scale and zero point of the embedding that an output tensor holds."""
    shape = [int(side) for side in details["shape"]]
    if len(shape) not in (2, 4) or any(side != 1 for side in shape[:-1]):
        raise FacetpuError(f"{path}: its output {shape} is no embedding [1, 1, 1, D]")
    if details["dtype"] == np.float32:
        return shape[-1], 1.0, 0
    scale, zero_point = details["quantization"]
    if not scale:
        raise FacetpuError(f"{path}: its output has no scale; quantise it with facetpu export")
    return shape[-1], float(scale), int(zero_point)


def _alignment(folder: ModelFolder, size: int) -> Alignment:
    """The alignment in the manifest beside the model; the five-point template where there is none.

    Raises:
        FacetpuError: it is for crops of another size than the model takes.
    """
    given = folder.manifest().get("alignment")
    if given is None:
        return Alignment(size=size)
    try:
        alignment = Alignment(**given)
    except TypeError:
        raise FacetpuError(f"{folder.root}: its manifest has no alignment that fits: {given}") from None
    if alignment.size != size:
        raise FacetpuError(
            f"{folder.root}: its manifest aligns to {alignment.size} px and its model takes {size} px; "
            "export the model again"
        )
    return alignment
