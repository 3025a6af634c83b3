"""The picture of an evaluation: its ROC over a logarithmic false accept rate, and its scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .metrics import Roc, tar_at_far

SAME, DIFFERENT, INK, GRID = "#0b7a75", "#d1603d", "#22313f", "#e3e8ec"
MARKED = (1e-3, 1e-2, 1e-1)  # false accept rates whose true accept rate is written beside the curve


def draw_curves(
    path: Path, title: str, curve: Roc, scores: np.ndarray, same: np.ndarray, threshold: float
) -> None:
    """Write the PNG ``path``.

    Args:
        path: the file.
        title: the line above the picture.
        curve: the ROC of the pairs.
        scores: float [P], the cosine of each pair.
        same: bool [P], whether it is of one person.
        threshold: the cosine from which pairs are accepted.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), dpi=120, facecolor="white")
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.07, right=0.975, top=0.82, bottom=0.125, wspace=0.16)
    figure.text(0.07, 0.93, title, color=INK, fontsize=14, fontweight="bold")
    left, right = figure.subplots(1, 2)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(INK)
        axes.tick_params(which="both", colors=INK, labelsize=9.5)
        axes.xaxis.label.set_color(INK)
        axes.set_axisbelow(True)
    _draw_roc(left, curve, int(np.sum(~same)))
    _draw_scores(right, scores, same, threshold)
    figure.savefig(path, format="png", metadata={"Software": None})


def _draw_roc(axes: Any, curve: Roc, different: int) -> None:
    """The ROC as the stairs that it is, from one false accept on."""
    lowest = min(1 / different, 0.1)
    far = np.append(lowest, curve.far[curve.far > lowest])
    axes.step(
        far, np.append(tar_at_far(curve, lowest), curve.tar[curve.far > lowest]), SAME, where="post", lw=2.2
    )
    chance = np.geomspace(lowest, 1, 100)
    axes.plot(chance, chance, color=INK, lw=1, ls=(0, (2, 3)), alpha=0.6)
    for rate in (rate for rate in MARKED if rate > lowest):
        tar = tar_at_far(curve, rate)
        axes.plot(rate, tar, "o", color=SAME, ms=8, mec="white", mew=1.6)
        # Below the curve where it is high, above and to the left where it is low: never on it.
        beside = (
            {"xytext": (6, -9), "va": "top"}
            if tar > 0.5
            else {"xytext": (-6, 7), "va": "bottom", "ha": "right"}
        )
        axes.annotate(
            f"{tar:.1%}", (rate, tar), textcoords="offset points", fontsize=10.5, color=INK, **beside
        )
    axes.set(xscale="log", xlim=(lowest, 1), ylim=(0, 1.025), xlabel="false accept rate")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value * 100:g}%")
    axes.xaxis.set_minor_formatter(lambda *_: "")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.grid(color=GRID, lw=0.8)
    axes.text(0, 1.045, "true accept rate", color=INK, fontsize=10.5, transform=axes.transAxes)


def _draw_scores(axes: Any, scores: np.ndarray, same: np.ndarray, threshold: float) -> None:
    """Both kinds of pairs over the cosine, each as a share of its kind."""
    bins = int(np.clip(np.sqrt(len(scores)) / 1.3, 10, 60))
    edges = np.histogram_bin_edges(scores, bins)
    for kind, color in ((~same, DIFFERENT), (same, SAME)):
        heights = np.histogram(scores[kind], edges)[0] / kind.sum()
        axes.stairs(heights, edges, fill=True, color=color, alpha=0.3)
        axes.stairs(heights, edges, color=color, lw=1.8)
    axes.set_ylim(0, 1.08 * axes.dataLim.y1)
    axes.axvline(threshold, color=INK, lw=1.2, ls=(0, (4, 3)))
    axes.annotate(
        f"threshold {threshold:.3f}",
        (threshold, 1),
        xycoords=("data", "axes fraction"),
        xytext=(5, -2),
        textcoords="offset points",
        va="top",
        fontsize=10.5,
        color=INK,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5},
    )
    axes.margins(x=0.01)
    axes.set_xlabel("cosine of a pair")
    axes.spines["left"].set_visible(False)
    axes.set_yticks([])
    for x, ha, kind, color in ((0, "left", ~same, DIFFERENT), (1, "right", same, SAME)):
        label = f"{kind.sum():,} pairs of " + ("one person" if ha == "right" else "two people")
        axes.text(
            x, 1.045, label, ha=ha, color=color, fontsize=10.5, fontweight="bold", transform=axes.transAxes
        )
