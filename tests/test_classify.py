from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from facetpu.cli import main
from facetpu.errors import FacetpuError
from facetpu.evaluation.classifiers import CLASSIFIERS, Split, judge
from facetpu.metrics import unit
from facetpu.stages.classify import ClassifyConfig, classify

SIZES = {"Ana": 7, "Bo": 7, "Cy": 7, "unknown": 8}


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    """Names of crops; their embeddings are in a file, so that no model is needed."""
    return folder_of(tmp_path / "crops", SIZES)


@pytest.fixture
def model(tmp_path: Path, crops: Path) -> Path:
    return embeddings_of(tmp_path / "embeddings.npz", crops)


def folder_of(folder: Path, sizes: dict[str, int], first: int = 0) -> Path:
    for person, count in sizes.items():
        (folder / person).mkdir(parents=True)
        for number in range(first, first + count):
            (folder / person / f"{number}.png").touch()
    return folder


def embeddings_of(path: Path, *folders: Path) -> Path:
    """Each person about an axis of their own, each stranger anywhere else."""
    names, rows = [], []
    rng = np.random.default_rng(0)
    for folder in folders:
        for crop in sorted(folder.rglob("*.png")):
            names.append(crop.relative_to(folder).as_posix())
            axis = ["Ana", "Bo", "Cy"].index(crop.parent.name) if crop.parent.name != "unknown" else None
            row = 0.15 * rng.normal(size=8)
            row[axis if axis is not None else rng.integers(3, 8)] += 1
            rows.append(row)
    np.savez(path, crops=np.array(names), embeddings=np.array(rows, np.float32))
    return path


def test_every_classifier_tells_clear_people_apart_and_refuses_strangers(model, crops):
    result = classify(model, crops, config=ClassifyConfig(photos=4, repeats=3))
    assert (result.people, result.learnt, result.told, result.strangers) == (3, 12, 9, 4)
    assert [row.classifier for row in result.classifiers] == list(CLASSIFIERS)
    for row in result.classifiers:
        assert row.top1 == (1.0, 0.0), row.classifier
        if row.classifier != "k-nn":  # its votes know no strangers
            assert row.dir["0.1"][0] > 0.8, row.classifier
            assert row.misnamed == (0.0, 0.0)
        assert row.accepted[0] <= 0.25
        assert row.fit_ms > 0
        assert row.face_us > 0


def test_two_folders_are_learnt_from_and_told(tmp_path, crops):
    test = folder_of(tmp_path / "test", {"Ana": 2, "Cy": 1, "unknown": 3}, first=50)
    model = embeddings_of(tmp_path / "both.npz", crops, test)
    out = tmp_path / "out"
    settings = ClassifyConfig(classifiers=["mean", "svm"])
    result = classify(model, crops, test, out, config=settings)
    assert (result.learnt, result.told, result.strangers, result.repeats) == (21, 3, 3, 1)
    rows = list(csv.DictReader((out / "predictions.csv").read_text().splitlines()))
    assert [(row["photo"], row["mean"], row["svm"]) for row in rows] == [
        ("Ana/50.png", "Ana", "Ana"),
        ("Ana/51.png", "Ana", "Ana"),
        ("Cy/50.png", "Cy", "Cy"),
    ]
    assert str(classify(model, crops, test, out, config=settings)) == str(result)  # read back
    document = json.loads((out / "classifiers.json").read_text())
    assert document["classifiers"][0]["top1"] == [1.0, 0.0]


def test_without_strangers_the_closed_set_alone_is_judged(tmp_path):
    crops = folder_of(tmp_path / "crops", {"Ana": 3, "Bo": 4})
    model = embeddings_of(tmp_path / "embeddings.npz", crops)
    result = classify(model, crops, config=ClassifyConfig(photos=2, repeats=2))
    assert {row.classifier: row.top1 for row in result.classifiers} == dict.fromkeys(CLASSIFIERS, (1.0, 0.0))
    assert {(row.dir, row.right, row.accepted) for row in result.classifiers} == {(None, None, None)}
    assert "*" not in str(result)


