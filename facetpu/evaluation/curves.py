"""The pictures of an evaluation, one panel each, so that a page can stand them beside or below each other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from ..metrics import Roc, equal_error_rate, tar_at_far
from .identification import Identification

SAME, DIFFERENT, INK, GRID = "#0b7a75", "#d1603d", "#22313f", "#e3e8ec"
PEOPLE = (
    *("#0b7a75", "#d1603d", "#3a6ea5", "#9a6700", "#7d4e9e", "#1f7a37"),
    *("#c01c5e", "#5d7c0f", "#00868b", "#8c564b", "#4b5d8a", "#b5651d"),
)  # as many people as a map can tell apart
MARKED = (1e-3, 1e-2, 1e-1)  # false accept rates whose true accept rate is written beside the curve
DET_TICKS = (0.001, 0.01, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95)
FEW = 30  # points; of a line with no more, each is drawn, since one alone makes no line
BESIDE_MARK = {"xytext": (-6, 7), "va": "bottom", "ha": "right"}  # above and left of a low curve
BELOW_MARK = {"xytext": (6, -9), "va": "top"}  # below and right of a high one


def draw_roc(path: Path, curve: Roc, different: int) -> None:
    """The ROC as the stairs that it is, from one false accept of ``different`` pairs on."""
    with _panel(path, "true accept rate") as axes:
        lowest = min(1 / different, 0.1)
        beyond = curve.far > lowest
        far = np.append(lowest, curve.far[beyond])
        tar = np.append(tar_at_far(curve, lowest), curve.tar[beyond])
        axes.step(far, tar, SAME, where="post", lw=2.2)
        chance = np.geomspace(lowest, 1, 100)
        axes.plot(chance, chance, color=INK, lw=1, ls=(0, (2, 3)), alpha=0.6)
        _log_rates(axes, lowest, "false accept rate")
        for rate in (rate for rate in MARKED if rate > lowest):
            _mark(axes, rate, tar_at_far(curve, rate))


def draw_det(path: Path, curve: Roc) -> None:
    """The detection error trade-off: misses over false accepts, both axes in normal deviates.

    Scores that are normally distributed give a straight line there (Martin et al., Eurospeech 1997).
    """
    deviates = np.vectorize(NormalDist().inv_cdf)
    with _panel(path, "false reject rate") as axes:
        far, miss = curve.far, 1 - curve.tar
        drawn = (far > 0) & (far < 1) & (miss > 0) & (miss < 1)
        if drawn.any():
            axes.plot(deviates(far[drawn]), deviates(miss[drawn]), color=SAME, lw=2.2)
        rate = min(max(equal_error_rate(curve), DET_TICKS[0]), DET_TICKS[-1])
        ends = deviates([DET_TICKS[0], DET_TICKS[-1]])
        axes.plot(ends, ends, color=INK, lw=1, ls=(0, (2, 3)), alpha=0.6)
        point = float(deviates(rate))
        axes.plot(point, point, "o", color=SAME, ms=8, mec="white", mew=1.6)
        _write(axes, f"EER {equal_error_rate(curve):.1%}", (point, point), xytext=(9, 3))
        ticks, names = deviates(DET_TICKS), [f"{tick * 100:g}%" for tick in DET_TICKS]
        axes.set_xticks(ticks, names)
        axes.set_yticks(ticks, names)
        axes.set(xlim=ends, ylim=ends, xlabel="false accept rate")


def draw_scores(path: Path, scores: np.ndarray, same: np.ndarray, threshold: float, metric: str) -> None:
    """Both kinds of pairs over their score, each as a share of its kind."""
    with _panel(path, "") as axes:
        bins = int(np.clip(np.sqrt(len(scores)) / 1.3, 10, 60))
        edges = np.histogram_bin_edges(scores, bins)
        for kind, color in ((~same, DIFFERENT), (same, SAME)):
            heights = np.histogram(scores[kind], edges)[0] / kind.sum()
            axes.stairs(heights, edges, fill=True, color=color, alpha=0.3)
            axes.stairs(heights, edges, color=color, lw=1.8)
        axes.set_ylim(0, 1.12 * axes.dataLim.y1)
        axes.axvline(threshold, color=INK, lw=1.2, ls=(0, (4, 3)))
        _write(
            axes, f"{threshold:.3f}", (threshold, 1), xycoords=("data", "axes fraction"), xytext=(5, -2),
            va="top", bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5},
        )  # fmt: skip
        axes.margins(x=0.01)
        axes.set_xlabel(f"{metric} of a pair")
        axes.spines["left"].set_visible(False)
        axes.set_yticks([])
        left, right = ((same, SAME, "one person"), (~same, DIFFERENT, "two people"))
        if scores[same].mean() > scores[~same].mean():
            left, right = right, left
        for x, ha, (kind, color, name) in ((0, "left", left), (1, "right", right)):
            axes.text(
                x, 1.04, f"{kind.sum():,} of {name}", ha=ha, color=color, fontsize=12, fontweight="bold",
                transform=axes.transAxes,
            )  # fmt: skip


def draw_open_set(path: Path, identification: Identification) -> None:
    """DIR over FPIR with its deviation over the draws, with the most photos enrolled."""
    curve = identification.curve
    if curve is None:
        raise ValueError("there were no strangers")
    fpir, rate, std = (np.array(curve[name]) for name in ("fpir", "dir", "std"))
    with _panel(path, "named rightly (DIR)") as axes:
        axes.fill_between(
            fpir, np.clip(rate - std, 0, 1), np.clip(rate + std, 0, 1), color=SAME, alpha=0.2, lw=0
        )
        axes.plot(fpir, rate, color=SAME, lw=2.2)
        _log_rates(axes, float(fpir[0]), "strangers given a name (FPIR)")
        for mark in (mark for mark in MARKED if mark > fpir[0]):
            _mark(axes, mark, float(np.interp(np.log(mark), np.log(fpir), rate)))


def draw_cmc(path: Path, identification: Identification) -> None:
    """The cumulative match characteristic: how often the right person is among the best few."""
    with _panel(path, "right person among the best") as axes:
        for row, color in zip(identification.rates[::-1], PEOPLE, strict=False):
            mean, std = np.array(row.ranks).T
            label = f"{row.photos} photo{'s' * (row.photos > 1)} enrolled"
            ranks = np.arange(1, len(mean) + 1)
            axes.errorbar(ranks, mean, std, color=color, lw=2.2, capsize=3, marker="o", ms=6, label=label)
        axes.set(ylim=(0, 1.025), xlabel="rank")
        axes.set_xticks(ranks)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.grid(color=GRID, lw=0.8)
        axes.legend(frameon=False, fontsize=11, loc="lower right")


def draw_photos(path: Path, identification: Identification) -> None:
    """Rank-1 and, with strangers, DIR by how many photos of each person are enrolled."""
    rates = identification.rates
    photos = [row.photos for row in rates]
    lines = [("rank-1", INK, [row.ranks[0] for row in rates])]
    for fpir, color in (("0.1", SAME), ("0.01", DIFFERENT)):
        spreads = [row.dir[fpir] for row in rates if row.dir]
        if spreads:
            lines.append((f"DIR at FPIR {float(fpir):.0%}", color, spreads))
    with _panel(path, "right") as axes:
        for name, color, spreads in lines:
            mean, std = np.array(spreads).T
            axes.errorbar(photos, mean, std, color=color, lw=2.2, capsize=3, marker="o", ms=6, label=name)
        axes.set(ylim=(0, 1.025), xlabel="photos enrolled a person")
        axes.set_xticks(photos)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.grid(color=GRID, lw=0.8)
        axes.legend(frameon=False, fontsize=11, loc="best")


def draw_map(path: Path, points: np.ndarray, names: Sequence[str]) -> None:
    """People as clouds of points.

    Args:
        path: the file.
        points: float [N,2].
        names: the person of each point, at most as many as there are colours.
    """
    with _panel(path, "") as axes:
        people = sorted(set(names))
        for person, color in zip(people, PEOPLE, strict=False):
            chosen = np.array([name == person for name in names])
            axes.scatter(*points[chosen].T, s=26, color=color, alpha=0.75, lw=0, label=person[:22])
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.legend(
            frameon=False, fontsize=9.5, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.01),
            handletextpad=0.1, columnspacing=0.8,
        )  # fmt: skip
        axes.set_position([0.03, 0.36, 0.94, 0.62])


def draw_line(path: Path, label: str, points: Sequence[tuple[float, float]]) -> None:
    """Values over steps, (step, value), as a training writes them; ``label`` is of the values."""
    with _panel(path, label) as axes:
        few = len(points) <= FEW
        axes.plot(*np.array(points).T, color=SAME, lw=1.8, marker="o" if few else None, ms=4)
        axes.set_xlabel("step")
        axes.margins(x=0.01)
        axes.grid(color=GRID, lw=0.8)


@contextlib.contextmanager
def _panel(path: Path, label: str) -> Iterator[Any]:
    """The axes of the PNG ``path``, written when the block ends; ``label`` stands above the y axis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 4.6), dpi=120, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.125, 0.145, 0.815, 0.745))
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(which="both", colors=INK, labelsize=11)
    axes.xaxis.label.set(color=INK, fontsize=12)
    axes.set_axisbelow(True)
    yield axes
    axes.text(0, 1.04, label, color=INK, fontsize=12, transform=axes.transAxes)
    figure.savefig(path, format="png", metadata={"Software": None})


def _log_rates(axes: Any, lowest: float, label: str) -> None:
    axes.set(xscale="log", xlim=(lowest, 1), ylim=(0, 1.025), xlabel=label)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value * 100:g}%")
    axes.xaxis.set_minor_formatter(lambda *_: "")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.grid(color=GRID, lw=0.8)


def _mark(axes: Any, rate: float, value: float) -> None:
    """A point with its value beside it, never on the curve."""
    axes.plot(rate, value, "o", color=SAME, ms=8, mec="white", mew=1.6)
    _write(axes, f"{value:.1%}", (rate, value), **(BELOW_MARK if value > 0.5 else BESIDE_MARK))


def _write(axes: Any, text: str, point: tuple[float, float], **place: Any) -> None:
    axes.annotate(text, point, textcoords="offset points", fontsize=12, color=INK, **place)
