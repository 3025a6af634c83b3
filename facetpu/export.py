"""A run, or any other face embedder -> the folder that a board needs: models, detector, thresholds."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .artefacts import (
    check_new,
    digest,
    finished,
    new_folder,
    read_manifest,
    write_bytes,
    write_manifest,
    write_text,
)
from .board.embed import Embedder
from .board.folder import LITERT, WEB
from .board.threshold import Cohort, write_cohort
from .edgetpu.imprinting import imprinting_problem
from .edgetpu.support import check
from .errors import FacetpuError
from .labels import read_labels
from .metrics import threshold_at_far
from .mtcnn.weights import write_networks
from .ondevice.bundle import CODE, write_device_bundle
from .people import check_folder
from .quantization.calibration import read_sample
from .quantization.page import write_export_page
from .sources.reading import Settings
from .stages.compile import compile_models
from .stages.freeze import freeze, source_digests
from .stages.litert import TargetModel, write_litert
from .stages.quantize import REPORT as DETAILS
from .stages.quantize import frozen_digests, quantize
from .tflite.concat import join_models
from .tflite.model import read_model
from .web.bundle import write_bundle

log = logging.getLogger(__name__)

REPORT, PAGE = "report.json", "report.html"
COHORT = 1000  # crops at most, whose embeddings go along as other people's faces
FALSE_ACCEPTS = 0.01  # share of pairs of different people that the 1:1 threshold lets through


class ExportResult(NamedTuple):
    """What the folder holds, and how good it is."""

    out: Path
    image_size: int
    embedding_dim: int
    people: int
    normalisation: str  # what the network is given
    cosine: float  # of the integer and the float embeddings: mean over the crops
    percentile: float  # and of the worst hundredth of them
    auc_float: float | None  # of telling their people apart; None where nobody has two crops
    auc: float | None
    warnings: list[str]  # of the calibration set, and of an embedder that does not know its people
    worst_layers: list[str]
    remedies: list[str]
    threshold: float  # 1:1 cosine
    tpu_ops: int  # of the base, as foretold, or as compiled
    cpu_ops: int
    compiled: bool
    targets: list[TargetModel]  # the files for other runtimes than the Edge TPU's
    web: Path | None  # the folder for browsers
    devices: list[Path]  # and those for phones and for a Raspberry Pi without facetpu

    def __str__(self) -> str:
        state = "compiled for the Edge TPU" if self.compiled else "not compiled; --edgetpu does that"
        lines = [
            f"{self.out}: {self.image_size} px -> embedding of {self.embedding_dim}, {self.people} people, "
            f"threshold {self.threshold:.3f}",
            f"  the network is given {self.normalisation}",
            f"  base: {self.tpu_ops} ops for the Edge TPU, {self.cpu_ops} for the CPU; {state}",
            f"  int8 against float: cosine {self.cosine:.4f}, worst hundredth {self.percentile:.4f}",
        ]
        if self.auc is not None:
            lines[-1] += f"; people told apart, AUC {self.auc_float:.4f} in float, {self.auc:.4f} in int8"
        lines.append(f"  layers that lose most: {'; '.join(self.worst_layers)}")
        lines += [f"  to come nearer: {remedy}" for remedy in self.remedies]
        lines += [f"  {target}" for target in self.targets]
        if self.web:
            lines.append(
                f"  {self.web}: for any web server; here: "
                f"python3 -m http.server --bind 127.0.0.1 -d {self.web}"
            )
        lines += [f"  {folder}: {CODE[folder.name].name} in it says how to use it" for folder in self.devices]
        return "\n".join([*lines, f"  {self.out / PAGE} shows it"])


def export(
    source: Path,
    out: Path,
    edgetpu: bool = False,
    calibration: Path | None = None,
    samples: int = 200,
    clip: float | None = None,
    compiler: str | None = None,
    settings: Settings | None = None,
    targets: Collection[str] = (),
    litert_js: Path | None = None,
    overwrite: bool = False,
) -> ExportResult:
    """Turn ``source`` into all that a board needs: freeze, quantise, write the head, join, compile.

    Args:
        source: a folder of ``facetpu train`` or ``freeze``, or another maker's model, see ``freeze``.
        out: the folder to write.
        edgetpu: compile the base for the Edge TPU too; without the compiler all else is made first.
        calibration: a folder of crops or of records; the run's own records unless given.
        samples: how many crops to calibrate on.
        clip: the percentage of each activation's numbers that its range must hold; all unless given.
        compiler: the ``edgetpu_compiler`` to call; found on PATH unless given.
        settings: how to read another maker's model.
        targets: with ``litert`` write ``litert/*.tflite`` for phones and other boards too, with ``web`` a
            folder for browsers, with ``android``, ``ios`` or ``pi`` one with code for that device.
        litert_js: for ``web``: a node_modules with LiteRT.js in it; fetched by npm unless given.
        overwrite: replace ``out``.

    Raises:
        FacetpuError: ``source`` cannot be exported, the crops do not fit it, or with ``edgetpu`` there
            is no compiler or it failed.
    """
    source, out, settings = Path(source), Path(out), settings or Settings()
    inputs = frozen_digests(source) if _is_frozen(source) else source_digests(source, settings)
    calibration = _calibration(source, calibration)
    inputs["calibration"] = digest(calibration, times=not read_manifest(calibration))
    litert = LITERT in targets
    config = {"samples": samples, "clip": clip, "litert": litert, **settings._replace(config=None)._asdict()}
    if finished(out, "export", config, inputs):
        log.info("%s: is up to date", out)
    else:
        check_new(out, overwrite)
        with new_folder(out, overwrite) as folder:
            made = _make(source, folder, calibration, settings, samples, clip, litert)
            write_manifest(folder, "export", config, inputs, **made)
    if edgetpu and "compiled" not in read_manifest(out):
        _compile(out, compiler)
    if WEB in targets:
        write_bundle(out, out / WEB, litert_js, overwrite=overwrite)
    for target in CODE:
        if target in targets:
            write_device_bundle(out, target, out / target, overwrite)
    return _result(out)


def _is_frozen(source: Path) -> bool:
    return read_manifest(source).get("stage") == "freeze"


def _calibration(source: Path, given: Path | None) -> Path:
    """The folder of crops or records to calibrate on."""
    if given is not None:
        check_folder(given)
        return Path(given)
    records = read_manifest(source).get("records")
    if records is None:
        raise FacetpuError(
            f"{source}: does not say what it was trained on; give crops of facetpu align with --calibration"
        )
    folder = Path(os.path.normpath(source.resolve() / records))
    if not folder.is_dir():
        raise FacetpuError(f"{folder}: the records of {source} are gone; give crops with --calibration")
    return folder


def _make(
    source: Path,
    folder: Path,
    calibration: Path,
    settings: Settings,
    samples: int,
    clip: float | None,
    litert: bool,
) -> dict[str, Any]:
    """Fill ``folder`` with all but the compiled models; returns what its manifest says."""
    steps = folder / ".steps"
    steps.mkdir()
    frozen, stages = source, {}
    if not _is_frozen(source):
        frozen = steps / "frozen"
        stages["freeze"] = _figures(freeze(source, frozen, settings))
    quantized = steps / "quantized"
    stages["quantize"] = _figures(quantize(frozen, quantized, calibration, samples, clip))
    made = read_manifest(quantized)
    details = json.loads((quantized / DETAILS).read_text(encoding="utf-8"))
    for name in ("base.tflite", "base_float.tflite", "head.tflite", "labels.txt"):
        os.replace(quantized / name, folder / name)
    targets = []
    if litert:
        targets = write_litert(
            frozen, folder / "head.tflite", folder / "labels.txt", calibration, folder / LITERT, samples
        )
    normalisation = read_manifest(frozen)["normalisation"]
    shutil.rmtree(steps)

    _join(folder / "base.tflite", folder / "head.tflite", folder / "model.tflite")
    (folder / "detector").mkdir()
    write_networks(folder / "detector")
    embedder = Embedder(folder / "base.tflite")
    threshold = _write_cohort(
        folder / "cohort.npz", embedder, calibration, read_labels(folder / "labels.txt")
    )
    ops = check(read_model(folder / "base.tflite"))
    on_tpu = sum(op.target == "TPU" for op in ops)
    quality = ("cosine", "percentile", "auc_float", "auc", "warnings", "worst_layers", "remedies")
    made = {
        "alignment": made["alignment"],
        "image_size": embedder.size,
        "embedding_dim": embedder.dim,
        "people": made["people"],
        "normalisation": normalisation,
        **{name: made[name] for name in quality},
        "threshold": threshold,
        "tpu_ops": on_tpu,
        "cpu_ops": len(ops) - on_tpu,
        "targets": [each._asdict() for each in targets],
    }
    report = {
        "source": source.name,
        "stages": stages,
        "figures": made,
        "ops": [op._asdict() for op in ops],
        "layers": details["layers"],
        "cosines": details["cosines"],
    }
    _write_report(folder, report)
    return made


def _join(base: Path, head: Path, out: Path) -> None:
    """Write ``base`` and ``head`` as the one model ``out``, which must be fit for imprinting."""
    joined = join_models(base.read_bytes(), head.read_bytes(), base_name=str(base), head_name=str(head))
    problem = imprinting_problem(read_model(joined, str(out)))
    if problem:
        raise FacetpuError(f"{out}: Coral's imprinting engine would refuse it: {problem}")
    write_bytes(out, joined, overwrite=True)


def _write_cohort(path: Path, embedder: Embedder, calibration: Path, labels: list[str]) -> float:
    """Write the embeddings of other people's faces; returns the 1:1 threshold that they give.

    Its people are numbered as in ``labels``, and those who are not there behind them, so that somebody who
    is enrolled later is known to be one of them.
    """
    sample = read_sample(calibration, COHORT, embedder.size)
    embeddings = embedder.embed(sample.crops)
    numbers = {name: number for number, name in enumerate(labels)}
    number_of = np.array([numbers.setdefault(name, len(numbers)) for name in sample.names], np.int32)
    write_cohort(path, Cohort(embeddings, number_of[sample.people]))
    different = np.triu(sample.people[:, None] != sample.people)
    return threshold_at_far((embeddings @ embeddings.T)[different], FALSE_ACCEPTS)


def _compile(out: Path, compiler: str | None) -> None:
    """Add the models for the Edge TPU to the finished folder ``out``.

    Raises:
        FacetpuError: there is no compiler, or it failed; ``out`` stays as it is.
    """
    with tempfile.TemporaryDirectory() as work:
        try:
            result = compile_models([out / "base.tflite"], Path(work) / "compiled", compiler=compiler)
        except FacetpuError as error:
            raise FacetpuError(
                f"{error}; {out} has all else: once base_edgetpu.tflite is there, run facetpu join "
                "base_edgetpu.tflite head.tflite model_edgetpu.tflite in it"
            ) from None
        (model,) = result.models
        write_bytes(out / "base_edgetpu.tflite", model.model.read_bytes(), overwrite=True)
    _join(out / "base_edgetpu.tflite", out / "head.tflite", out / "model_edgetpu.tflite")
    report = json.loads((out / REPORT).read_text(encoding="utf-8"))
    compiled = {"compiler_version": result.compiler_version, **_figures(model)}
    report["stages"]["compile"] = {key: value for key, value in compiled.items() if key != "ops"}
    report["ops"] = [op._asdict() for op in model.ops]
    report["figures"].update(tpu_ops=model.tpu_ops, cpu_ops=model.cpu_ops)
    _write_report(out, report)
    manifest = read_manifest(out)
    manifest.update(compiled=True, tpu_ops=model.tpu_ops, cpu_ops=model.cpu_ops)
    manifest.pop("version")
    write_manifest(out, **manifest)


def _figures(result: Any) -> dict[str, Any]:
    """A stage's result without its paths."""
    return {key: value for key, value in result._asdict().items() if not isinstance(value, Path)}


def _write_report(folder: Path, report: dict[str, Any]) -> None:
    """Write ``report.json`` and the page that shows it."""
    text = json.dumps(report, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    write_text(folder / REPORT, text, overwrite=True)
    write_export_page(folder / PAGE, report)


def _result(out: Path) -> ExportResult:
    manifest = read_manifest(out)
    manifest["compiled"] = "compiled" in manifest
    manifest["targets"] = [TargetModel(**each) for each in manifest["targets"]]
    manifest["web"] = out / WEB if (out / WEB).is_dir() else None
    manifest["devices"] = [out / target for target in CODE if (out / target).is_dir()]
    return ExportResult(out, *(manifest[field] for field in ExportResult._fields[1:]))
