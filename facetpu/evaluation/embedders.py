"""Any model of the pipeline, from checkpoint to int8, as one thing: crops in, embeddings out.

TensorFlow is imported only for what needs it, a run or a frozen graph.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..artefacts import digest, files_under, read_manifest
from ..errors import FacetpuError
from ..workers import cores

CHECKPOINTS, FROZEN = "checkpoints", "frozen.pb"
EMBEDDINGS = "embeddings"
BATCH = 64  # crops a TensorFlow graph is given at once


class Source(NamedTuple):
    """What stands behind a MODEL argument.

    Attributes:
        kind: ``run``, ``frozen``, ``tflite`` or ``embeddings``.
        path: the run's folder, or the very file that gives embeddings or holds them.
    """

    kind: str
    path: Path

    def digest(self) -> str:
        """SHA-256 of what the embeddings come from."""
        if self.kind != "run":
            return digest(self.path)
        return ",".join(digest(file) for file in files_under(self.path / CHECKPOINTS))

    def alignment(self) -> dict[str, Any]:
        """How the model's crops are cut, from the manifest beside it; empty where it says nothing."""
        folder = self.path if self.kind == "run" else self.path.parent
        return {} if self.kind == EMBEDDINGS else read_manifest(folder).get("alignment") or {}


class Embedder(NamedTuple):
    """A model ready to run.

    Attributes:
        size: side in pixels of the square crops it takes.
        embed: uint8 [N,size,size,3] RGB to float32 [N,D]; lengths have no meaning.
    """

    size: int
    embed: Callable[[np.ndarray], np.ndarray]


def find_source(model: Path) -> Source:
    """What ``model`` is: a run, a frozen graph or its folder, a .tflite or a folder of them, an .npz.

    Raises:
        FacetpuError: it is none of these.
    """
    model = Path(model)
    if model.is_dir():
        if (model / CHECKPOINTS).is_dir():
            return Source("run", model)
        if (model / FROZEN).is_file():
            return Source("frozen", model / FROZEN)
    elif not model.exists():
        raise FacetpuError(f"{model}: no such run, frozen graph or model")
    elif model.suffix == ".pb":
        return Source("frozen", model)
    elif model.suffix == ".npz":
        return Source(EMBEDDINGS, model)
    elif model.suffix != ".tflite":
        raise FacetpuError(f"{model}: is neither a run, a .pb nor a .tflite; export it with facetpu export")
    from ..board.folder import ModelFolder

    return Source("tflite", ModelFolder.find(model).embedding_model())


def open_embedder(source: Source) -> Embedder:
    """Load what ``source`` names.

    Raises:
        FacetpuError: it is damaged, not a face embedder, or needs an extra that is not installed.
    """
    openers = {"run": _open_run, "frozen": _open_frozen, "tflite": _open_tflite}
    return openers[source.kind](source.path)


def _open_tflite(path: Path) -> Embedder:
    """One interpreter of one thread for each core: faster than one interpreter of many threads."""
    from ..board.embed import Embedder as BoardEmbedder
    from ..board.interpreter import is_compiled

    first = BoardEmbedder(path, threads=1)
    on_tpu = is_compiled(first.path.read_bytes())  # one device takes one crop at a time
    others = 0 if on_tpu else cores() - 1
    embedders = [first] + [BoardEmbedder(path, threads=1) for _ in range(others)]
    pool = ThreadPoolExecutor(len(embedders))

    def embed(crops: np.ndarray) -> np.ndarray:
        parts = np.array_split(crops, len(embedders))
        return np.concatenate(list(pool.map(lambda embedder, part: embedder.embed(part), embedders, parts)))

    return Embedder(first.size, embed)


def _open_run(run: Path) -> Embedder:
    """The checkpoint of ``run`` as it would be frozen."""
    from ..config import read_config
    from ..labels import read_labels
    from ..nets.checkpoint import chosen_checkpoint
    from ..nets.graph import freeze_checkpoint

    checkpoint = chosen_checkpoint(run)
    if checkpoint is None:
        raise FacetpuError(f"{run / CHECKPOINTS}: holds no checkpoint yet; let the training reach one")
    people = len(read_labels(run / "labels.txt"))
    frozen = freeze_checkpoint(checkpoint, read_config(run / "config.yaml"), people)
    return _embedder(frozen.graph, frozen.image_size)


def _open_frozen(path: Path) -> Embedder:
    """A graph that ``freeze`` wrote, or one of another maker up to its embedding's L2 norm."""
    from ..nets.graph import EMBEDDING, INPUT, cut, read_graph

    graph = read_graph(path)
    pixels = {node.name: node for node in graph.node}.get(INPUT)
    if pixels is None or not any(node.name == EMBEDDING for node in graph.node):
        frozen, _ = cut(graph, str(path))
        return _embedder(frozen.graph, frozen.image_size)
    return _embedder(graph, int(pixels.attr["shape"].shape.dim[1].size))


def _embedder(graph_def: Any, size: int) -> Embedder:
    """A session of a graph from ``input`` to ``embedding``, in batches where its shapes allow it."""
    from ..nets.graph import EMBEDDING, INPUT
    from ..nets.tensorflow import tf, v1

    with tf.Graph().as_default() as graph:
        pixels = v1.placeholder(tf.float32, [None, size, size, 3])
        (embedding,) = tf.import_graph_def(graph_def, {INPUT: pixels}, [f"{EMBEDDING}:0"], name="")
    session = v1.Session(graph=graph)
    batch = BATCH if embedding.shape[0] is None else 1

    def embed(crops: np.ndarray) -> np.ndarray:
        parts = [crops[start : start + batch] for start in range(0, len(crops), batch)]
        rows = [session.run(embedding, {pixels: part}) for part in parts]
        return np.concatenate(rows).reshape(len(crops), -1)

    return Embedder(size, embed)
