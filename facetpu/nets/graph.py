"""Frozen graphs: from a checkpoint or a file to one that ends before the embedding's L2 norm.

``tf.nn.l2_normalize`` is not one op but ``Mul(x, Rsqrt(Maximum(Sum(Square(x)), eps)))``; it is found
by that pattern, since node names differ from graph to graph. The Edge TPU's imprinting models keep
the embedding's norm in the head; the norm of the head's own kernel is constant, and is folded.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..config import TrainConfig
from ..errors import FacetpuError
from .checkpoint import averaged, by_name, check_checkpoint
from .classifier import classify
from .tensorflow import tf, v1

INPUT = "input"
EMBEDDING = "embedding"


class Frozen(NamedTuple):
    """An embedder without variables, and the head it was trained with."""

    graph: Any  # GraphDef: ``input`` float32 [1, S, S, 3] RGB 0 to 255 -> ``embedding`` float32 [1, 1, 1, D]
    image_size: int
    embedding_dim: int
    kernel: np.ndarray | None  # float32 [N, D], unit rows; None where the graph has no such head
    scale: float | None


class Norm(NamedTuple):
    """An L2 norm in a graph, by the names of its nodes."""

    input: str
    output: str


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
    return cut(constant, prefix)


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


def cut(graph: Any, where: str) -> Frozen:
    """``graph`` up to the embedding, before its L2 norm, and the head that follows it, if there is one.

    Args:
        graph: a GraphDef without variables, with one image as its input.
        where: the file it came from, for messages.

    Raises:
        FacetpuError: it has not one image input of a fixed square size, or not one embedding.
    """
    nodes = _Nodes(graph)
    pixels, side = _image_input(graph, where)
    norms = list(find_norms(nodes))
    live = [norm for norm in norms if nodes.depends_on(norm.input, pixels)]
    if len(live) != 1:
        found = ": " + ", ".join(norm.output for norm in live) if live else ""
        raise FacetpuError(f"{where}: has {len(live)} L2 norms of an embedding{found}; exactly one is needed")
    with tf.Graph().as_default() as shorter:
        image = v1.placeholder(tf.float32, [1, side, side, 3], name=INPUT)
        (embedding,) = tf.import_graph_def(graph, {pixels: image}, [f"{live[0].input}:0"], name="net")
        dim = embedding.shape.num_elements()
        if dim is None:
            raise FacetpuError(f"{where}: {live[0].input} has no fixed shape, {embedding.shape}")
        if embedding.shape != [1, 1, 1, dim]:
            embedding = tf.reshape(embedding, [1, 1, 1, dim])
        tf.identity(embedding, name=EMBEDDING)
    base = v1.graph_util.extract_sub_graph(shorter.as_graph_def(), [EMBEDDING])
    kernel, scale = _head(nodes, live[0], [norm for norm in norms if norm not in live])
    return Frozen(base, side, dim, kernel, scale)


def without_scaling(graph: Any, image_size: int) -> tuple[Any, float, float]:
    """``graph`` without the scalings that its input goes through first, so that they cost no op.

    They become the quantisation of the input instead.

    Args:
        graph: as in :class:`Frozen`.
        image_size: side of its input in pixels.

    Returns:
        The GraphDef whose input is ``scale * (pixel - mean)``; ``scale``; ``mean``.
    """
    nodes = _Nodes(graph)
    name, scale, offset = INPUT, 1.0, 0.0
    while True:
        following = nodes.consumers(name)
        step = _scalar_step(nodes, following[0], name) if len(following) == 1 else None
        if step is None:
            break
        name, scale, offset = following[0].name, scale * step[0], offset * step[0] + step[1]
    with tf.Graph().as_default() as shorter:
        image = v1.placeholder(tf.float32, [1, image_size, image_size, 3], name=INPUT)
        (output,) = tf.import_graph_def(graph, {f"{name}:0": image}, [f"{EMBEDDING}:0"], name="net")
        tf.identity(output, name=EMBEDDING)
    return v1.graph_util.extract_sub_graph(shorter.as_graph_def(), [EMBEDDING]), scale, -offset / scale


def find_norms(nodes: _Nodes) -> Iterator[Norm]:
    """Every L2 norm in the graph: ``Mul(x, Rsqrt(Maximum(Sum(Square(x)), eps)))``."""
    for node in nodes.all("Mul"):
        x, factor = nodes.inputs(node)
        if factor.op != "Rsqrt":
            x, factor = factor, x
        below: Any = factor
        for op in ("Rsqrt", "Maximum", "Sum", "Square"):
            if below.op != op:
                break
            below = nodes.inputs(below)[0]
        else:
            if below.name == x.name:
                yield Norm(x.name, node.name)


class _Nodes:
    """A GraphDef's nodes by name, seen through ``Identity``."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self._by_name = {node.name: node for node in graph.node}

    def all(self, op: str) -> list[Any]:
        return [node for node in self.graph.node if node.op == op]

    def inputs(self, node: Any) -> list[Any]:
        """The nodes whose values ``node`` takes."""
        return [self._source(name) for name in node.input if not name.startswith("^")]

    def _source(self, name: str) -> Any:
        node = self._by_name[name.split(":")[0]]
        while node.op == "Identity":
            node = self._by_name[node.input[0].split(":")[0]]
        return node

    def consumers(self, name: str) -> list[Any]:
        """The nodes that take the value of the node ``name``."""
        return [
            node
            for node in self.graph.node
            if node.op != "Identity" and any(taken.name == name for taken in self.inputs(node))
        ]

    def depends_on(self, name: str, ancestor: str) -> bool:
        """Whether ``ancestor`` is ``name`` or above it."""
        seen, left = set(), [name]
        while left:
            at = left.pop()
            if at == ancestor:
                return True
            if at not in seen:
                seen.add(at)
                left += [node.name for node in self.inputs(self._by_name[at])]
        return False

    def value(self, name: str) -> np.ndarray:
        """The value of a node that depends on constants only."""
        with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
            part = v1.graph_util.extract_sub_graph(self.graph, [name])
            (output,) = tf.import_graph_def(part, return_elements=[f"{name}:0"])
            return np.asarray(session.run(output))

    def scalar(self, node: Any) -> float | None:
        """The value of ``node`` if it is one constant number, else None."""
        if node.op != "Const":
            return None
        value = self.value(node.name)
        return float(value.reshape(())) if value.size == 1 else None


