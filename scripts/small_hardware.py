"""What a small machine learns from a few thousand photos: labels, a margin, a teacher, a warm start.

    scripts/small_hardware.py WORK [--data DATA] [--only NAME ...]

DATA (FACETPU_TEST_DATA unless given) holds ``pins/PERSON/*``, ``celeba/PERSON/*``, ``lfw/PERSON/*``,
``lfw_pairs.txt``, ``models/MobileFaceNet.onnx`` and ``coral/models``. Each network is a MobileNet v1 0.5
at 112 pixels, trained on pins and CelebA alone; 6% of those people are held out of it, and what they tell
is all that anything is chosen by. LFW is looked at once, at the end: float, int8, and int8 trained with
its rounding. WORK keeps what is finished, so that a run that was stopped goes on; ``small_hardware.json``,
``.md`` and ``.png`` there hold the figures and the curves over the minutes of two cores.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from real_photos import Chain, link, photos_of

CORES = 2  # that the minutes are told of
HELD_OUT = 0.06
INK, GRID = "#22303c", "#d9dee3"
COLORS = ("#8a94a0", "#b5622d", "#1d6f8f", "#3f8f5f")

NETWORK = {"name": "mobilenet_v1", "depth_multiplier": 0.5, "image_size": 112, "embedding_dim": 128}
AUGMENTATION = {"shift": 0.03, "rotation": 4, "brightness": 0.08}
COMMON = {"network": NETWORK, "batch_size": 64, "validate_every": 400, "checkpoint_every": 400}
# Labels: few photos of many people are soon known by heart, so weights decay faster and parts are covered.
LABELS = {
    **COMMON,
    "optimizer": {"name": "adam", "learning_rate": 0.002, "weight_decay": 1e-4, "average": 0.999},
    "augmentation": {**AUGMENTATION, "occlusion": 0.2},
    "steps": 2400,
}
TAUGHT = {
    **COMMON,
    "loss": {"weight": 0},
    "optimizer": {"name": "adam", "learning_rate": 0.002, "weight_decay": 1e-5, "average": 0.999},
    "augmentation": {**AUGMENTATION, "mix": 0.5},
}


class Training(NamedTuple):
    """One row of the table."""

    name: str
    words: str
    config: dict[str, Any]


def trainings(data: Path) -> list[Training]:
    """What is compared; nothing but the config differs."""
    teacher = {
        "model": str(data / "models" / "MobileFaceNet.onnx"),
        "mean": [123.675, 116.28, 103.53],
        "std": [58.395, 57.12, 57.375],
        "live": True,
    }
    start = str(data / "coral" / "models" / "mobilenet_v1_0.5_160_quant.tflite")
    taught = {**TAUGHT, "teacher": teacher}
    margin = {"name": "cosface", "margin": 0.35, "scale": 32}
    return [
        Training("labels", "labels, softmax", LABELS),
        Training("margin", "labels, CosFace", {**LABELS, "loss": margin}),
        Training("taught", "teacher", {**taught, "steps": 3200}),
        Training("warm", "teacher, warm start", {**taught, "steps": 2200, "warm_start": start}),
    ]


def with_rounding(training: Training) -> Training:
    """The training that goes on with int8's rounding in it, as README says: a hundredth of the rate."""
    config = training.config
    optimizer = config["optimizer"]
    return Training(
        f"{training.name}_rounded",
        training.words,
        {
            **config,
            "network": {**config["network"], "quantization_aware": True},
            "warm_start": training.name,
            "optimizer": {**optimizer, "learning_rate": optimizer["learning_rate"] / 100},
            "steps": config["steps"] // 10,
        },
    )


def run_all(data: Path, work: Path, chosen: list[str]) -> dict[str, Any]:
    """Align, pack, train and measure; returns the figures by the training's name."""
    shared = Chain(work)
    for folder in ("pins", "celeba"):
        for person in sorted(path for path in (data / folder).iterdir() if path.is_dir()):
            link(photos_of(person), work / "photos" / person.name)
    shared.run("align photos", "align", "photos", "crops")
    shared.run("align lfw", "align", data / "lfw", "lfw")
    shared.run("pack", "pack", "crops", "records", "--held-out", HELD_OUT, "--validation", 0)
    figures = {}
    for training in trainings(data):
        if not chosen or training.name in chosen:
            figures[training.name] = measure(work, training, data / "lfw_pairs.txt")
    return figures


