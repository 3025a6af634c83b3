"""Frozen graphs that can still be switched to training: the switches set, what they choose folded away."""

from __future__ import annotations

from typing import Any

from tensorflow.core.protobuf import config_pb2
from tensorflow.python.grappler import tf_optimizer

from .nodes import Nodes
from .tensorflow import quiet, tf, v1

_SWITCHES = ("train", "phase", "keep_prob", "dropout", "learning")  # in their names


def is_switch(node: Any) -> bool:
    """Whether a placeholder says if this is training, or what share dropout keeps, rather than the image."""
    kind = tf.dtypes.as_dtype(node.attr["dtype"].type)
    scalar = kind == tf.bool or (kind == tf.float32 and not node.attr["shape"].shape.dim)
    return scalar and any(word in node.name.lower() for word in _SWITCHES)


def for_inference(graph: Any, pixels: str) -> Any:
    """``graph`` with its switches set to inference: no training, all kept.

    Args:
        graph: a GraphDef without variables.
        pixels: the name of its image placeholder, which stays.
    """
    switches = {node.name for node in graph.node if node.op == "Placeholder" and node.name != pixels}
    defaults = {node.name for node in graph.node if node.op == "PlaceholderWithDefault"}
    if not switches and not defaults:
        return graph
    fixed = v1.GraphDef()
    fixed.CopyFrom(graph)
    for node in fixed.node:
        if node.name in switches:
            kind = tf.dtypes.as_dtype(node.attr["dtype"].type)
            node.op = "Const"
            node.attr.clear()
            node.attr["dtype"].type = kind.as_datatype_enum
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(kind == tf.float32, kind))
        elif node.name in defaults:
            kind = node.attr["dtype"].type
            node.op = "Identity"
            node.attr.clear()
            node.attr["T"].type = kind
        elif node.op in ("If", "StatelessIf"):
            node.attr["_lower_using_switch_merge"].b = True  # else it is not looked into
    return _folded(fixed, pixels)


def _folded(graph: Any, pixels: str) -> Any:
    """``graph`` without the branches that its constants never take."""
    nodes = Nodes(graph)
    kept = [node.name for node in nodes.ends() if nodes.depends_on(node.name, pixels)]
    config = config_pb2.ConfigProto()
    rewriting = config.graph_options.rewrite_options
    rewriting.optimizers.extend(["pruning", "function", "constfold", "loop", "dependency", "pruning"])
    with tf.Graph().as_default() as whole:
        tf.import_graph_def(graph, name="")
        for name in [*kept, pixels]:
            whole.add_to_collection("train_op", whole.get_operation_by_name(name).outputs[0])
        meta = v1.train.export_meta_graph(graph=whole)
    with quiet():
        lowered = tf_optimizer.OptimizeGraph(config, meta)
        meta.graph_def.CopyFrom(lowered)  # what a function held is folded only once it is in the graph
        return tf_optimizer.OptimizeGraph(config, meta)
