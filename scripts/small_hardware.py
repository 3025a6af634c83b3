"""What a small machine learns from a few thousand photos: labels, a margin, a teacher, a warm start.

    scripts/small_hardware.py WORK [--data DATA]

DATA (FACETPU_TEST_DATA unless given) holds ``pins/PERSON/*``, ``celeba/PERSON/*``, ``lfw/PERSON/*``,
``lfw_pairs.txt``, ``models/MobileFaceNet.onnx`` and ``coral/models``. Each network is a MobileNet v1 0.5
at 112 pixels, trained on pins and CelebA alone; 6% of those people are held out of it, and what they tell
is all that anything is chosen by. LFW is looked at once, at the end: float, int8, and int8 trained with
its rounding. WORK keeps each step that is finished: after a stop the others are done, a training that was
under way from its beginning. ``small_hardware.json``, ``.md`` and ``.png`` there hold the figures and the
curves over the minutes of two cores.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from real_photos import Chain, link, parser_of, photos_of, read_arguments

from facetpu.history import read_history

DISTIL = Path(__file__).parents[1] / "configs" / "distil.yaml"
CORES = 2  # that the minutes are told of
HELD_OUT = 0.06
INK, GRID = "#22303c", "#d9dee3"
COLORS = ("#8a94a0", "#b5622d", "#d9a441", "#c9b458", "#9a7fb5", "#3f8f5f", "#7fb59a", "#1d6f8f")
LABELS = {
    "network": {"name": "mobilenet_v1", "depth_multiplier": 0.5, "image_size": 112, "embedding_dim": 128},
    "batch_size": 64,
    "optimizer": {"learning_rate": 0.1, "weight_decay": 2e-4, "average": 0.999},
    "augmentation": {"shift": 0.03, "brightness": 0.08},
    "steps": 2400,
    "validate_every": 400,
    "checkpoint_every": 400,
}
FURTHER = {
    "shift": 0.05,
    "zoom": 0.08,
    "rotation": 8,
    "brightness": 0.1,
    "contrast": 0.3,
    "saturation": 0.4,
    "occlusion": 0.3,
}


class Training(NamedTuple):
    """One row of the table."""

    name: str
    words: str
    config: dict[str, Any]
    after: str | None = None  # the training that it goes on from, and whose minutes count too


def trainings(data: Path) -> list[Training]:
    """What is compared; nothing but the config differs."""
    taught = yaml.safe_load(DISTIL.read_text(encoding="utf-8"))
    taught["teacher"]["model"] = str(data / "models" / "MobileFaceNet.onnx")
    coral = str(data / "coral" / "models" / "mobilenet_v1_0.5_160_quant.tflite")
    margin = {
        **LABELS,
        "warm_start": "labels",
        "loss": {"name": "cosface", "margin": 0.2, "margin_ramp": [0, 0.5]},
        "optimizer": {**LABELS["optimizer"], "learning_rate": 0.03},
        "steps": 1200,
    }
    longer = {
        **margin,
        "warm_start": "margin",
        "loss": {"name": "cosface", "margin": 0.2},
        "batch_size": 32,
        "steps": 4000,
    }
    # As many rounds over so few photos would end in knowing them by heart: they are changed further.
    longest = {
        **longer,
        "warm_start": "longer",
        "optimizer": {**longer["optimizer"], "learning_rate": 0.05},
        "augmentation": FURTHER,
        "steps": 10000,
        "validate_every": 1000,
        "checkpoint_every": 1000,
    }
    # What was said once of each photo costs nothing in a step, and teaches all that is learnt first.
    kept = {
        **taught,
        "teacher": {**taught["teacher"], "live": False},
        "augmentation": {**taught["augmentation"], "mix": 0.0},
        "optimizer": {**taught["optimizer"], "schedule": "constant"},
        "batch_size": 16,
        "steps": 7000,
        "validate_every": 1000,
        "checkpoint_every": 1000,
    }
    return [
        Training("labels", "labels", LABELS),
        Training("margin", "labels, then a margin", margin, after="labels"),
        Training("longer", "and longer", longer, after="margin"),
        Training("longest", "and longer still", longest, after="longer"),
        Training("kept", "teacher, asked once", kept),
        Training("live", "then asked live", {**taught, "warm_start": "kept", "steps": 5000}, after="kept"),
        Training("more", "and longer live", {**taught, "warm_start": "live", "steps": 5000}, after="live"),
        Training("warm", "ImageNet, then teacher", {**taught, "warm_start": coral}),
    ]


def with_rounding(training: Training) -> Training:
    """The training that goes on with int8's rounding in it, as README says: a hundredth of the rate."""
    config = training.config
    optimizer = config["optimizer"]
    return training._replace(
        name=f"{training.name}_rounded",
        config={
            **config,
            "network": {**config["network"], "quantization_aware": True},
            "warm_start": training.name,
            "optimizer": {**optimizer, "learning_rate": optimizer["learning_rate"] / 100},
            "steps": config["steps"] // 10,
        },
    )


