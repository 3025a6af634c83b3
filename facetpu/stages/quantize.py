"""Frozen graph -> full-integer base, its float twin, the head, and what the integers cost."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..artefacts import check_new, digest, finished, new_folder, read_manifest, write_manifest, write_text
from ..board.embed import Embedder
from ..errors import FacetpuError
from ..labels import read_labels, write_labels
from ..nets.graph import Frozen, read_graph
from ..nets.rounded import is_rounded
from ..people import check_folder
from ..quantization.advice import remedies, warnings_of, weakness
from ..quantization.calibration import Sample, read_sample
from ..quantization.compare import compare
from ..quantization.convert import convert
from ..quantization.layers import layer_errors
from ..tflite.head import base_output, build_head

log = logging.getLogger(__name__)

DEFAULT_SCALE = 10.0  # of a head that was not trained
HELD_OUT = 200  # crops that float and int8 are compared on, where there are as many
LOOKED_INTO = 32  # of them, whose every layer is compared
WORST = 3  # layers that are named in text
REPORT = "quantization.json"


class QuantizeResult(NamedTuple):
    """Where the models are, and how near the integers come to the floats."""

    out: Path
    people: int
    calibrated_on: int  # crops; none where the ranges were learnt in training
    compared_on: int  # crops
    held_out: bool  # they were not calibrated on; else there were no others
    cosine: float  # mean over the crops of that of the float and the int8 embedding
    percentile: float  # that of the worst hundredth of the crops
    lowest_cosine: float
    correlation: float  # of all their numbers before the L2 norm
    auc_float: float | None  # of all pairs of those crops; None where nobody has two
    auc: float | None
    warnings: list[str]  # of the calibration set, and of an embedder that does not know its people
    worst_layers: list[str]
    remedies: list[str]

    def __str__(self) -> str:
        compared = f"{self.compared_on} {'others' if self.held_out else 'of them'}"
        ranges = f"calibrated on {self.calibrated_on} crops"
        if not self.calibrated_on:
            ranges, compared = "ranges learnt in training", f"{self.compared_on} crops"
        lines = [
            f"{self.out}: {ranges}; int8 against float on {compared}: "
            f"cosine {self.cosine:.4f} (worst hundredth {self.percentile:.4f}, lowest "
            f"{self.lowest_cosine:.4f}), correlation {self.correlation:.4f}"
        ]
        if self.auc is not None:
            lines.append(
                f"  telling their people apart, AUC: float {self.auc_float:.4f}, int8 {self.auc:.4f}"
            )
        if self.worst_layers:
            lines.append(f"  layers that lose most: {'; '.join(self.worst_layers)}")
        lines += [f"  to come nearer: {remedy}" for remedy in self.remedies]
        return "\n".join(lines)


def quantize(
    frozen: Path,
    out: Path,
    calibration: Path,
    samples: int = 200,
    clip: float | None = None,
    overwrite: bool = False,
) -> QuantizeResult:
    """Quantise ``frozen`` to integers throughout, as the Edge TPU needs it.

    A graph that was trained with rounding gets the ranges that it was trained with; the crops then serve
    to compare integers and floats.

    A graph without a head of its own, as a third party's, gets one that tells the calibration's
    people apart: a row is the mean embedding of one.

    Args:
        frozen: a folder of ``facetpu freeze``, or the ``frozen.pb`` in it.
        out: the folder to write: ``base.tflite`` (uint8 ``[1, S, S, 3]`` -> uint8 ``[1, 1, 1, D]``),
            ``base_float.tflite``, ``head.tflite``, ``labels.txt``, ``quantization.json`` (the comparison of
            integers and floats, crop by crop and layer by layer), ``manifest.json``.
        calibration: a folder of crops or of records.
        samples: how many crops to calibrate on.
        clip: the percentage of each activation's numbers that its range must hold; all unless given.
        overwrite: replace ``out``.

    Raises:
        FacetpuError: ``frozen`` is no such folder, the crops do not fit it, ``clip`` is given where the
            ranges were learnt, or the converter left something that is not integer or that the Edge TPU
            compiler cannot read.
    """
    frozen, out, calibration = Path(frozen), Path(out), Path(calibration)
    if frozen.is_file() and read_manifest(frozen.parent).get("stage") == "freeze":
        frozen = frozen.parent
    check_folder(calibration)
    config = {"samples": samples, "clip": clip}
    inputs = frozen_digests(frozen)
    inputs["calibration"] = digest(calibration, times=not read_manifest(calibration))
    done = finished(out, "quantize", config, inputs)
    if done:
        log.info("%s: is up to date", out)
        return _result(out, done)
    check_new(out, overwrite)

    embedder, labels, alignment = _read_frozen(frozen)
    learnt = is_rounded(embedder.graph)
    if learnt and clip is not None:
        raise FacetpuError(f"{frozen}: was trained with rounding and has its ranges; leave out --clip")
    sample = read_sample(calibration, samples + HELD_OUT, embedder.image_size)
    alignment = _same_alignment(alignment, sample, calibration)
    warnings = [] if learnt else warnings_of(sample, samples, aligned=sample.alignment is not None)
    for warning in warnings:
        log.warning("%s: %s", calibration, warning)
    converted = convert(embedder, sample.crops[:samples], clip)
    held_out = slice(samples, None) if len(sample.crops) > samples else slice(None)
    with new_folder(out, overwrite) as folder:
        (folder / "base.tflite").write_bytes(converted.base)
        (folder / "base_float.tflite").write_bytes(converted.base_float)
        comparison = compare(
            folder / "base_float.tflite",
            folder / "base.tflite",
            sample.crops[held_out],
            sample.people[held_out],
        )
        for warning in weakness(comparison, foreign=embedder.kernel is None):
            log.warning("%s: %s", calibration, warning)
            warnings.append(warning)
        layers = layer_errors(converted, sample.crops[held_out][:LOOKED_INTO])
        report = {**comparison._asdict(), "layers": [layer._asdict() for layer in layers]}
        write_text(folder / REPORT, json.dumps(report, indent=1) + "\n")
        kernel = embedder.kernel
        if kernel is None:
            labels, kernel = _mean_embeddings(folder, sample)
        form = base_output(converted.base)
        head = build_head(kernel, embedder.scale or DEFAULT_SCALE, form.scale, form.zero_point, form.name)
        (folder / "head.tflite").write_bytes(head)
        write_labels(folder / "labels.txt", labels)
        trainable = read_manifest(frozen).get("quantizable", False)
        calibrated_on = 0 if learnt else min(samples, len(sample.crops))
        write_manifest(
            folder,
            "quantize",
            config,
            inputs,
            alignment=alignment,
            embedding_dim=embedder.embedding_dim,
            people=len(labels),
            calibrated_on=calibrated_on,
            held_out=learnt or len(sample.crops) > samples,
            warnings=warnings,
            worst_layers=[str(layer) for layer in sorted(layers, key=lambda layer: -layer.added)[:WORST]],
            remedies=remedies(comparison, calibrated_on, clip, trainable),
            **{key: value for key, value in comparison._asdict().items() if key in QuantizeResult._fields},
        )
    return _result(out, read_manifest(out))


def frozen_digests(frozen: Path) -> dict[str, str]:
    """What the outcome depends on in ``frozen``.

    Raises:
        FacetpuError: it is no folder of ``facetpu freeze``.
    """
    if read_manifest(frozen).get("stage") != "freeze":
        raise FacetpuError(
            f"{frozen}: is no folder of facetpu freeze; make one with it, from a run or another maker's model"
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


def _mean_embeddings(folder: Path, sample: Sample) -> tuple[list[str], np.ndarray]:
    """The sample's people, and the kernel of a head that tells them apart by their mean embeddings."""
    embeddings = Embedder(folder / "base.tflite").embed(sample.crops)
    present = sorted(set(sample.people.tolist()))
    sums = np.stack([embeddings[sample.people == person].sum(axis=0) for person in present])
    kernel = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    return [sample.names[person] for person in present], kernel


def _result(out: Path, manifest: dict[str, Any]) -> QuantizeResult:
    return QuantizeResult(out, *(manifest[field] for field in QuantizeResult._fields[1:]))
