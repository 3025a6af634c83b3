from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from crops import write_crops
from small_base import pixels_as_embedding

from facetpu.artefacts import write_manifest
from facetpu.cli import main
from facetpu.errors import FacetpuError
from facetpu.evaluation.run_page import read_curves
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


def test_a_trainings_curves_are_read_and_its_pictures_are_none(tmp_path):
    from facetpu.nets.tensorflow import tf

    run = tmp_path / "run"
    writer = tf.summary.create_file_writer(str(run / "events"))
    with writer.as_default():
        for step in (10, 20, 30):
            tf.summary.scalar("loss", 3 / step, step=step)
            tf.summary.image("hard_pairs", np.zeros((1, 4, 4, 3), np.uint8), step=step)
    writer.close()
    write_manifest(run, "train", {"seed": 1}, {}, steps=30, loss=0.1)
    assert read_curves(run / "events") == {"loss": [(step, pytest.approx(3 / step)) for step in (10, 20, 30)]}
    report([run], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png") == 1
    assert "Loss over the steps." in page


def test_what_is_no_stage_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(FacetpuError, match="is no folder of align, train, export, evaluate"):
            report([folder], tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_the_command_names_the_sections(export, tmp_path):
    out = tmp_path / "page.html"
    done = CliRunner().invoke(main, ["report", str(export), "--out", str(out)])
    assert done.stdout == f"{out}: Export: quantisation and mapping\n"
