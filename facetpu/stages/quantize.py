"""Frozen graph -> full-integer base, its float twin, and the head."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..artefacts import check_new, digest, finished, new_folder, read_manifest, write_manifest
from ..board.embed import Embedder
from ..calibration import Sample, read_sample
from ..edgetpu.support import require_readable
from ..errors import FacetpuError
from ..labels import read_labels, write_labels
from ..nets.graph import Frozen, read_graph
from ..nets.scaling import EMBEDDING, INPUT, without_scaling
from ..nets.tensorflow import ConverterError, quiet, tf, v1
from ..people import check_folder
from ..tflite.head import base_output, build_head
from ..tflite.model import op_name, quantization, read_model, type_name

log = logging.getLogger(__name__)

FEW_CROPS = 50  # below that the ranges of the activations are guesses
DEFAULT_SCALE = 10.0  # of a head that was not trained
HELD_OUT = 200  # crops that float and int8 are compared on, where there are as many


class QuantizeResult(NamedTuple):
    """Where the models are, and how near the integers come to the floats."""

    out: Path
    people: int
    calibrated_on: int
    compared_on: int  # crops that were not calibrated on, where there were any
    cosine: float  # mean over the crops of that of the float and the int8 embedding
    lowest_cosine: float
    correlation: float  # of all their numbers before the L2 norm

    def __str__(self) -> str:
        return (
            f"{self.out}: calibrated on {self.calibrated_on} crops; int8 against float on "
            f"{self.compared_on} others: cosine {self.cosine:.4f} (lowest {self.lowest_cosine:.4f}), "
            f"correlation {self.correlation:.4f}"
        )


def quantize(
    frozen: Path, out: Path, calibration: Path, samples: int = 200, overwrite: bool = False
) -> QuantizeResult:
    """Quantise ``frozen`` to integers throughout, as the Edge TPU needs it.

    A graph without a head of its own, as a third party's, gets one that tells the calibration's
    people apart: a row is the mean embedding of one.

    Args:
        frozen: a folder of ``facetpu freeze``, or the ``frozen.pb`` in it.
        out: the folder to write: ``base.tflite`` (uint8 ``[1, S, S, 3]`` -> uint8 ``[1, 1, 1, D]``),
            ``base_float.tflite``, ``head.tflite``, ``labels.txt``, ``manifest.json``.
        calibration: a folder of crops or of records.
        samples: how many crops to calibrate on.
        overwrite: replace ``out``.

    Raises:
        FacetpuError: ``frozen`` is no such graph, the crops do not fit it, or the converter left
            something that is not integer or that the Edge TPU compiler cannot read.
    """
    frozen, out, calibration = Path(frozen), Path(out), Path(calibration)
    if frozen.is_file() and read_manifest(frozen.parent).get("stage") == "freeze":
        frozen = frozen.parent
    check_folder(calibration)
    inputs = frozen_digests(frozen)
    inputs["calibration"] = digest(calibration, times=not read_manifest(calibration))
    done = finished(out, "quantize", {"samples": samples}, inputs)
    if done:
        log.info("%s: is up to date", out)
        return _result(out, done)
    check_new(out, overwrite)

    embedder, labels, alignment = _read_frozen(frozen)
    sample = read_sample(calibration, samples + HELD_OUT, embedder.image_size)
    alignment = _same_alignment(alignment, sample, calibration)
    if len(sample.crops) < FEW_CROPS:
        log.warning(
            "%s: has %d crops, and %d or more make sure of the ranges; the base may be less exact",
            calibration,
            len(sample.crops),
            FEW_CROPS,
        )
    base, base_float = _convert(embedder, sample.crops[:samples])
    _check_base(base, embedder)
    with new_folder(out, overwrite) as folder:
        (folder / "base.tflite").write_bytes(base)
        (folder / "base_float.tflite").write_bytes(base_float)
        held_out = sample.crops[samples:] if len(sample.crops) > samples else sample.crops
        results = _compare(folder, held_out)
        if embedder.kernel is None:
            labels, kernel = _mean_embeddings(folder, sample)
        else:
            kernel = embedder.kernel
        form = base_output(base)
        head = build_head(kernel, embedder.scale or DEFAULT_SCALE, form.scale, form.zero_point, form.name)
        (folder / "head.tflite").write_bytes(head)
        write_labels(folder / "labels.txt", labels)
        write_manifest(
            folder,
            "quantize",
            {"samples": samples},
            inputs,
            alignment=alignment,
            embedding_dim=embedder.embedding_dim,
            people=len(labels),
            calibrated_on=min(samples, len(sample.crops)),
            **results,
        )
    return _result(out, read_manifest(out))


def frozen_digests(frozen: Path) -> dict[str, str]:
    """What the outcome depends on in ``frozen``.

    Raises:
        FacetpuError: it is no folder of ``facetpu freeze``.
    """
    if read_manifest(frozen).get("stage") != "freeze":
        raise FacetpuError(
            f"{frozen}: is no folder of facetpu freeze; make one with it, from a run or from another maker's model"
        )
    files = {"graph": "frozen.pb", "head": "head.npz"}
    return {key: digest(frozen / name) for key, name in files.items() if (frozen / name).is_file()}


def _read_frozen(frozen: Path) -> tuple[Frozen, list[str], dict[str, Any] | None]:
    """The graph and its head, the names of the head's people, and how the network's crops were aligned."""
    manifest = read_manifest(frozen)
    graph = read_graph(frozen / "frozen.pb")
    embedder = Frozen(graph, manifest["image_size"], manifest["embedding_dim"], None, None)
    if not (frozen / "head.npz").is_file():
        return embedder, [], manifest["alignment"]
    with np.load(frozen / "head.npz") as head:
        embedder = embedder._replace(kernel=head["kernel"], scale=float(head["scale"]))
    return embedder, read_labels(frozen / "labels.txt"), manifest["alignment"]


def _same_alignment(trained: dict[str, Any] | None, sample: Sample, calibration: Path) -> dict[str, Any]:
    """The alignment of the network, which the calibration's must equal where both are known."""
    given = sample.alignment
    if trained is None:
        return given or {"template": "arcface", "size": sample.crops.shape[1], "margin": 44}
    if given is not None and given["template"] != trained["template"]:
        raise FacetpuError(
            f"{calibration}: is aligned with --template {given['template']} and the network was trained "
            f"with {trained['template']}; give crops aligned like those"
        )
    return trained


