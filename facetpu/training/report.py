"""What a training leaves for people to look at: a page with its curves, and TensorBoard's projector."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from ..history import History
from ..nets.classifier import find_network
from ..nets.cost import cost
from ..page import write_page
from .trainer import Trainer

INK, GRID, TEAL, RUST = "#22313f", "#e3e8ec", "#0b7a75", "#d1603d"
SMOOTH = 0.9  # share of the old value that a smoothed curve keeps at each point


def write_report(trainer: Trainer, path: Path) -> None:
    """Write the page ``path`` about a training that is over."""
    config, records, history = trainer.config, trainer.records, trainer.history
    spent = cost(find_network(config.network.name), config.network)
    last = {name: value for row in history.rows for name, value in row.items()}
    speeds = sorted(value for *_, value in history.curve("images_per_second")[1:])
    write_page(
        path,
        "training.html",
        overwrite=True,
        network=config.network.name,
        loss=_lesson(trainer),
        people=len(records.labels),
        photos=records.photos,
        held_out=bool(records.held_out),
        cost=spent,
        config=config,
        steps=trainer.done,
        minutes=history.seconds / 60,
        speed=speeds[len(speeds) // 2] if speeds else None,
        last=last,
        best=trainer.best,
        curves=draw_curves(history),
        hardest=None if trainer.validated is None else trainer.validated.hardest,
    )


def _lesson(trainer: Trainer) -> str:
    """What was learnt from, in a few words."""
    config = trainer.config
    parts = [config.loss.name.replace("_", " ")] if config.loss.weight else []
    if config.teacher is not None:
        parts.append(f"the embeddings of {Path(config.teacher.model).name}")
    return " and ".join(parts)


def draw_curves(history: History) -> bytes:
    """The loss and the validation over minutes, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    validated = {name: history.curve(f"validation_{name}") for name in ("auc", "tar", "accuracy")}
    validated = {name: points for name, points in validated.items() if points}
    figure = Figure(figsize=(11, 3.8), dpi=120, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2)
    _frame(axes[0], "loss")
    loss = history.curve("loss")
    minutes = [seconds / 60 for _, seconds, _ in loss]
    axes[0].plot(minutes, [value for *_, value in loss], color=TEAL, lw=0.8, alpha=0.35)
    axes[0].plot(minutes, _smoothed([value for *_, value in loss]), color=TEAL, lw=2)
    _frame(axes[1], "validation")
    words = {"auc": "AUC of pairs", "tar": "accepted at 1% FAR", "accuracy": "photos told right"}
    for (name, points), color in zip(validated.items(), (TEAL, RUST, INK), strict=False):
        places = [seconds / 60 for _, seconds, _ in points]
        axes[1].plot(
            places, [value for *_, value in points], "o-", color=color, lw=2, ms=4, label=words[name]
        )
    if validated:
        axes[1].set_ylim(0, 1.02)
        axes[1].legend(frameon=False, fontsize=9, labelcolor=INK)
    else:
        axes[1].text(0.5, 0.5, "nothing to validate on", ha="center", color=INK)
    figure.tight_layout()
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _frame(axes: Any, title: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.set_title(title, loc="left", color=INK, fontsize=11)
    axes.set_xlabel("minutes of training", color=INK, fontsize=9.5)


def _smoothed(values: list[float]) -> list[float]:
    out: list[float] = []
    for value in values:
        out.append(value if not out else SMOOTH * out[-1] + (1 - SMOOTH) * value)
    return out


def write_projector(trainer: Trainer) -> None:
    """Write the validated embeddings where TensorBoard's projector finds them."""
    if trainer.validated is None:
        return
    embeddings, labels = trainer.validated.embeddings, trainer.validated.labels
    events = trainer.run / "events"
    rows = ("\t".join(f"{value:.5f}" for value in row) for row in embeddings)
    (events / "embeddings.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    names = None if trainer.records.held_out else trainer.records.labels
    people = (names[label] if names else f"held out {label}" for label in labels)
    (events / "people.tsv").write_text("\n".join(people) + "\n", encoding="utf-8")
    (events / "projector_config.pbtxt").write_text(
        'embeddings {\n  tensor_name: "validation"\n  tensor_path: "embeddings.tsv"\n'
        '  metadata_path: "people.tsv"\n}\n',
        encoding="utf-8",
    )
