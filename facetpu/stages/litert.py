"""Frozen graph and head -> models for LiteRT elsewhere: phones, Raspberry Pis, browsers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..artefacts import read_manifest
from ..labels import read_labels
from ..nets.graph import read_graph
from ..nets.rounded import without_rounding
from ..nets.scaling import EMBEDDING, without_scaling
from ..nets.tensorflow import tf, v1
from ..quantization.calibration import read_sample
from ..quantization.convert import converter, integer_model, run_converter
from ..runtime import interpreter
from ..tflite.metadata import with_metadata
from ..tflite.model import quantization, read_model, tensor_data

PROBABILITY = "probability"
HELD_OUT = 100  # crops that each model is compared with the float one on


class TargetModel(NamedTuple):
    """A model for another target, and how near its embeddings come to the float32 model's."""

    file: str
    bytes: int
    cosine: float  # mean over the crops
    percentile: float  # of the worst hundredth of them

    def __str__(self) -> str:
        return (
            f"{self.file}: {self.bytes / 2**20:.1f} MiB, cosine to float {self.cosine:.4f}, "
            f"worst hundredth {self.percentile:.4f}"
        )


def write_litert(
    frozen: Path, head: Path, labels: Path, calibration: Path, out: Path, samples: int
) -> list[TargetModel]:
    """Write one model in four precisions, each with metadata and labels, and compare them.

    All take an aligned face, RGB of 0 to 255 (float32; uint8 the int8 model), and give the probability of
    each person (float32 ``[1, N]``) and the embedding (float32 ``[1, D]``, of any length).

    Args:
        frozen: a folder of ``facetpu freeze``.
        head: the head's .tflite, for the rows of its people.
        labels: who they are.
        calibration: crops or records; those behind the first ``samples`` are compared on.
        out: the folder to make.
        samples: how many crops to calibrate on.

    Raises:
        FacetpuError: the converter cannot convert the graph.
    """
    side = read_manifest(frozen)["image_size"]
    sample = read_sample(calibration, samples + HELD_OUT, side)
    graph, (kernel, factor) = without_rounding(read_graph(frozen / "frozen.pb")), _rows(head)
    scaled = without_scaling(graph, side)
    whole, inner = (_with_head(each, side, kernel, factor) for each in (graph, scaled.graph))
    makers: dict[str, Callable[[], bytes]] = {
        "float32": lambda: _float(whole, side),
        "float16": lambda: _float(whole, side, supported_types=[tf.float16]),
        "dynamic_range": lambda: _float(whole, side, supported_types=[]),
        "int8": lambda: integer_model(
            scaled._replace(graph=inner), side, sample.crops[:samples], None, _OUTPUTS, tf.float32
        )[1],
    }
    out.mkdir()
    people, models, exact = read_labels(labels), [], None
    held_out = sample.crops[samples:] if len(sample.crops) > samples else sample.crops
    for precision, make in makers.items():
        description = f"Face recogniser of {len(people)} people, {precision}, made by facetpu"
        data = with_metadata(make(), description, side, people)
        (out / f"{precision}.tflite").write_bytes(data)
        embeddings = _embeddings(data, held_out)
        exact = embeddings if exact is None else exact
        cosines = np.sum(exact * embeddings, axis=1)
        models.append(
            TargetModel(
                f"{out.name}/{precision}.tflite",
                len(data),
                round(float(cosines.mean()), 6),
                round(float(np.percentile(cosines, 1)), 6),
            )
        )
    return models


_OUTPUTS = [PROBABILITY, EMBEDDING]


def _rows(head: Path) -> tuple[np.ndarray, float]:
    """The unit rows of the head's people, and what it multiplies a cosine by."""
    model = read_model(head)
    tensors = {tensor.name: tensor for tensor in model.subgraphs[0].tensors}

    def real(name: str) -> np.ndarray:
        stored, form = tensor_data(model, tensors[name]), quantization(tensors[name])
        assert stored is not None
        assert form is not None
        return (stored.astype(np.float32) - form.zero_point) * np.float32(form.scale)

    rows = real("head/kernel").reshape(len(real("head/kernel")), -1)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit, float(real("head/scale_factor").ravel()[0])


def _with_head(graph: Any, side: int, kernel: np.ndarray, factor: float) -> Any:
    """``graph`` with a softmax over people behind it, and its embedding flat."""
    with tf.Graph().as_default() as whole:
        image = v1.placeholder(tf.float32, [1, side, side, 3], name="input")
        (embedding,) = tf.import_graph_def(graph, {"input": image}, [f"{EMBEDDING}:0"], name="net")
        flat = tf.reshape(embedding, [1, kernel.shape[1]])
        cosines = tf.matmul(tf.nn.l2_normalize(flat, 1), kernel.T.astype(np.float32))
        tf.nn.softmax(cosines * np.float32(factor), name=PROBABILITY)
        tf.identity(flat, name=EMBEDDING)
    return v1.graph_util.extract_sub_graph(whole.as_graph_def(), _OUTPUTS)


def _float(graph: Any, side: int, supported_types: list[Any] | None = None) -> bytes:
    """A model that computes in floats; given types, its weights are stored in them, or in none as int8."""
    converting = converter(graph, side, _OUTPUTS)
    if supported_types is not None:
        converting.optimizations = [tf.lite.Optimize.DEFAULT]
        converting.target_spec.supported_types = supported_types
    return run_converter(converting)


def _embeddings(model: bytes, crops: np.ndarray) -> np.ndarray:
    """The embeddings of ``crops``, of length 1."""
    runner = interpreter(model)
    runner.allocate_tensors()
    source = runner.get_input_details()[0]
    target = runner.get_output_details()[_OUTPUTS.index(EMBEDDING)]["index"]
    rows = []
    for crop in crops:
        runner.set_tensor(source["index"], crop[None].astype(source["dtype"]))
        runner.invoke()
        rows.append(runner.get_tensor(target).ravel().copy())
    embeddings = np.stack(rows).astype(np.float64)
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
