"""Frozen graphs: from a checkpoint or a file to one that ends before the embedding's L2 norm.

``tf.nn.l2_normalize`` is not one op but ``Mul(x, Rsqrt(Maximum(Sum(Square(x)), eps)))``; it is found
by that pattern, since node names differ from graph to graph. The Edge TPU's imprinting models keep
the embedding's norm in the head; the norm of the head's own kernel is constant, and is folded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..config import TrainConfig
from ..errors import FacetpuError
from .checkpoint import averaged, by_name, check_checkpoint
from .classifier import classify
from .inference import for_inference, is_switch
from .nodes import Nodes, Norm, find_norms
from .scaling import EMBEDDING as EMBEDDING
from .scaling import INPUT as INPUT
from .tensorflow import tf, v1


class Frozen(NamedTuple):
    """An embedder without variables, and the head it was trained with."""

    graph: Any  # GraphDef: ``input`` float32 [1, S, S, 3] RGB 0 to 255 -> ``embedding`` float32 [1, 1, 1, D]
    image_size: int
    embedding_dim: int
    kernel: np.ndarray | None  # float32 [N, D], unit rows; None where the graph has no such head
    scale: float | None


def freeze_checkpoint(prefix: str, config: TrainConfig, people: int) -> Frozen:
    """The frozen network of a checkpoint.

    Args:
        prefix: of the checkpoint.
        config: of the training that wrote it.
        people: how many people its head tells apart.

    Raises:
        FacetpuError: the checkpoint is of another network or cannot be read.
    """
    side = config.network.image_size
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        pixels = v1.placeholder(tf.float32, [1, side, side, 3], name=INPUT)
        output = classify(pixels, config.network, people, is_training=False)
        logits = tf.multiply(output.cosines, output.scale, name="logits")
        variables = by_name(v1.global_variables())
        check_checkpoint(prefix, variables)
        v1.train.Saver(averaged(prefix, variables)).restore(session, prefix)
        constant = v1.graph_util.convert_variables_to_constants(
            session, graph.as_graph_def(), [logits.op.name]
        )
    return cut(constant, prefix)[0]


def read_graph(path: Path) -> Any:
    """The GraphDef in the file ``path``.

    Raises:
        FacetpuError: there is none, or it still has variables.
    """
    graph = v1.GraphDef()
    try:
        graph.ParseFromString(Path(path).read_bytes())
    except (FileNotFoundError, IsADirectoryError):
        raise FacetpuError(f"{path}: no such file") from None
    except Exception as error:  # DecodeError lives where the protobuf at hand puts it
        if type(error).__name__ != "DecodeError":
            raise
        raise FacetpuError(f"{path}: is no TensorFlow graph; give a frozen GraphDef (.pb)") from None
    if not graph.node:
        raise FacetpuError(f"{path}: is no TensorFlow graph; give a frozen GraphDef (.pb)")
    for node in graph.node:
        if node.op in ("Variable", "VariableV2", "VarHandleOp"):
            raise FacetpuError(f"{path}: is not frozen: {node.name} is a variable; freeze the graph first")
    return graph


def cut(
    graph: Any, where: str, size: int | None = None, output: str | None = None, image: str | None = None
) -> tuple[Frozen, str]:
    """``graph`` up to the embedding, before its L2 norm, and the head that follows it, if there is one.

    Args:
        graph: a GraphDef without variables, with one image as its input.
        where: the file it came from, for messages.
        size: side of the image in pixels, where the graph leaves it open.
        output: name of the node that gives the embedding; unless given, the input of the one L2 norm, or
            in a graph without any, its one output.
        image: name of the node that gives the image, where that is no placeholder.

    Returns:
        The embedder, and the name in ``graph`` of what its embedding is.

    Raises:
        FacetpuError: it has not one square image as its input, or not one embedding.
    """
    if image is not None:
        graph = _with_placeholder(graph, image.split(":")[0], where)
    pixels, side = _image_input(graph, where, size)
    graph = for_inference(graph, pixels)
    nodes = Nodes(graph)
    norms = list(find_norms(nodes))
    live = [norm for norm in norms if nodes.depends_on(norm.input, pixels)]
    end = _embedding_node(nodes, where, live, pixels, output)
    with tf.Graph().as_default() as shorter:
        images = v1.placeholder(tf.float32, [1, side, side, 3], name=INPUT)
        (embedding,) = tf.import_graph_def(graph, {pixels: images}, [f"{end}:0"], name="net")
        name_embedding(embedding, f"{where}: {end}")
    base = v1.graph_util.extract_sub_graph(shorter.as_graph_def(), [EMBEDDING])
    dim = int(shorter.get_tensor_by_name(f"{EMBEDDING}:0").shape[-1])
    kernel, scale = None, None
    if len(live) == 1 and live[0].input == end:
        kernel, scale = _head(nodes, live[0], [norm for norm in norms if norm not in live])
    return Frozen(base, side, dim, kernel, scale), end


def name_embedding(embedding: Any, where: str) -> Any:
    """Give the tensor ``embedding`` the shape ``[1, 1, 1, D]`` and the name that an embedding has.

    Raises:
        FacetpuError: it is no vector of a fixed length.
    """
    dim = embedding.shape.num_elements()
    if dim is None or embedding.shape[-1] != dim or dim < 2:
        raise FacetpuError(f"{where} is {embedding.shape}, no embedding [1, D]; name another with --output")
    if embedding.shape != [1, 1, 1, dim]:
        embedding = tf.reshape(embedding, [1, 1, 1, dim])
    return tf.identity(embedding, name=EMBEDDING)


def _embedding_node(nodes: Nodes, where: str, live: list[Norm], pixels: str, output: str | None) -> str:
    """The name of the node that gives the embedding."""
    if output is not None:
        name = output.split(":")[0]
        if name not in nodes:
            raise FacetpuError(f"{where}: has no node {name}; give the name of one with --output")
        norms = [norm.input for norm in live if norm.output == nodes.source(name).name]
        return norms[0] if norms else name
    if len(live) == 1:
        return live[0].input
    if live:
        found = ", ".join(norm.output for norm in live)
        raise FacetpuError(
            f"{where}: has {len(live)} L2 norms of an embedding: {found}; name the one with --output"
        )
    ends = [node.name for node in nodes.ends() if node.name != pixels and nodes.depends_on(node.name, pixels)]
    if len(ends) == 1 and nodes[ends[0]].op != "Softmax":
        return ends[0]
    if len(ends) == 1:
        raise FacetpuError(
            f"{where}: ends in a softmax and has 0 L2 norms of an embedding; name the embedding with --output"
        )
    found = ", ".join(ends[:8]) or "none"
    raise FacetpuError(
        f"{where}: has 0 L2 norms of an embedding and the outputs {found}; name one with --output"
    )


def _with_placeholder(graph: Any, name: str, where: str) -> Any:
    """``graph`` with a placeholder for the node ``name``, and without what only that needed."""
    changed = v1.GraphDef()
    changed.CopyFrom(graph)
    for node in changed.node:
        if node.name == name:
            node.op = "Placeholder"
            del node.input[:]
            node.attr.clear()
            node.attr["dtype"].type = tf.float32.as_datatype_enum
            node.attr["shape"].shape.CopyFrom(tf.TensorShape([None, None, None, 3]).as_proto())
            break
    else:
        raise FacetpuError(f"{where}: has no node {name}; give the name of one with --input")
    ends = [node.name for node in Nodes(changed).ends() if Nodes(changed).depends_on(node.name, name)]
    return v1.graph_util.extract_sub_graph(changed, ends)


def _image_input(graph: Any, where: str, size: int | None) -> tuple[str, int]:
    """The name of the one image input, and the side of the square image it takes."""
    inputs = [node for node in graph.node if node.op == "Placeholder"]
    images = [node for node in inputs if not is_switch(node)]
    if len(images) != 1:
        names = ", ".join(node.name for node in inputs) or "none"
        raise FacetpuError(f"{where}: has the inputs {names}; one image is needed; name it with --input")
    shape = [dim.size for dim in images[0].attr["shape"].shape.dim] or [-1, -1, -1, 3]
    kind = images[0].attr["dtype"].type
    if (
        kind != tf.float32.as_datatype_enum
        or len(shape) != 4
        or shape[1] != shape[2]
        or shape[3] not in (3, -1)
    ):
        raise FacetpuError(f"{where}: its input {images[0].name} is {shape}, no float image [1, S, S, 3]")
    if shape[1] < 1 and size is None:
        raise FacetpuError(
            f"{where}: its input {images[0].name} has no fixed size; give the side of a crop with --size"
        )
    if shape[1] > 0 and size not in (None, shape[1]):
        raise FacetpuError(f"{where}: takes {shape[1]} px; --size {size} does not fit it")
    return images[0].name, shape[1] if shape[1] > 0 else int(size or 0)


def _head(nodes: Nodes, embedding: Norm, others: list[Norm]) -> tuple[np.ndarray | None, float | None]:
    """The normalised kernel and the scale of a cosine head after ``embedding``; None, None without one."""
    for norm in others:
        for layer in nodes.consumers(norm.output):
            if layer.op == "Conv2D" and nodes.depends_on(layer.name, embedding.output):
                kernel = nodes.value(norm.output)  # [1, 1, D, N]
                return np.ascontiguousarray(kernel[0, 0].T, np.float32), _scale_after(nodes, layer)
    return None, None


def _scale_after(nodes: Nodes, layer: Any) -> float:
    """The constant that the outputs of ``layer`` are multiplied by; 1 if there is none."""
    while True:
        following = nodes.consumers(layer.name)
        if len(following) != 1:
            return 1.0
        name, layer = layer.name, following[0]
        if layer.op == "Mul":
            first, second = nodes.inputs(layer)
            factor = nodes.constant(second if first.name == name else first)
            return 1.0 if factor is None or factor.size != 1 else float(factor.reshape(()))
        if layer.op not in ("Squeeze", "Reshape", "BiasAdd"):
            return 1.0