def run_all(data: Path, work: Path) -> dict[str, Any]:
    """Align, pack, train and measure; returns the figures by the training's name."""
    chain = Chain(work)
    for folder in ("pins", "celeba"):
        for person in sorted(path for path in (data / folder).iterdir() if path.is_dir()):
            link(photos_of(person), work / "photos" / person.name)
    chain.run("align photos", "align", "photos", "crops")
    chain.run("align lfw", "align", data / "lfw", "lfw")
    chain.run("pack", "pack", "crops", "records", "--held-out", HELD_OUT, "--validation", 0)
    return {one.name: measure(chain, one, data / "lfw_pairs.txt") for one in trainings(data)}


def measure(chain: Chain, training: Training, pairs: Path) -> dict[str, Any]:
    """Train it, then with rounding, and see what each tells of LFW."""
    name, rounded = training.name, with_rounding(training)
    of_training = {"float": "base_float.tflite", "int8": "base.tflite"}
    lfw = {}
    for one, bases in ((training, of_training), (rounded, {"int8 QAT": "base.tflite"})):
        recipe = write_recipe(chain.work, one)
        # Whole or not at all: a training that goes on would tell of its last minutes only.
        chain.run(f"train {one.name}", "train", recipe, "records", one.name, "--overwrite")
        model = f"{one.name}_model"
        chain.run(f"export {one.name}", "export", one.name, model, "--calibration", "crops", "--overwrite")
        for kind, base in bases.items():
            lfw[kind] = chain.run(
                f"lfw {name} {kind}",
                *("evaluate", f"{model}/{base}", "lfw", "--pairs", pairs),
                *("--out", f"lfw {name} {kind}", "--overwrite"),
            )
    return {
        "words": training.words,
        "after": training.after,
        "steps": training.config["steps"],
        "core minutes": chain.steps[f"train {name}"]["core_seconds"] / 60,
        "core minutes of rounding": chain.steps[f"train {rounded.name}"]["core_seconds"] / 60,
        "held out": validations(chain.work / name),
        "held out, rounded": validations(chain.work / rounded.name),
        "lfw": lfw,
    }


def write_recipe(work: Path, training: Training) -> str:
    """Write its config; its name tells one config from another, so that a changed one is trained anew."""
    text = yaml.safe_dump(training.config, sort_keys=False)
    name = f"{training.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.yaml"
    (work / name).write_text(text, encoding="utf-8")
    return name


def validations(run: Path) -> list[tuple[int, float]]:
    """(step, TAR at FAR 1% of held-out people's pairs) as the training went.

    Not their AUC: most pairs are of one of pins and one of CelebA, which look unlike each other whoever is
    on them. Among the few pairs that are taken for one person there are hardly any of those.
    """
    return [(int(row["step"]), row["validation_tar"]) for row in read_history(run) if "validation_tar" in row]


def minutes(figures: dict[str, Any], name: str) -> tuple[float, float]:
    """When a training began and ended, on the clock of the cores; what it goes on from came before."""
    one = figures[name]
    start = minutes(figures, one["after"])[1] if one["after"] else 0.0
    return start, start + one["core minutes"] / CORES


def draw(figures: dict[str, Any], path: Path) -> None:
    """The held-out people's TAR over the minutes that the cores take; a step costs what any other does."""
    figure = Figure(figsize=(7, 4.2), dpi=120, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.075, 0.13, 0.9, 0.77))
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK, labelsize=10)
    axes.grid(color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    for (name, one), color in zip(figures.items(), COLORS, strict=True):
        start, end = minutes(figures, name)
        points = [(start + step / one["steps"] * (end - start), tar) for step, tar in one["held out"]]
        if one["after"]:
            points.insert(0, (start, figures[one["after"]]["held out"][-1][1]))
        axes.plot(*zip(*points, strict=True), "o-", color=color, lw=2, ms=4, label=one["words"])
    axes.legend(frameon=False, fontsize=10, labelcolor="linecolor", loc="lower right", ncols=2)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xlabel(f"minutes of training on {CORES} cores", color=INK, fontsize=10.5)
    title = "Pairs of people who were held out: TAR at FAR 1%"
    axes.text(0, 1.04, title, color=INK, fontsize=11, transform=axes.transAxes)
    figure.savefig(path, format="png", metadata={"Software": None})


def as_markdown(figures: dict[str, Any]) -> str:
    kinds = ("float", "int8", "int8 QAT")
    head = ["", f"minutes of {CORES} cores", "TAR, held out", *(f"LFW {kind}" for kind in kinds), "TAR, int8"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, one in figures.items():
        lfw = [one["lfw"][kind] for kind in kinds]
        cells = [one["words"], f"{minutes(figures, name)[1]:.0f}", f"{one['held out'][-1][1]:.1%}"]
        cells += [f"{found['accuracy']:.2%} ± {100 * found['std']:.2f}" for found in lfw]
        cells.append(f"{one['lfw']['int8']['tar']['0.01']:.1%}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    arguments = read_arguments(parser_of(__doc__))
    work = arguments.work
    figures = run_all(arguments.data, work)
    (work / "small_hardware.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    (work / "small_hardware.md").write_text(as_markdown(figures), encoding="utf-8")
    draw(figures, work / "small_hardware.png")
    print(as_markdown(figures))


if __name__ == "__main__":
    main()