def test_the_cosines_are_those_of_their_definition():
    rng = np.random.default_rng(3)
    rows, faces = unit(rng.normal(size=(6, 5)), "test"), unit(rng.normal(size=(4, 5)), "test")
    people = np.array([0, 0, 1, 1, 1, 2])
    means = np.stack([rows[people == person].mean(axis=0) for person in range(3)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(CLASSIFIERS["mean"](rows, people)(faces), faces @ means.T, atol=1e-6)
    photos = np.stack([(faces @ rows[people == person].T).max(axis=1) for person in range(3)], axis=1)
    np.testing.assert_allclose(CLASSIFIERS["nearest"](rows, people)(faces), photos, atol=1e-6)
    stored = CLASSIFIERS["imprinted"](rows, people)(faces)
    np.testing.assert_allclose(stored, faces @ means.T, atol=3 / 128)
    np.testing.assert_array_equal(stored * 128, np.round(stored * 128))


def test_an_imprinted_model_agrees_with_the_row_called_imprinted():
    """The head as the runtime computes it, on rows that Coral's engine writes."""
    from facetpu.board.runner import open_model
    from facetpu.tflite.head import build_head

    rng = np.random.default_rng(1)
    rows, people = unit(rng.normal(size=(8, 16)), "test"), np.repeat([0, 1], 4)
    faces = unit(rng.normal(size=(20, 16)), "test")
    means = np.stack([rows[people == person].mean(axis=0) for person in range(2)])
    head = build_head(unit(means, "test"), 16, 1 / 128, 128)
    interpreter = open_model(head, Path("head.tflite"))
    (entry,), (end,) = interpreter.get_input_details(), interpreter.get_output_details()
    told = []
    for face in faces:
        stored = np.clip(np.round(face * 128) + 128, 0, 255).astype(np.uint8)
        interpreter.set_tensor(entry["index"], stored.reshape(entry["shape"]))
        interpreter.invoke()
        told.append(interpreter.get_tensor(end["index"]).ravel())
    scores = CLASSIFIERS["imprinted"](rows, people)(faces)
    clear = np.abs(scores[:, 0] - scores[:, 1]) > 2 / 128
    assert clear.sum() > 10
    assert (np.argmax(told, axis=1) == scores.argmax(axis=1))[clear].all()


def test_a_threshold_is_set_on_some_strangers_and_judged_on_others():
    embeddings = np.array([[0.9], [0.8], [0.7], [0.2], [0.3], [0.5], [0.75], [0.1]])
    split = Split(np.array([], int), np.array([0, 1, 2]), np.array([3, 4, 5]), np.array([6, 7]))
    judged = judge(
        lambda rows: np.hstack([rows, -rows]), embeddings, np.array([0, 1, 0]), split, 0.01, ["0.5"]
    )
    assert judged.top1 == pytest.approx(2 / 3)
    assert judged.dir == {"0.5": pytest.approx(2 / 3)}
    assert (judged.right, judged.misnamed, judged.accepted) == (
        pytest.approx(2 / 3),
        pytest.approx(1 / 3),
        0.5,
    )
    assert 0.5 < judged.threshold < 0.7


def test_bad_input_is_one_clear_line(model, crops, tmp_path):
    with pytest.raises(FacetpuError, match=r"crops/Ana: has 7 photos, and learning 7 .* takes 8 or more"):
        classify(model, crops, config=ClassifyConfig(photos=7))
    with pytest.raises(FacetpuError, match="test/Di: is of nobody in"):
        classify(model, crops, folder_of(tmp_path / "test", {"Ana": 1, "Di": 1}))
    with pytest.raises(FacetpuError, match="strangers: holds nobody of"):
        classify(model, crops, folder_of(tmp_path / "strangers", {"unknown": 1}))
    with pytest.raises(FacetpuError, match="has 1 known people"):
        classify(model, folder_of(tmp_path / "one", {"Ana": 9, "unknown": 2}))


def test_a_missing_scikit_learn_is_advice(model, crops, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.svm", None)
    done = CliRunner().invoke(main, ["classify", str(model), str(crops), "--classifier", "svm"])
    assert done.exit_code == 1
    assert done.stderr.endswith("Error: sklearn is not installed: run pip install 'facetpu[evaluate]'\n")


def test_the_command_prints_a_table(model, crops):
    arguments = [
        "classify",
        str(model),
        str(crops),
        "--classifier",
        "mean",
        "--classifier",
        "nearest",
        "--repeats",
        "2",
    ]
    done = CliRunner().invoke(main, [*arguments, "-q"])
    lines = done.stdout.splitlines()
    assert lines[0] == "embeddings.npz: 3 people, 15 photos learnt, 6 told apart, 4 of strangers; 2 draws"
    assert [line.split()[0] for line in lines[1:]] == ["top-1", "mean", "nearest", "*"]
    assert json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)["people"] == 3
