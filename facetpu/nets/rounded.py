"""Frozen graphs of networks that were trained with rounding, whose ranges stand in them as nodes."""

from __future__ import annotations

from typing import Any

from .nodes import Nodes
from .scaling import EMBEDDING, INPUT, Scaled
from .tensorflow import tf, v1

_ROUNDINGS = (
    "FakeQuantWithMinMaxArgs",
    "FakeQuantWithMinMaxVars",
    "FakeQuantWithMinMaxVarsPerChannel",
)


def is_rounded(graph: Any) -> bool:
    """Whether something in the graph is rounded to what integers can hold."""
    return bool(Nodes(graph).all(*_ROUNDINGS))


def without_rounding(graph: Any) -> Any:
    """``graph`` as it would be in floats; ``graph`` itself if nothing is rounded in it."""
    if not is_rounded(graph):
        return graph
    plain = v1.GraphDef()
    plain.CopyFrom(graph)
    for node in Nodes(plain).all(*_ROUNDINGS):
        node.op = "Identity"
        del node.input[1:]
        node.attr.clear()
        node.attr["T"].type = tf.float32.as_datatype_enum
    return plain


def with_rounded_pixels(scaled: Scaled, image_size: int) -> Any:
    """The graph of ``scaled`` with 256 levels for its input too, one for each value of a pixel.

    Args:
        scaled: a GraphDef from ``input`` to ``embedding``, whose input is ``scale * (pixel - mean)``.
        image_size: side of its input in pixels.
    """
    with tf.Graph().as_default() as whole:
        image = v1.placeholder(tf.float32, [1, image_size, image_size, 3], name=INPUT)
        darkest, brightest = (scaled.scale * (pixel - scaled.mean) for pixel in (0, 255))
        levels = tf.quantization.fake_quant_with_min_max_args(image, darkest, brightest)
        (output,) = tf.import_graph_def(scaled.graph, {INPUT: levels}, [f"{EMBEDDING}:0"], name="net")
        tf.identity(output, name=EMBEDDING)
    return v1.graph_util.extract_sub_graph(whole.as_graph_def(), [EMBEDDING])
