"""From a model file of any maker to the one form that is quantised: raw RGB pixels in, embedding out."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import FacetpuError
from ..metrics import unit
from ..nets.graph import Frozen, name_embedding
from ..nets.scaling import EMBEDDING, INPUT
from ..nets.tensorflow import tf, v1
from .normalisation import Normalisation, normalisation_of
from .reading import Reading, Settings

PARITY = 1e-3  # of a number in an embedding of length 1, as rebuilt and by the file's own runtime
_SUFFIXES = {
    ".pb": "graph",
    ".onnx": "onnx",
    ".keras": "keras",
    ".h5": "keras",
    ".hdf5": "keras",
    ".tflite": "tflite",
}


class Foreign(NamedTuple):
    """An embedder of another maker, and what was found out about it."""

    frozen: Frozen
    kind: str
    output: str  # what the embedding is called in the file
    normalisation: str  # in words
    parity: float | None  # largest difference from the file's own runtime; None where nothing was rebuilt


def read_embedder(source: Path, settings: Settings) -> Foreign:
    """The embedder in the file or folder ``source``.

    Raises:
        FacetpuError: it is of no known kind, is no face embedder, or cannot be rebuilt.
    """
    kind = kind_of(source)
    read: Callable[[Path, Settings], Reading] = import_module(f".{kind}", __package__).read
    reading = read(source, settings)
    normalisation = normalisation_of(reading, settings.mean, settings.std, settings.channels)
    frozen = _frozen(reading, normalisation)
    parity = _parity(reading, frozen, normalisation)
    return Foreign(frozen, kind, reading.output, str(normalisation), parity)


def kind_of(source: Path) -> str:
    """The module that reads ``source``.

    Raises:
        FacetpuError: there is no such model, or none that is known.
    """
    if (source / "saved_model.pb").is_file():
        return "saved_model"
    if source.suffix in (".index", ".meta") or Path(f"{source}.index").is_file():
        return "checkpoint"
    if not source.exists():
        raise FacetpuError(f"{source}: no such run, frozen graph or model")
    kind = None if source.is_dir() else _SUFFIXES.get(source.suffix.lower())
    if kind is None:
        raise FacetpuError(
            f"{source}: is no run of facetpu train, no frozen graph (.pb), SavedModel or slim checkpoint, "
            "and no .onnx, .keras, .h5 or .tflite"
        )
    return kind


def files_of(source: Path, settings: Settings) -> dict[str, Path]:
    """The files and folders that an embedder comes from, by what they are.

    Raises:
        FacetpuError: there is no such model, or none that is known.
    """
    files = {"source": source}
    if kind_of(source) == "checkpoint":
        from .checkpoint import prefix_of

        prefix = prefix_of(source)
        files = {"checkpoint": Path(f"{prefix}.index"), "graph": Path(f"{prefix}.meta")}
    if settings.config is not None:
        files["config"] = settings.config
    return {name: path for name, path in files.items() if path.exists()}


def _frozen(reading: Reading, normalisation: Normalisation) -> Frozen:
    """The network with its normalisation in front."""
    side = reading.size
    with tf.Graph().as_default() as graph:
        pixels = v1.placeholder(tf.float32, [1, side, side, 3], name=INPUT)
        embedding = reading.build(normalisation.graph(pixels))
        name_embedding(embedding, f"{reading.where}: {reading.output}")
        dim = embedding.shape.num_elements()
    base = v1.graph_util.extract_sub_graph(graph.as_graph_def(), [EMBEDDING])
    return Frozen(base, side, dim, reading.kernel, reading.scale)


def _parity(reading: Reading, frozen: Frozen, normalisation: Normalisation) -> float | None:
    """How far the embeddings of two images are from what the file's own runtime gives.

    Raises:
        FacetpuError: too far: the network was not rebuilt as it was meant.
    """
    if reading.original is None:
        return None
    pixels = np.random.default_rng(0).integers(0, 256, (2, frozen.image_size, frozen.image_size, 3))
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        tf.import_graph_def(frozen.graph, name="")
        rows = [session.run(f"{EMBEDDING}:0", {f"{INPUT}:0": image[None]}).ravel() for image in pixels]
    original = unit(reading.original(normalisation.array(pixels)), reading.where)
    difference = float(np.abs(unit(np.stack(rows), reading.where) - original).max())
    if not difference < PARITY:
        raise FacetpuError(
            f"{reading.where}: rebuilt, its embeddings differ by {difference:.2g} from those of its "
            "own runtime: facetpu reads it wrongly; convert it to a SavedModel and export that"
        )
    return difference
