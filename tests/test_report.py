from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from crops import write_crops
from small_base import pixels_as_embedding

from facetpu.artefacts import write_manifest
from facetpu.cli import main
from facetpu.errors import FacetpuError
from facetpu.history import History, read_history
from facetpu.stages.evaluate import evaluate
from facetpu.stages.report import report


@pytest.fixture
def export(tmp_path: Path) -> Path:
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "base.tflite").write_bytes(pixels_as_embedding(8))
    ops = [{"op": "CONV_2D", "target": "TPU", "reason": ""}] * 3 + [
        {"op": "SOFTMAX", "target": "CPU", "reason": "dynamic <shape>"}
    ]
    found = {"ops": ops, "stages": {"quantize": {"lowest_cosine": 0.98765}}}
    (folder / "report.json").write_text(json.dumps(found))
    write_manifest(folder, "export", {"samples": 200}, {}, tpu_ops=3, threshold=0.25, people=66)
    return folder


def test_a_page_holds_every_stage_in_the_order_of_the_pipeline(export, tmp_path):
    crops = write_crops(tmp_path / "crops", people=8, photos=4, size=8)
    write_manifest(crops, "align", {"size": 8}, {}, counts={"photos": 33, "aligned": 32})
    measured = evaluate(export / "base.tflite", crops, out=tmp_path / "evaluation")
    out = tmp_path / "report.html"
    done = report([tmp_path / "evaluation", export, crops], out)
    assert done.sections == ["Crops", "Export: quantisation and mapping", "Evaluation"]
    page = out.read_text(encoding="utf-8")
    order = [page.index(f">{title}</h2>") for title in done.sections]
    assert order == sorted(order)
    for shown in ("<b>33</b><span>photos", "<b>0.25</b><span>threshold", f"{measured.accuracy:.2%}"):
        assert shown in page
    assert "<td>CONV_2D</td><td>3</td><td>TPU</td>" in page
    assert "dynamic &lt;shape&gt;" in page
    assert "<td>quantize.lowest_cosine</td>" in page
    assert "0.9877" in page
    assert page.count("data:image/png") == 4
    with pytest.raises(FacetpuError, match="exists"):
        report([export], out)


def test_a_trainings_curves_are_those_of_its_history(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    history = History(run)
    for step in (10, 20, 30):
        history.add(step=step, seconds=step / 2, loss=3 / step)
    history.add(step=30, seconds=15, validation_auc=0.9)
    write_manifest(run, "train", {"seed": 1}, {}, steps=30, loss=0.1, validation_accuracy=None)
    with history.path.open("a") as file:
        file.write("40,20,0.0")  # killed while it wrote
    assert read_history(run) == history.rows
    report([run], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png") == 2
    assert "<span>loss" in page
    assert "<span>validation accuracy" not in page  # it was not measured
    assert page.index("The loss over the steps.") < page.index("The AUC of validation pairs over the steps.")
    for damaged in ("40,20,low,,,,,", "40,20", ",20,0.1,,,,,", "\0"):
        lines = history.path.read_text().splitlines()[:4]
        history.path.write_text("\n".join([*lines, damaged]) + "\n")
        with pytest.raises(FacetpuError, match=r"history.csv: line 5 is no measurement of a training"):
            report([run], tmp_path / "another.html")
    assert not (tmp_path / "another.html").exists()


def test_what_is_no_stage_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(FacetpuError, match="is no folder of align, train, export, evaluate"):
            report([folder], tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_the_command_names_the_sections(export, tmp_path):
    out = tmp_path / "page.html"
    done = CliRunner().invoke(main, ["report", str(export), "--out", str(out)])
    assert done.stdout == f"{out}: Export: quantisation and mapping\n"
