"""Embedders in .onnx: rebuilt op by op from their weights as a TensorFlow graph of ``[1, H, W, C]`` images.

A general converter carries ONNX's ``[1, C, H, W]`` over with transposes that the Edge TPU cannot run, and
needs a TensorFlow of its own age. What face embedders consist of is a few dozen ops, in ``onnx_ops``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from ..errors import FacetpuError
from ..nets.tensorflow import tf
from .onnx_ops import Node, Value, build_node, fold_constants
from .reading import Reading, Settings


def read(path: Path, settings: Settings) -> Reading:
    """The embedder in the ONNX file ``path``; an L2 norm at its end is left out.

    Args:
        path: of the model, its weights inside it or beside it.
        settings: may name the size and the output, where the model leaves them open.

    Raises:
        FacetpuError: it is no ONNX model of one image and one embedding, or has an op that is not known.
    """
    model = _load(path)
    graph = model.graph
    image, side, channels_last = _image_input(path, graph, settings.size)
    makers = {name: node for node in graph.node for name in node.output}
    output = _before_norm(_output(path, graph, makers, settings.output), makers)

    def build(images: Any) -> Any:
        shape = (1, side, side, 3) if channels_last else (1, 3, side, side)
        return _build(
            path, model, {image: Value(images, shape, None if channels_last else (3, side, side))}, output
        )

    return Reading(str(path), side, output, build, _runner(model, output, channels_last))


def _build(path: Path, model: Any, given: dict[str, Value], output: str) -> Any:
    """The tensor ``output`` in the TensorFlow graph at hand, from the values ``given``."""
    values: dict[str, Any] = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer
    }
    values.update(given)
    values[""] = None  # how ONNX leaves out an input
    needed = _ancestors(output, {name: node for node in model.graph.node for name in node.output})
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)
    for proto in model.graph.node:
        if needed.isdisjoint(proto.output):
            continue
        node = Node.of(proto, str(path), opset)
        inputs = [values[name] for name in proto.input]
        made: Sequence[Any] | None = fold_constants(node, inputs)
        if made is None:
            with tf.name_scope(_scope(node.name)):
                made = build_node(node, inputs)
        values.update(zip(proto.output, made, strict=False))  # outputs that nobody needs are not made
    if not isinstance(values[output], Value):
        raise FacetpuError(f"{path}: its output {output} does not depend on the image")
    return values[output].plain()


def _scope(name: str) -> str:
    """A node's name as TensorFlow allows it, by which reports can name the layer."""
    return re.sub(r"[^A-Za-z0-9_./-]", "_", name).strip("/_-.") or "node"


def _runner(model: Any, output: str, channels_last: bool) -> Callable[[np.ndarray], np.ndarray] | None:
    """``output`` by onnxruntime; None without it."""
    try:
        import onnxruntime
    except ImportError:
        return None

    def run(images: np.ndarray) -> np.ndarray:
        whole = onnx.ModelProto()
        whole.CopyFrom(model)
        del whole.graph.output[:]
        whole.graph.output.append(onnx.ValueInfoProto(name=output))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(whole.SerializeToString(), options)
        source = session.get_inputs()[0].name
        images = images if channels_last else images.transpose(0, 3, 1, 2)
        return np.stack([session.run(None, {source: image[None]})[0].ravel() for image in images])

    return run


def _load(path: Path) -> Any:
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except FileNotFoundError as error:
        missing = Path(error.filename or path)
        raise FacetpuError(f"{missing}: no such file; an .onnx model needs its weights beside it") from None
    except Exception as error:  # protobuf's DecodeError and onnx's ValidationError have no common root
        if type(error).__name__ not in ("DecodeError", "ValidationError"):
            raise
        reason = str(error).strip().splitlines()[0]
        raise FacetpuError(f"{path}: is no valid ONNX model: {reason}; export it again") from None
    return model


def _image_input(path: Path, graph: Any, size: int | None) -> tuple[str, int, bool]:
    """Name and side of the one image input, and whether its channels come last."""
    given = {tensor.name for tensor in graph.initializer}
    inputs = [entry for entry in graph.input if entry.name not in given]
    if len(inputs) != 1:
        names = ", ".join(entry.name for entry in inputs) or "none"
        raise FacetpuError(f"{path}: has the inputs {names}; a face embedder has one, the image")
    shape = [dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim]
    channels_last = len(shape) == 4 and shape[3] == 3 and shape[1] != 3
    sides = set(shape[1:3] if channels_last else shape[2:4])
    channels = shape[3] if channels_last else shape[1] if len(shape) == 4 else 0
    if inputs[0].type.tensor_type.elem_type != onnx.TensorProto.FLOAT or channels != 3 or len(sides) != 1:
        raise FacetpuError(f"{path}: its input {inputs[0].name} is {shape}, no float image [1, 3, S, S]")
    side = sides.pop()
    if not side and size is None:
        raise FacetpuError(f"{path}: its input {inputs[0].name} has no fixed size; give it with --size")
    if side and size not in (None, side):
        raise FacetpuError(f"{path}: takes {side} px; --size {size} does not fit it")
    return inputs[0].name, side or int(size or 0), channels_last


def _output(path: Path, graph: Any, makers: dict[str, Any], wanted: str | None) -> str:
    """The name of the tensor that is the embedding, or its L2 norm."""
    if wanted is not None:
        if wanted not in makers:
            raise FacetpuError(f"{path}: has no tensor {wanted}; give the name of one with --output")
        return wanted
    names = [entry.name for entry in graph.output]
    if len(names) != 1:
        raise FacetpuError(f"{path}: has the outputs {', '.join(names)}; name the embedding with --output")
    return names[0]


def _before_norm(name: str, makers: dict[str, Any]) -> str:
    """The tensor that the L2 norm which gives ``name`` is of; ``name`` itself where there is none."""
    node = makers.get(name)
    if node is None:
        return name
    if node.op_type in ("Identity", "Dropout"):
        return _before_norm(node.input[0], makers)
    if node.op_type == "LpNormalization":
        order = next((attribute.i for attribute in node.attribute if attribute.name == "p"), 2)
        return str(node.input[0]) if order == 2 else name
    if node.op_type == "Div" and _is_length_of(node.input[1], node.input[0], makers):
        return str(node.input[0])
    return name


def _is_length_of(name: str, vector: str, makers: dict[str, Any]) -> bool:
    """Whether ``name`` is the length of ``vector``, its guard against zero included."""
    ops: set[str] = set()
    left = [name]
    while left:
        node = makers.get(left.pop())
        if node is None or node.op_type == "Constant":
            continue
        ops.add(node.op_type)
        left += [taken for taken in node.input if taken and taken != vector]
    squares = "ReduceL2" in ops or ("Sqrt" in ops and ops & {"ReduceSum", "ReduceSumSquare"})
    guards = {"Clip", "Max", "Add", "Expand", "Shape", "Unsqueeze", "Identity", "ConstantOfShape"}
    return bool(squares) and ops <= guards | {
        "ReduceL2", "ReduceSum", "ReduceSumSquare", "Sqrt", "Pow", "Mul", "Abs"
    }  # fmt: skip


def _ancestors(name: str, makers: dict[str, Any]) -> set[str]:
    """Every tensor that ``name`` is computed from, itself included."""
    found: set[str] = set()
    left = [name]
    while left:
        at = left.pop()
        if at in found or at not in makers:
            continue
        found.add(at)
        left += list(makers[at].input)
    return found
