"""A frozen graph as TensorFlow Lite models: full-integer, as the Edge TPU needs it, and float."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..edgetpu.support import require_readable
from ..errors import FacetpuError
from ..nets.graph import Frozen
from ..nets.rounded import is_rounded, with_rounded_pixels, without_rounding
from ..nets.scaling import EMBEDDING, INPUT, Scaled, without_scaling
from ..nets.tensorflow import ConverterError, quiet, tf, v1
from ..tflite.head import base_output
from ..tflite.model import op_name, quantization, read_model, type_name
from .ranges import measured

log = logging.getLogger(__name__)


class Converted(NamedTuple):
    """An embedder in integers, and what it is to be compared with."""

    base: bytes  # uint8 [1, S, S, 3] -> uint8 [1, 1, 1, D]
    base_float: bytes  # float32, pixels of 0 to 255 too
    twin: bytes  # float32, with the tensors of the base; its input is ``scale * (pixel - mean)``
    scale: float
    mean: float


def convert(embedder: Frozen, crops: np.ndarray, clip: float | None = None) -> Converted:
    """Quantise ``embedder``, with the ranges of its training or else those of its activations on ``crops``.

    Args:
        embedder: the graph.
        crops: uint8 ``[n, S, S, 3]``, RGB; of no meaning for a graph that was trained with rounding.
        clip: the percentage of each activation's numbers that its range must hold; None for all.

    Raises:
        FacetpuError: the converter cannot convert it, or left something that is not integer or that the
            Edge TPU compiler cannot read.
    """
    side = embedder.image_size
    scaled = without_scaling(embedder.graph, side)
    if is_rounded(embedder.graph):
        graph = with_rounded_pixels(scaled, side)
        twin, base = run_converter(converter(without_rounding(graph), side)), _trained_integers(graph)
    else:
        twin, base = integer_model(scaled, side, crops, clip, [EMBEDDING], tf.uint8)
    _check(base, scaled)
    base_float = run_converter(converter(without_rounding(embedder.graph), side))
    return Converted(base, base_float, twin, scaled.scale, scaled.mean)


def integer_model(
    scaled: Scaled, side: int, crops: np.ndarray, clip: float | None, outputs: Sequence[str], output_type: Any
) -> tuple[bytes, bytes]:
    """A graph as a float model with the ranges on ``crops``, and as the integer model that these give.

    Args:
        scaled: the graph and its scaling.
        side: of its image.
        crops: uint8 ``[n, S, S, 3]``, RGB.
        clip: the percentage of each activation's numbers that its range must hold; None for all.
        outputs: the nodes that the model is to give.
        output_type: ``tf.uint8``, or ``tf.float32`` to have them as real numbers; the image is uint8.
    """
    from tensorflow.lite.python.convert import mlir_quantize
    from tensorflow.lite.python.util import modify_model_io_type

    def images() -> Iterator[np.ndarray]:
        for index, crop in enumerate(crops):
            pixels = crop.astype(np.float32)
            if index == 0:
                # The darkest and the brightest pixel there are: they make a stored input equal its pixel.
                pixels[0, 0], pixels[0, 1] = 0, 255
            yield (pixels[None] - np.float32(scaled.mean)) * np.float32(scaled.scale)

    def quantized() -> bytes:
        # A scale for each row of a dense layer is more than runtimes before 2.10 understand: they return
        # garbage.
        integer = mlir_quantize(calibrated, disable_per_channel_for_dense_layers=True)
        return bytes(modify_model_io_type(integer, tf.uint8, output_type))

    log.info("calibrating on %d crops", len(crops))
    calibrated = measured(_prepared(scaled.graph, side, images, outputs), images, clip)
    return calibrated, _told(quantized)


def _trained_integers(graph: Any) -> bytes:
    """A graph that was trained with rounding as the integer model that it was trained to be."""
    function = v1.wrap_function(lambda: tf.import_graph_def(graph, name=""), [])
    # The converter of TensorFlow 1 takes no rounded graph without calibrating it.
    converting = tf.lite.TFLiteConverter.from_concrete_functions(
        [function.prune(f"{INPUT}:0", f"{EMBEDDING}:0")]
    )
    converting.optimizations = [tf.lite.Optimize.DEFAULT]
    converting.inference_input_type = converting.inference_output_type = tf.uint8
    converting._experimental_disable_per_channel_quantization_for_dense_layers = True
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Statistics for quantized inputs")  # a node has them
        return run_converter(converting)


def converter(graph: Any, side: int, outputs: Sequence[str] = (EMBEDDING,)) -> Any:
    """A TFLite converter of a GraphDef from ``input`` to ``outputs``."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.pb"
        path.write_bytes(graph.SerializeToString())
        shapes = {INPUT: [1, side, side, 3]}
        return v1.lite.TFLiteConverter.from_frozen_graph(str(path), [INPUT], list(outputs), shapes)


def run_converter(converting: Any) -> bytes:
    """The model that a converter makes.

    Raises:
        FacetpuError: it cannot.
    """
    return _told(lambda: bytes(converting.convert()))


def _prepared(
    graph: Any, side: int, images: Callable[[], Iterator[np.ndarray]], outputs: Sequence[str]
) -> bytes:
    """The graph as a float model of the ops that will be quantised, with a place for each range."""
    preparing = converter(graph, side, outputs)
    preparing.optimizations = [tf.lite.Optimize.DEFAULT]
    preparing.representative_dataset = lambda: iter([[next(images())]])
    preparing.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    preparing._experimental_calibrate_only = True
    return run_converter(preparing)


def _told(step: Callable[[], bytes]) -> bytes:
    """What ``step`` gives, or its failure in one line."""
    with quiet():
        try:
            return step()
        except (ConverterError, RuntimeError, ValueError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    raise FacetpuError(f"the frozen graph: TensorFlow Lite cannot convert it: {reason}")


def _check(base: bytes, scaled: Scaled) -> None:
    """Hold the converter to what the Edge TPU and old runtimes need.

    Raises:
        FacetpuError: a tensor is not integer, the input or output has another form, a dense layer has
            several scales, the compiler cannot read an op, or a stored input is not its pixel.
    """
    where = "the quantised base"
    model = read_model(base, where)
    graph = model.subgraphs[0]
    for tensor in graph.tensors:
        if type_name(tensor) not in ("uint8", "int8", "int32"):
            raise FacetpuError(
                f"{where}: {tensor.name} is {type_name(tensor)}: the network has an op without integers"
            )
    for op in graph.operators:
        if op_name(model, op) == "FULLY_CONNECTED":
            weights = graph.tensors[op.inputs[1]]
            if len(weights.quantization.scale) != 1:
                raise FacetpuError(f"{where}: {weights.name} has several scales, which old runtimes misread")
    require_readable(model, where)
    base_output(base, where)
    _check_input(graph.tensors[graph.inputs[0]], scaled, where)


def _check_input(tensor: Any, scaled: Scaled, where: str) -> None:
    form = quantization(tensor)
    if type_name(tensor) != "uint8" or form is None:
        raise FacetpuError(f"{where}: its input {tensor.name} is {type_name(tensor)}, not uint8")
    stored = np.array([0, 255])
    seen = form.scale * (stored - form.zero_point) / scaled.scale + scaled.mean
    error = float(np.abs(seen - stored).max())
    if error > 1:
        raise FacetpuError(
            f"{where}: takes a pixel for one {error:.1f} levels off; its input range is unusual"
        )
    if error > 0.01:
        log.warning("%s: takes each pixel for one %.2f grey levels off", where, error)
