"""The scalings that a network's image goes through first, so that they cost no op on the Edge TPU.

Between the raw pixels and the first convolution stand subtractions, factors and a swap of the channels,
each with constants of its own: together ``matrix @ pixel + offset``. One scale and one offset for all
three channels become the quantisation of the input, if the offset is a whole pixel value, as a zero point
is. Others go into the first convolution's weights and bias; what its padding adds at the border is then
a grey near the mean, not exactly the mean's colour.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .nodes import Nodes
from .tensorflow import tf, v1

INPUT = "input"
EMBEDDING = "embedding"

_WHOLE = 0.01  # of a grey level, by which a mean may miss a whole one
_FOLDED_SCALE = 1 / 128  # of the input whose true scaling is in the first convolution: any would do


class Scaled(NamedTuple):
    """A graph whose input is ``scale * (pixel - mean)``."""

    graph: Any  # GraphDef
    scale: float
    mean: float


class _Front(NamedTuple):
    """What happens to a pixel before the node behind ``name``: ``matrix @ pixel + offset``."""

    name: str
    matrix: np.ndarray  # [3, 3]
    offset: np.ndarray  # [3]
    nodes: int  # how many there are


def begins_with_scaling(graph: Any, name: str = INPUT) -> bool:
    """Whether the graph's input ``name`` is scaled before anything else happens to it."""
    front = _front(Nodes(graph), name)
    return not (np.array_equal(front.matrix, np.eye(3)) and not front.offset.any())


def without_scaling(graph: Any, image_size: int) -> Scaled:
    """``graph`` without the scalings that its input goes through first.

    Args:
        graph: a GraphDef from ``input`` to ``embedding``.
        image_size: side of its input in pixels.
    """
    nodes = Nodes(graph)
    front = _front(nodes, INPUT)
    means = -np.linalg.solve(front.matrix, front.offset)
    mean = float(np.clip(np.rint(means.mean()), 0, 255))
    factor = float(front.matrix[0, 0])
    uniform = np.array_equal(front.matrix, factor * np.eye(3)) and np.ptp(means) == 0 and factor > 0
    if uniform and abs(means[0] - mean) < _WHOLE:
        return Scaled(_behind(graph, front.name, image_size), factor, float(means[0]))
    convolution = _first_convolution(nodes, front.name)
    if convolution is not None:
        matrix = front.matrix / _FOLDED_SCALE  # of scale * (pixel - mean) instead of the pixel
        offset = front.matrix @ np.full(3, mean) + front.offset
        folded = _folded(nodes, convolution, matrix, offset)
        return Scaled(_behind(folded, front.name, image_size), _FOLDED_SCALE, mean)
    if uniform:
        return Scaled(_behind(graph, front.name, image_size), factor, float(means[0]))
    return Scaled(_behind(graph, INPUT, image_size), 1.0, 0.0)


def _front(nodes: Nodes, name: str) -> _Front:
    """Follow the image from the node ``name`` as long as each pixel is worked on by itself."""
    front = _Front(name, np.eye(3), np.zeros(3), 0)
    while True:
        following = nodes.consumers(front.name)
        step = _step(nodes, following[0], front.name) if len(following) == 1 else None
        if step is None:
            return front
        matrix, offset = step
        front = _Front(
            following[0].name, matrix @ front.matrix, matrix @ front.offset + offset, front.nodes + 1
        )


def _step(nodes: Nodes, node: Any, name: str) -> tuple[np.ndarray, np.ndarray] | None:
    """``(matrix, offset)`` of a node that computes ``matrix @ pixel + offset`` from ``name``, else None."""
    if node.op not in ("Sub", "Add", "AddV2", "Mul", "RealDiv", "ReverseV2"):
        return None
    first, second = nodes.inputs(node)
    constant = nodes.constant(second if first.name == name else first)
    if constant is None:
        return None
    if node.op == "ReverseV2":
        return (np.eye(3)[::-1], np.zeros(3)) if constant.tolist() in ([3], [-1]) else None
    if constant.size not in (1, 3) or constant.shape[-1:] not in ((), (1,), (3,)):
        return None
    value = np.broadcast_to(constant.astype(np.float64).ravel(), 3)
    reverse = first.name != name
    if reverse and node.op == "RealDiv":
        return None
    if node.op == "Sub":
        return (-np.eye(3), value) if reverse else (np.eye(3), -value)
    if node.op in ("Mul", "RealDiv"):
        return np.diag(value if node.op == "Mul" else 1 / value), np.zeros(3)
    return np.eye(3), value


def _first_convolution(nodes: Nodes, name: str) -> Any | None:
    """The convolution with constant weights that alone takes the image, padded with zeros or as it is."""
    following = nodes.consumers(name)
    if len(following) == 1 and following[0].op == "Pad":
        following = nodes.consumers(following[0].name)
    if len(following) != 1 or following[0].op != "Conv2D":
        return None
    return following[0] if nodes.inputs(following[0])[1].op == "Const" else None


def _folded(nodes: Nodes, convolution: Any, matrix: np.ndarray, offset: np.ndarray) -> Any:
    """The graph with ``matrix @ pixel + offset`` in the convolution's weights and a bias behind it."""
    kernel = nodes.value(nodes.inputs(convolution)[1].name).astype(np.float64)  # [h, w, 3, out]
    weights = np.einsum("hwco,ci->hwio", kernel, matrix)
    bias = np.einsum("hwco,c->o", kernel, offset)
    graph = v1.GraphDef()
    graph.CopyFrom(nodes.graph)
    whole = f"{convolution.name}/with_scaling"
    for node in graph.node:
        for place, taken in enumerate(node.input):
            if taken.split(":")[0] == convolution.name:
                node.input[place] = whole
        if node.name == convolution.name:
            node.input[1] = f"{whole}/weights"
    for name, value in ((f"{whole}/weights", weights), (f"{whole}/bias", bias)):
        constant = graph.node.add(name=name, op="Const")
        constant.attr["dtype"].type = tf.float32.as_datatype_enum
        constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, tf.float32))
    added = graph.node.add(name=whole, op="BiasAdd", input=[convolution.name, f"{whole}/bias"])
    added.attr["T"].type = tf.float32.as_datatype_enum
    return graph


def _behind(graph: Any, name: str, image_size: int) -> Any:
    """The part of ``graph`` behind the node ``name``, whose value becomes the input."""
    with tf.Graph().as_default() as shorter:
        image = v1.placeholder(tf.float32, [1, image_size, image_size, 3], name=INPUT)
        (output,) = tf.import_graph_def(graph, {f"{name}:0": image}, [f"{EMBEDDING}:0"], name="net")
        tf.identity(output, name=EMBEDDING)
    return v1.graph_util.extract_sub_graph(shorter.as_graph_def(), [EMBEDDING])