def _image_input(graph: Any, where: str) -> tuple[str, int]:
    """The name of the one input, and the side of the square image it takes."""
    inputs = [node for node in graph.node if node.op == "Placeholder"]
    if len(inputs) != 1:
        names = ", ".join(node.name for node in inputs) or "none"
        raise FacetpuError(f"{where}: has the inputs {names}; one image is needed: freeze it for inference")
    shape = [dim.size for dim in inputs[0].attr["shape"].shape.dim]
    kind = inputs[0].attr["dtype"].type
    if kind != tf.float32.as_datatype_enum or len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3:
        raise FacetpuError(f"{where}: its input {inputs[0].name} is {shape}, no float image [1, S, S, 3]")
    if shape[1] < 1:
        raise FacetpuError(f"{where}: its input {inputs[0].name} has no fixed size; freeze it with one")
    return inputs[0].name, shape[1]


def _scalar_step(nodes: _Nodes, node: Any, name: str) -> tuple[float, float] | None:
    """``(factor, offset)`` of a node that computes ``factor * value + offset`` from ``name``, else None."""
    if node.op not in ("Sub", "Add", "AddV2", "Mul", "RealDiv"):
        return None
    first, second = nodes.inputs(node)
    constant = nodes.scalar(second if first.name == name else first)
    if constant is None or (node.op in ("Sub", "RealDiv") and first.name != name):
        return None
    return {
        "Sub": (1.0, -constant),
        "Add": (1.0, constant),
        "AddV2": (1.0, constant),
        "Mul": (constant, 0.0),
        "RealDiv": (1 / constant, 0.0),
    }[node.op]


def _head(nodes: _Nodes, embedding: Norm, others: list[Norm]) -> tuple[np.ndarray | None, float | None]:
    """The normalised kernel and the scale of a cosine head after ``embedding``; None, None without one."""
    for norm in others:
        for layer in nodes.consumers(norm.output):
            if layer.op == "Conv2D" and nodes.depends_on(layer.name, embedding.output):
                kernel = nodes.value(norm.output)  # [1, 1, D, N]
                return np.ascontiguousarray(kernel[0, 0].T, np.float32), _scale_after(nodes, layer)
    return None, None


def _scale_after(nodes: _Nodes, layer: Any) -> float:
    """The constant that the outputs of ``layer`` are multiplied by; 1 if there is none."""
    while True:
        following = nodes.consumers(layer.name)
        if len(following) != 1:
            return 1.0
        name, layer = layer.name, following[0]
        if layer.op == "Mul":
            step = _scalar_step(nodes, layer, name)
            return 1.0 if step is None else step[0]
        if layer.op not in ("Squeeze", "Reshape", "BiasAdd"):
            return 1.0
