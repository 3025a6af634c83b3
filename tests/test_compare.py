from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from crops import write_crops
from small_base import pixels_as_embedding

from facetpu.cli import main
from facetpu.errors import FacetpuError
from facetpu.stages.compare import compare
from facetpu.stages.embed import embed
from facetpu.stages.evaluate import evaluate

SIDE = 8


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    return write_crops(tmp_path / "crops", people=8, photos=4, size=SIDE)


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """An export folder whose compiled base is its int8 one with the name of the TPU's op in it."""
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "base.tflite").write_bytes(pixels_as_embedding(SIDE))
    (folder / "base_float.tflite").write_bytes(pixels_as_embedding(SIDE, np.float32))
    (folder / "base_edgetpu.tflite").write_bytes(pixels_as_embedding(SIDE) + b"edgetpu-custom-op")
    return folder


def test_each_form_is_measured_on_the_same_pairs(crops, export, tmp_path):
    embed(export / "base_float.tflite", crops, tmp_path / "float.npz")
    chain = compare(crops, [tmp_path / "float.npz", export])
    assert [(step.form, step.file) for step in chain.steps] == [
        ("embeddings", "float.npz"),
        ("float", "base_float.tflite"),
        ("int8", "base.tflite"),
    ]
    first, float_, int8 = chain.steps
    assert (first.ms, float_.cosine, float_.lowest_cosine) == (None, pytest.approx(1), pytest.approx(1))
    # The int8 base of this test takes 128 off and the float one does not: another embedding altogether.
    assert int8.lowest_cosine < int8.cosine < 0.9
    assert (float_.bytes, int8.ms > 0) == ((export / "base_float.tflite").stat().st_size, True)
    for step, model in ((float_, export / "base_float.tflite"), (int8, export / "base.tflite")):
        alone = evaluate(model, crops)
        assert (step.accuracy, step.std, step.auc) == (alone.accuracy, alone.std, alone.auc)
    assert chain.notes == [
        f"{export / 'base_edgetpu.tflite'}: there is no Edge TPU here; base.tflite is its twin on the CPU"
    ]


def test_the_command_writes_the_table(crops, export, tmp_path):
    out = tmp_path / "chain"
    done = CliRunner().invoke(main, ["compare", str(crops), str(export), "--out", str(out), "-q"])
    lines = done.stdout.splitlines()
    assert lines[0].endswith("pairs of 32 crops; cosine is to the first row's embeddings")
    assert [line.split()[0] for line in lines[1:4]] == ["accuracy", "float:", "int8:"]
    document = json.loads((out / "chain.json").read_text())
    assert [step["form"] for step in document["steps"]] == ["float", "int8"]
    assert str(compare(crops, [export], out=out)) + "\n" == done.stdout  # read back


def test_forms_of_two_networks_are_refused(crops, export, tmp_path):
    names = [file.relative_to(crops).as_posix() for file in sorted(crops.rglob("*.png"))]
    rows = np.random.default_rng(0).normal(size=(len(names), 5)).astype(np.float32)
    np.savez(tmp_path / "other.npz", crops=np.array(names), embeddings=rows)
    with pytest.raises(
        FacetpuError, match=r"gives 192 numbers a crop and .*other\.npz 5; compare forms of one"
    ):
        compare(crops, [tmp_path / "other.npz", export])