def measure(work: Path, training: Training, pairs: Path) -> dict[str, Any]:
    """Train it, then with rounding, and see what each tells of LFW."""
    name = training.name
    chain = Chain(work, f"{name}.json")
    rounded = with_rounding(training)
    lfw = {}
    for one in (training, rounded):
        (work / f"{one.name}.yaml").write_text(yaml.safe_dump(one.config, sort_keys=False), encoding="utf-8")
        chain.run(f"train {one.name}", "train", f"{one.name}.yaml", "records", one.name, "--resume")
        model = f"{one.name}_model"
        chain.run(f"export {one.name}", "export", one.name, model, "--calibration", "crops", "--overwrite")
        bases = {"int8 QAT": "base.tflite"}
        if one is training:
            bases = {"float": "base_float.tflite", "int8": "base.tflite"}
        for kind, base in bases.items():
            lfw[kind] = chain.run(
                f"lfw {name} {kind}",
                *("evaluate", f"{model}/{base}", "lfw", "--pairs", pairs),
                *("--out", f"{name}_lfw_{kind.replace(' ', '_')}", "--overwrite"),
            )
    return {
        "words": training.words,
        "steps": training.config["steps"],
        "core minutes": chain.steps[f"train {name}"]["core_seconds"] / 60,
        "core minutes of rounding": chain.steps[f"train {rounded.name}"]["core_seconds"] / 60,
        "held out": {one.name: validations(work / one.name) for one in (training, rounded)},
        "lfw": lfw,
    }


def validations(run: Path) -> list[tuple[int, float]]:
    """(step, AUC of held-out people's pairs) as the training went."""
    with (run / "history.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["validation_auc"]]
    return [(int(row["step"]), float(row["validation_auc"])) for row in rows]


def draw(figures: dict[str, Any], path: Path) -> None:
    """The held-out people's AUC over the minutes that two cores take; a step costs what any other does."""
    figure = Figure(figsize=(8, 4.4), dpi=120, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.085, 0.13, 0.72, 0.75))
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK, labelsize=10)
    axes.grid(color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    ends = []
    for (name, one), color in zip(figures.items(), COLORS, strict=False):
        pace = one["core minutes"] / CORES / one["steps"]
        points = [(step * pace, auc) for step, auc in one["held out"][name]]
        axes.plot(*zip(*points, strict=True), "o-", color=color, lw=2, ms=4)
        ends.append((*points[-1], one["words"], color))
    for minutes, auc, words, color in ends:
        axes.annotate(
            words, (minutes, auc), (8, 0), textcoords="offset points", color=color, fontsize=10,
            va="center", annotation_clip=False,
        )  # fmt: skip
    axes.set_xlim(left=0)
    axes.set_xlabel(f"minutes of training on {CORES} cores", color=INK, fontsize=10.5)
    axes.text(
        0, 1.04, "AUC of pairs of people who were held out", color=INK, fontsize=11, transform=axes.transAxes
    )
    figure.savefig(path, format="png", metadata={"Software": None})


def as_markdown(figures: dict[str, Any]) -> str:
    kinds = ("float", "int8", "int8 QAT")
    head = ["", f"minutes of {CORES} cores", "AUC, held out", *(f"LFW {kind}" for kind in kinds), "TAR, int8"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, one in figures.items():
        lfw = [one["lfw"][kind] for kind in kinds]
        cells = [one["words"], f"{one['core minutes'] / CORES:.0f}", f"{one['held out'][name][-1][1]:.3f}"]
        cells += [f"{found['accuracy']:.2%} ± {100 * found['std']:.2f}" for found in lfw]
        cells.append(f"{one['lfw']['int8']['tar']['0.01']:.1%}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path, help="folder for everything made, kept for the next run")
    parser.add_argument("--data", type=Path, default=os.environ.get("FACETPU_TEST_DATA"))
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="labels margin taught warm")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("name the folder of photos with --data or FACETPU_TEST_DATA")
    arguments.work.mkdir(parents=True, exist_ok=True)
    work = arguments.work.resolve()
    figures = run_all(Path(arguments.data).resolve(), work, arguments.only)
    (work / "small_hardware.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    (work / "small_hardware.md").write_text(as_markdown(figures), encoding="utf-8")
    draw(figures, work / "small_hardware.png")
    print(as_markdown(figures))


if __name__ == "__main__":
    main()
