"""TensorFlow checkpoints of other makers, by the graph saved beside them or a config of the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..config import read_config
from ..errors import FacetpuError
from ..nets.checkpoint import by_name, check_checkpoint
from ..nets.graph import freeze_checkpoint
from ..nets.nodes import Nodes, find_norms
from ..nets.tensorflow import quiet, tf, v1
from .graph import reading_of
from .reading import Reading, Settings

_USUAL_NAME = "embeddings"  # in the graphs of David Sandberg's facenet and those made after it
_KERNEL = "Logits/weights"  # of the head, in checkpoints of facetpu's own networks


def read(path: Path, settings: Settings) -> Reading:
    """The embedder in a checkpoint, named by its prefix or one of its files.

    Args:
        path: ``model.ckpt-1000``, ``model.ckpt-1000.index`` or ``model.ckpt-1000.meta``.
        settings: with ``config``, the network is the one of that config; else the one in the ``.meta``.

    Raises:
        FacetpuError: neither is there, or the checkpoint is of another network.
    """
    prefix = prefix_of(path)
    if settings.config is not None:
        return _by_config(prefix, settings)
    meta = Path(f"{prefix}.meta")
    if not meta.is_file():
        raise FacetpuError(
            f"{prefix}: has no graph beside it ({meta.name}); give the network's config with --config"
        )
    return reading_of(_frozen(meta, prefix, settings), str(path), settings)


def prefix_of(path: Path) -> str:
    """What all the files of a checkpoint begin with."""
    return str(path.with_suffix("")) if path.suffix in (".index", ".meta") else str(path)


def _by_config(prefix: str, settings: Settings) -> Reading:
    assert settings.config is not None
    config = read_config(settings.config)
    try:
        shapes = tf.train.load_checkpoint(prefix).get_variable_to_shape_map()
    except (tf.errors.OpError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise FacetpuError(f"{prefix}: is no checkpoint that can be read: {reason}") from None
    if _KERNEL not in shapes:
        raise FacetpuError(
            f"{prefix}: holds no {_KERNEL}, the head of facetpu's networks; freeze it with the code that "
            "trained it, and export the .pb"
        )
    frozen = freeze_checkpoint(prefix, config, shapes[_KERNEL][-1])
    return reading_of(frozen.graph, prefix, settings)._replace(kernel=frozen.kernel, scale=frozen.scale)


def _frozen(meta: Path, prefix: str, settings: Settings) -> Any:
    """The graph of ``meta`` up to the embedding, with the checkpoint's values for its variables."""
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        try:
            with quiet():
                v1.train.import_meta_graph(str(meta), clear_devices=True)
        except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
            reason = str(error).splitlines()[0]
            raise FacetpuError(f"{meta}: cannot be read: {reason}; give the config with --config") from None
        output = _output(graph.as_graph_def(), str(meta), settings.output)
        part = v1.graph_util.extract_sub_graph(graph.as_graph_def(), [output])
        used = {node.name for node in part.node}
        variables = {name: var for name, var in by_name(v1.global_variables()).items() if name in used}
        check_checkpoint(prefix, variables)
        v1.train.Saver(variables).restore(session, prefix)
        return v1.graph_util.convert_variables_to_constants(session, part, [output])


def _output(graph: Any, where: str, given: str | None) -> str:
    """The node that gives the embedding or its norm, in a graph that may be one of a training."""
    names = {node.name for node in graph.node}
    if given is not None:
        if given.split(":")[0] not in names:
            raise FacetpuError(f"{where}: has no node {given}; give the name of one with --output")
        return given.split(":")[0]
    if _USUAL_NAME in names:
        return _USUAL_NAME
    norms = [norm.output for norm in find_norms(Nodes(graph))]
    if len(norms) != 1:
        found = ", ".join(norms[:8]) or "none"
        raise FacetpuError(f"{where}: which node is the embedding? L2 norms: {found}; name it with --output")
    return norms[0]