def _convert(embedder: Frozen, crops: np.ndarray) -> tuple[bytes, bytes]:
    """The graph as a full-integer and as a float model; the float one takes pixels of 0 to 255 too."""
    side = embedder.image_size
    graph, scale, mean = without_scaling(embedder.graph, side)

    def representative() -> Iterator[list[np.ndarray]]:
        for index, crop in enumerate(crops):
            pixels = crop.astype(np.float32)
            if index == 0:
                # The darkest and the brightest pixel there are: they make a stored input equal its pixel.
                pixels[0, 0], pixels[0, 1] = 0, 255
            yield [(pixels[None] - np.float32(mean)) * np.float32(scale)]

    converter = _converter(graph, side)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.uint8
    # A scale for each row of a dense layer is more than runtimes before 2.10 understand: they return garbage.
    converter._experimental_disable_per_channel_quantization_for_dense_layers = True
    log.info("calibrating on %d crops", len(crops))
    return _run(converter), _run(_converter(embedder.graph, side))


def _converter(graph: Any, side: int) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.pb"
        path.write_bytes(graph.SerializeToString())
        shapes = {INPUT: [1, side, side, 3]}
        return v1.lite.TFLiteConverter.from_frozen_graph(str(path), [INPUT], [EMBEDDING], shapes)


def _run(converter: Any) -> bytes:
    with quiet():
        try:
            return bytes(converter.convert())
        except (ConverterError, RuntimeError, ValueError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    raise FacetpuError(f"the frozen graph: TensorFlow Lite cannot convert it: {reason}")


def _check_base(base: bytes, embedder: Frozen) -> None:
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
    _check_input(graph.tensors[graph.inputs[0]], embedder, where)


def _check_input(tensor: Any, embedder: Frozen, where: str) -> None:
    _, scale, mean = without_scaling(embedder.graph, embedder.image_size)
    form = quantization(tensor)
    if type_name(tensor) != "uint8" or form is None:
        raise FacetpuError(f"{where}: its input {tensor.name} is {type_name(tensor)}, not uint8")
    stored = np.array([0, 255])
    seen = form.scale * (stored - form.zero_point) / scale + mean
    error = float(np.abs(seen - stored).max())
    if error > 1:
        raise FacetpuError(
            f"{where}: takes a pixel for one {error:.1f} levels off; its input range is unusual"
        )
    if error > 0.01:
        log.warning("%s: takes each pixel for one %.2f grey levels off", where, error)


def _compare(folder: Path, crops: np.ndarray) -> dict[str, Any]:
    """How near the integer base in ``folder`` comes to the float one on ``crops``."""
    models = [Embedder(folder / name) for name in ("base_float.tflite", "base.tflite")]
    rows = [(model.run(crops).astype(np.float64) - model.zero_point) * model.scale for model in models]
    unit = [row / np.linalg.norm(row, axis=1, keepdims=True) for row in rows]
    cosines = np.sum(unit[0] * unit[1], axis=1)
    return {
        "compared_on": len(crops),
        "cosine": round(float(cosines.mean()), 6),
        "lowest_cosine": round(float(cosines.min()), 6),
        "correlation": round(float(np.corrcoef(rows[0].ravel(), rows[1].ravel())[0, 1]), 6),
    }


def _mean_embeddings(folder: Path, sample: Sample) -> tuple[list[str], np.ndarray]:
    """The sample's people, and the kernel of a head that tells them apart by their mean embeddings."""
    embeddings = Embedder(folder / "base.tflite").embed(sample.crops)
    present = sorted(set(sample.people.tolist()))
    sums = np.stack([embeddings[sample.people == person].sum(axis=0) for person in present])
    kernel = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    return [sample.names[person] for person in present], kernel


def _result(out: Path, manifest: dict[str, Any]) -> QuantizeResult:
    fields = ("people", "calibrated_on", "compared_on", "cosine", "lowest_cosine", "correlation")
    return QuantizeResult(out, *(manifest[field] for field in fields))
