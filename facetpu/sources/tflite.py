"""Float embedders in .tflite, of weights in 32 or 16 bits: rebuilt op by op as a TensorFlow graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FacetpuError
from ..nets.scaling import INPUT
from ..nets.tensorflow import tf, v1
from ..runtime import interpreter
from ..tflite.cut import split_model
from ..tflite.edit import only_graph
from ..tflite.flatbuffer import Record
from ..tflite.model import NO_TENSOR, op_name, read_model, tensor_data, tensor_shape, type_name
from .graph import reading_of
from .reading import Reading, Settings
from .tflite_ops import Node, build_node


def read(path: Path, settings: Settings) -> Reading:
    """The embedder in the .tflite file ``path``, up to its L2 norm if it has one.

    Raises:
        FacetpuError: it is quantised already, no embedder, or has an op that is not known.
    """
    data, output = _embedding_part(path, settings.output)
    model = read_model(data, str(path))
    graph = only_graph(model, str(path))
    _check_float(path, model, graph)
    image = _image(path, graph, settings.size)
    side = tensor_shape(image)[1]
    with tf.Graph().as_default() as rebuilt:
        pixels = v1.placeholder(tf.float32, [1, side, side, 3], name=INPUT)
        tf.identity(_build(path, model, pixels), name="output")
    # An L2 norm may be spelled out in single ops; the graph's own cut finds it by its pattern.
    found = reading_of(
        rebuilt.as_graph_def(), str(path), settings._replace(size=None, output=None, input=None)
    )
    return found._replace(output=output, original=_runner(data))


def _embedding_part(path: Path, output: str | None) -> tuple[bytes, str]:
    """The model up to the tensor ``output``, or to its one L2 norm, and the name of what ends it."""
    model = read_model(path)
    graph, data = only_graph(model, str(path)), path.read_bytes()
    names = [graph.tensors[index].name for index in graph.outputs]
    norms = [op for op in graph.operators if op_name(model, op) == "L2_NORMALIZATION"]
    if output is None and not norms:
        if len(names) != 1:
            raise FacetpuError(
                f"{path}: has the outputs {', '.join(names)}; name the embedding with --output"
            )
        return data, names[0]
    if output is not None and names == [output] and not norms:
        return data, output
    if output is None and len(norms) == 1:
        output = graph.tensors[norms[0].inputs[0]].name
    return split_model(data, output, str(path))[0], str(output)


def _check_float(path: Path, model: Record, graph: Record) -> None:
    integers = [graph.tensors[index] for op in graph.operators for index in op.outputs]
    for tensor in integers:
        if type_name(tensor) in ("int8", "uint8", "int16"):
            raise FacetpuError(
                f"{path}: {tensor.name} is {type_name(tensor)}: the model is quantised already; export it "
                "from its float model, or cut it with facetpu split"
            )


def _image(path: Path, graph: Record, size: int | None) -> Record:
    inputs = [graph.tensors[index] for index in graph.inputs]
    shapes = [tensor_shape(tensor) for tensor in inputs]
    if len(inputs) != 1 or len(shapes[0]) != 4 or shapes[0][3] != 3 or shapes[0][1] != shapes[0][2]:
        found = ", ".join(f"{tensor.name} {list(tensor_shape(tensor))}" for tensor in inputs)
        raise FacetpuError(f"{path}: its input is {found or 'none'}, no image [1, S, S, 3]")
    if type_name(inputs[0]) != "float32":
        raise FacetpuError(f"{path}: its input is {type_name(inputs[0])}; give its float model")
    if size not in (None, shapes[0][1]):
        raise FacetpuError(f"{path}: takes {shapes[0][1]} px; --size {size} does not fit it")
    return inputs[0]


def _build(path: Path, model: Record, images: Any) -> Any:
    """The model's output in the TensorFlow graph at hand."""
    graph = model.subgraphs[0]
    values: dict[int, Any] = {NO_TENSOR: None, int(graph.inputs[0]): images}
    for index, tensor in enumerate(graph.tensors):
        constant = tensor_data(model, tensor)
        if constant is not None:
            values[index] = constant
    for number, op in enumerate(graph.operators):
        outputs = [graph.tensors[index] for index in op.outputs]
        node = Node(
            op_name(model, op), outputs[0].name, op.builtin_options, f"{path}: op {number}", len(outputs)
        )
        made = build_node(node, [values[int(index)] for index in op.inputs])
        values.update(zip((int(index) for index in op.outputs), made, strict=True))
    return values[int(graph.outputs[0])]


def _runner(data: bytes) -> Callable[[np.ndarray], np.ndarray]:
    """The model by the TFLite runtime."""

    def run(images: np.ndarray) -> np.ndarray:
        runner = interpreter(data)
        source = runner.get_input_details()[0]["index"]
        runner.resize_tensor_input(source, [1, *images.shape[1:]])
        runner.allocate_tensors()
        rows = []
        for image in images:
            runner.set_tensor(source, image[None])
            runner.invoke()
            rows.append(runner.get_tensor(runner.get_output_details()[0]["index"]).ravel())
        return np.stack(rows)

    return run
