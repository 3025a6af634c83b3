"""A GraphDef as a graph: who gives what to whom, and what is constant in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .tensorflow import tf, v1

# What an L2 norm's factor is computed with: 1 / sqrt(max(sum(x * x), eps)) in every spelling of it.
_FACTOR_OPS = frozenset(
    [
        "Rsqrt",
        "Sqrt",
        "Maximum",
        "Minimum",
        "Add",
        "AddV2",
        "Sum",
        "Square",
        "Pow",
        "Mul",
        "Abs",
        "Reshape",
        "Identity",
    ]
)


class Norm(NamedTuple):
    """An L2 norm in a graph, by the names of its nodes."""

    input: str
    output: str


class Nodes:
    """A GraphDef's nodes by name, seen through ``Identity``."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self._by_name = {node.name: node for node in graph.node}

    def __getitem__(self, name: str) -> Any:
        return self._by_name[name]

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def all(self, *ops: str) -> list[Any]:
        """The nodes of these ops, in the graph's order."""
        return [node for node in self.graph.node if node.op in ops]

    def inputs(self, node: Any) -> list[Any]:
        """The nodes whose values ``node`` takes."""
        return [self.source(name) for name in node.input if not name.startswith("^")]

    def source(self, name: str) -> Any:
        """The node whose value goes by ``name``, seen through ``Identity``."""
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

    def ends(self) -> list[Any]:
        """The nodes whose values no other node takes."""
        nodes = [node for node in self.graph.node if node.op not in ("Identity", "NoOp")]
        taken = {source.name for node in nodes for source in self.inputs(node)}
        return [node for node in nodes if node.name not in taken]

    def value(self, name: str) -> np.ndarray:
        """The value of a node that depends on constants only."""
        with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
            part = v1.graph_util.extract_sub_graph(self.graph, [name])
            (output,) = tf.import_graph_def(part, return_elements=[f"{name}:0"])
            return np.asarray(session.run(output))

    def constant(self, node: Any) -> np.ndarray | None:
        """The value of ``node`` if it is a constant, else None."""
        return self.value(node.name) if node.op == "Const" else None


def find_norms(nodes: Nodes) -> Iterator[Norm]:
    """Every L2 norm in the graph, ``x * rsqrt(max(sum(x * x), eps))`` or ``x / sqrt(...)``."""
    for node in nodes.all("Mul", "RealDiv"):
        x, factor = nodes.inputs(node)
        pairs = [(x, factor)] if node.op == "RealDiv" else [(x, factor), (factor, x)]
        for value, other in pairs:
            if value.name != other.name and _is_norm_of(nodes, other, value):
                yield Norm(value.name, node.name)
                break


def _is_norm_of(nodes: Nodes, factor: Any, x: Any) -> bool:
    """Whether ``factor`` is a function of the sum of the squares of ``x`` alone, with a root in it."""
    ops, left = set(), [factor]
    while left:
        node = left.pop()
        if node.name == x.name or node.op == "Const":
            continue
        if node.op not in _FACTOR_OPS:
            return False
        ops.add(node.op)
        left += nodes.inputs(node)
    return "Sum" in ops and bool(ops & {"Rsqrt", "Sqrt"})
