"""The page that collects what the stages of one run left behind: each stage's folder is one section."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ..artefacts import files_under, read_manifest
from ..errors import FacetpuError
from ..history import read_history
from .curves import draw_line
from .figures import REPORT as EVALUATION
from .figures import read_evaluation
from .identification import share

# The order of the pipeline; a stage's title on the page.
TITLES = {
    "align": "Crops",
    "pack": "Records",
    "train": "Training",
    "freeze": "Frozen graph",
    "quantize": "Quantisation",
    "compile": "Compilation",
    "export": "Export: quantisation and mapping",
    "imprint": "Enrolment",
    "evaluate": "Evaluation",
    "compare": "The chain: where a loss arises",
    "classify": "Classifiers",
    "cluster": "Clusters",
}
PANELS = {
    "roc.png": "True accepts over false accepts.",
    "det.png": "Both errors against each other, on normal deviates.",
    "scores.png": "The scores of both kinds of pairs.",
    "open_set.png": "Enrolled people named rightly, over strangers given a name.",
    "cmc.png": "How often the right person is among the best ones.",
    "photos.png": "What more photos of a person bring.",
    "map.png": "The people with the most photos.",
}
CURVES = {
    "loss": "The loss over the steps.",
    "validation_tar": "Same-person pairs accepted where 1% of other pairs are, over the steps.",
    "validation_auc": "The AUC of validation pairs over the steps.",
    "validation_accuracy": "Validation photos told right, over the steps.",
    "learning_rate": "The learning rate over the steps.",
    "images_per_second": "Images a second over the steps.",
}
# What of a manifest is no figure of its stage.
APART = ("stage", "version", "config", "inputs", "alignment", "shards", "records", "counts")
LONGEST = 16  # letters of a figure; longer ones go with the settings


class Table(NamedTuple):
    """Rows below a head; all but the first column are numbers where ``numbers`` says so."""

    head: list[str]
    rows: list[list[str]]
    numbers: bool = True


class Picture(NamedTuple):
    """A PNG and what it shows."""

    png: Path
    caption: str


class Section(NamedTuple):
    """A stage on the page.

    Attributes:
        title: of the stage.
        folder: its folder's name.
        figures: values with their names.
        tables: what does not fit in a figure.
        pictures: PNGs.
        settings: names and values.
    """

    title: str
    folder: str
    figures: list[tuple[str, str]]
    tables: list[Table]
    pictures: list[Picture]
    settings: list[tuple[str, str]]


def read_section(folder: Path, scratch: Path) -> tuple[int, Section]:
    """What ``folder`` holds, and its place in the pipeline.

    Args:
        folder: of any stage, with its manifest.
        scratch: an empty folder for pictures to be drawn in.

    Raises:
        FacetpuError: it is no folder of a stage, or its manifest is damaged.
    """
    manifest = read_manifest(folder) if folder.is_dir() else {}
    stage = manifest.get("stage")
    if stage not in TITLES:
        raise FacetpuError(
            f"{folder}: is no folder of align, train, export, evaluate or another stage; it has no manifest "
            "of one"
        )
    figures = {name: value for name, value in manifest.items() if name not in APART}
    found = _flat({**figures, **manifest.get("counts", {})})
    told = [(name, value) for name, value in found if value is not None and not isinstance(value, list)]
    shown = [(name.replace("_", " "), _value(value)) for name, value in told]
    short = [(value, name) for name, value in shown if len(value) <= LONGEST]
    settings = [pair for pair in shown if len(pair[1]) > LONGEST]
    asked = {**manifest.get("config", {}), "alignment": manifest.get("alignment") or {}}
    settings += [(name, _value(value)) for name, value in _flat(asked)]
    section = Section(TITLES[stage], folder.name, short, [], [], settings)
    fill = _FILLED.get(stage)
    return list(TITLES).index(stage), fill(section, folder, scratch) if fill else section


def _train(section: Section, folder: Path, scratch: Path) -> Section:
    pictures: list[Picture] = []
    rows = read_history(folder)
    for name, caption in CURVES.items():
        points = [(row["step"], row[name]) for row in rows if name in row]
        if points:
            draw_line(scratch / f"{name}.png", name.replace("_", " "), points)
            pictures.append(Picture(scratch / f"{name}.png", caption))
    return section._replace(pictures=pictures)


def _export(section: Section, folder: Path, scratch: Path) -> Section:
    tables = []
    report = _report(folder / "report.json")
    stages = [[name, _value(value)] for name, value in _flat(report.get("stages", {}))]
    if stages:
        tables.append(Table(["what the stages found", ""], stages))
    ops = Counter((op["target"], op["op"], op.get("reason") or "") for op in report.get("ops", []))
    if ops:
        rows = [[op, str(count), target, reason] for (target, op, reason), count in sorted(ops.items())]
        tables.append(Table(["op", "how often", "runs on", "why"], rows, numbers=False))
    sizes = [
        [file.name, f"{file.stat().st_size:,}"] for file in files_under(folder) if file.suffix == ".tflite"
    ]
    if sizes:
        tables.append(Table(["model", "bytes"], sizes))
    return section._replace(tables=tables)


def _evaluate(section: Section, folder: Path, scratch: Path) -> Section:
    if not (folder / EVALUATION).is_file():
        raise FacetpuError(f"{folder / EVALUATION}: is missing; evaluate again with --overwrite")
    found = read_evaluation(folder)
    figures = [
        (found.model, f"{found.pairs:,} pairs, {found.metric_name()}"),
        (f"{found.accuracy:.2%}", f"accuracy, ± {100 * found.std:.2f} over {len(found.folds)} folds"),
        (f"{found.auc:.4f}", "AUC"),
        (f"{found.eer:.2%}", "equal error rate"),
        (f"{found.val:.2%}", f"VAL, ± {100 * found.val_std:.2f}, at FAR 0.1%"),
    ]
    rows = [
        [f"{float(far):.1%}", f"{found.thresholds[far]:.4f}", f"{tar:.2%}"] for far, tar in found.tar.items()
    ]
    tables = [Table(["false accepts", "threshold", "true accepts"], rows)]
    if found.identification:
        rows = [
            [str(rates.photos), *map(share, [rates.ranks[0], *(rates.dir or {}).values()])]
            for rates in found.identification.rates
        ]
        titles = ["photos enrolled", "rank-1", "DIR at FPIR 1%", "at 10%"]
        tables.append(Table(titles[: len(rows[0])], rows))
    pictures = [Picture(folder / name, text) for name, text in PANELS.items() if (folder / name).is_file()]
    return section._replace(figures=figures, tables=tables, pictures=pictures)


def _compare(section: Section, folder: Path, scratch: Path) -> Section:
    report = _report(folder / "chain.json")
    rows = [
        [
            f"{step['form']}: {step['file']}",
            f"{step['accuracy']:.2%} ± {100 * step['std']:.2f}",
            f"{step['cosine']:.5f}",
            f"{step['lowest_cosine']:.5f}",
            "-" if step["ms"] is None else f"{step['ms']:.2f}",
            f"{step['bytes']:,}",
        ]
        for step in report.get("steps", [])
    ]
    head = ["", "accuracy", "cosine to the first", "lowest", "ms a crop", "bytes"]
    return section._replace(tables=[Table(head, rows)])


def _classify(section: Section, folder: Path, scratch: Path) -> Section:
    report = _report(folder / "classifiers.json")
    rows = [
        [row["classifier"], share(row["top1"])]
        + ([share(spread) for spread in row["dir"].values()] if row["dir"] else ["-", "-"])
        + [share(row[name]) for name in ("right", "misnamed", "accepted")]
        for row in report.get("classifiers", [])
    ]
    head = ["", "top-1", "DIR at FPIR 1%", "at 10%", "right", "misnamed", "strangers accepted"]
    return section._replace(tables=[Table(head, rows)])


def _cluster(section: Section, folder: Path, scratch: Path) -> Section:
    found = read_manifest(folder)["clusters"]
    return section._replace(figures=[(_value(value), name.replace("_", " ")) for name, value in _flat(found)])


_FILLED: dict[str, Callable[[Section, Path, Path], Section]] = {
    "train": _train,
    "quantize": _export,
    "export": _export,
    "evaluate": _evaluate,
    "compare": _compare,
    "classify": _classify,
    "cluster": _cluster,
}


def _report(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise FacetpuError(f"{path}: is damaged; make its folder again with --overwrite") from None


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested settings as ``outer.inner`` names."""
    rows: list[tuple[str, Any]] = []
    for name, value in values.items():
        rows += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]
    return rows


def _value(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(_value, value)) if isinstance(value, list) else str(value)
