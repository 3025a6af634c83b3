"""Frozen graphs (.pb) of other makers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..nets.graph import cut, read_graph
from ..nets.scaling import EMBEDDING, INPUT
from ..nets.tensorflow import tf
from .reading import Reading, Settings


def read(path: Path, settings: Settings) -> Reading:
    """The embedder in the frozen graph ``path``; its L2 norm is found by its pattern and left out.

    Raises:
        FacetpuError: it is no frozen graph of one image and one embedding.
    """
    return reading_of(read_graph(path), str(path), settings)


def reading_of(graph: Any, where: str, settings: Settings) -> Reading:
    """The embedder in a GraphDef without variables."""
    frozen, output = cut(graph, where, settings.size, settings.output, settings.input)

    def build(images: Any) -> Any:
        (embedding,) = tf.import_graph_def(frozen.graph, {INPUT: images}, [f"{EMBEDDING}:0"], name="net")
        return embedding

    return Reading(where, frozen.image_size, output, build, None, frozen.kernel, frozen.scale)
