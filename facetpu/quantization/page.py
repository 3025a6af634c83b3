"""The page that shows an export: how near the integers come, which layers lose, what runs on the TPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..page import write_page
from .advice import GOOD

LAYERS = 12  # that lose most
_BINS = 24
_LEFT, _WIDTH, _HEIGHT = 40, 600, 150  # of the histogram, in its own units


def write_export_page(path: Path, report: dict[str, Any]) -> None:
    """Show ``report``, what ``report.json`` holds, as the page ``path``."""
    quantized, figures = report["stages"]["quantize"], report["figures"]
    frozen = report["stages"].get("freeze", {})
    worst = sorted(report["layers"], key=lambda layer: -layer["added"])[:LAYERS]
    most = max((layer["added"] for layer in worst), default=0.0) or 1.0
    on_cpu = [op for op in report["ops"] if op["target"] == "CPU"]
    bars, ticks = _histogram(report["cosines"])
    write_page(
        path,
        "export.html",
        overwrite=True,
        source=report["source"],
        lead=_lead(report, frozen),
        figures=_cards(quantized, figures),
        warnings=quantized["warnings"],
        compared_on=quantized["compared_on"],
        held_out=" that were not calibrated on" if quantized["held_out"] else ", the ones calibrated on",
        histogram=bars,
        ticks=ticks,
        remedies=quantized["remedies"],
        layers=[{**layer, "width": round(10 * layer["added"] / most, 2)} for layer in worst],
        ops_lead=_ops_lead(figures, "compile" in report["stages"]),
        cpu_ops=on_cpu,
        targets=figures["targets"],
    )


def _lead(report: dict[str, Any], frozen: dict[str, Any]) -> str:
    side, dim = report["figures"]["alignment"]["size"], report["figures"]["embedding_dim"]
    given = f"; the network is given {frozen['normalisation']}" if frozen else ""
    return f"{side} px crops to embeddings of {dim} numbers{given}"


def _cards(quantized: dict[str, Any], figures: dict[str, Any]) -> list[dict[str, str]]:
    good = "good" if quantized["cosine"] >= GOOD else "warn"
    cards = [
        {"value": f"{quantized['cosine']:.4f}", "what": "cosine of int8 to float", "colour": good},
        {"value": f"{quantized['percentile']:.4f}", "what": "in the worst hundredth", "colour": ""},
        {"value": f"{figures['threshold']:.3f}", "what": "threshold, two faces one person", "colour": ""},
        {
            "value": f"{figures['tpu_ops']} + {figures['cpu_ops']}",
            "what": "ops on the TPU + on the CPU",
            "colour": "warn" if figures["cpu_ops"] else "good",
        },
    ]
    if quantized["auc"] is not None:
        value = f"{quantized['auc_float']:.4f} → {quantized['auc']:.4f}"
        cards.insert(2, {"value": value, "what": "AUC on these people, float → int8", "colour": ""})
    return cards


def _ops_lead(figures: dict[str, Any], compiled: bool) -> str:
    ops = figures["tpu_ops"] + figures["cpu_ops"]
    said = "The compiler put" if compiled else "Foretold, before compiling: it will put"
    return f"{said} {figures['tpu_ops']} of the base's {ops} ops on the Edge TPU."


def _histogram(cosines: list[float]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Bars and ticks of the cosines, from the lowest to 1."""
    low = min(min(cosines), 0.999)
    counts, edges = np.histogram(cosines, _BINS, (low, 1.0))
    width = _WIDTH / _BINS
    bars = [
        {
            "x": round(_LEFT + place * width, 1),
            "width": round(width - 1.5, 1),
            "height": round(_HEIGHT * count / max(1, counts.max()), 1),
            "title": f"{count} crops of {edges[place]:.4f} to {edges[place + 1]:.4f}",
        }
        for place, count in enumerate(counts.tolist())
    ]
    ticks = [
        {"x": round(_LEFT + share * _WIDTH, 1), "text": f"{low + share * (1 - low):.4f}"}
        for share in (0, 0.25, 0.5, 0.75, 1)
    ]
    return bars, ticks
