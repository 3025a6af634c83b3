from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from small_base import pixels_as_embedding

from facetpu.cli import main
from facetpu.errors import FacetpuError
from facetpu.evaluation.clustering import METHODS, NOBODY, agreement, chinese_whispers, largest_first
from facetpu.metrics import unit
from facetpu.stages.cluster import cluster

SIZES = {"Ana": 6, "Bo": 4, "Cy": 3, "Di": 1}


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    for person, count in SIZES.items():
        (tmp_path / "crops" / person).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(np.full((4, 4, 3), 40 * number, np.uint8)).save(
                tmp_path / "crops" / person / f"{number}.png"
            )
    return tmp_path / "crops"


@pytest.fixture
def model(tmp_path: Path, crops: Path) -> Path:
    rng = np.random.default_rng(0)
    files = sorted(crops.rglob("*.png"))
    axes = np.eye(6)[[list(SIZES).index(file.parent.name) for file in files]]
    rows = (axes + 0.15 * rng.normal(size=axes.shape)).astype(np.float32)
    names = [file.relative_to(crops).as_posix() for file in files]
    np.savez(tmp_path / "embeddings.npz", crops=np.array(names), embeddings=rows)
    return tmp_path / "embeddings.npz"


@pytest.mark.parametrize("method", METHODS)
def test_faces_are_sorted_into_people(model, crops, tmp_path, method):
    out = tmp_path / "out"
    found = cluster(model, crops, out, threshold=0.6, method=method, check=True)
    assert found[1:4] == (14, 3, 1)
    assert found.agreement == (1, 1, 1, 1)
    folders = {
        folder.name: sorted(file.name for file in folder.iterdir())
        for folder in out.iterdir()
        if folder.is_dir()
    }
    assert folders == {
        "person 001": [f"Ana_{number}.png" for number in range(6)],
        "person 002": [f"Bo_{number}.png" for number in range(4)],
        "person 003": [f"Cy_{number}.png" for number in range(3)],
        "alone": ["Di_0.png"],
    }
    assert (out / "person 002" / "Bo_1.png").read_bytes() == (crops / "Bo" / "1.png").read_bytes()
    rows = list(csv.DictReader((out / "clusters.csv").read_text().splitlines()))
    assert (rows[6]["crop"], rows[6]["person"]) == ("Bo/0.png", "person 002")
    assert 0.8 < float(rows[6]["cosine"]) <= 1
    page = (out / "clusters.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg") == 14
    assert "<b>3</b><span>people" in page
    assert cluster(model, crops, out, threshold=0.6, method=method, check=True) == found


def test_the_threshold_is_what_one_in_a_thousand_pairs_of_the_cohort_reach(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "base.tflite").write_bytes(pixels_as_embedding(4))
    embeddings = unit(rng.normal(size=(100, 48)), "test")
    people = np.arange(100, dtype=np.int32)
    np.savez(tmp_path / "cohort.npz", embeddings=embeddings, people=people)
    crops = tmp_path / "crops"
    crops.mkdir()
    for number in range(3):
        pixels = rng.integers(0, 256, (4, 4, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(crops / f"{number}.png")
        Image.fromarray(pixels).save(crops / f"{number}-again.png")
    found = cluster(tmp_path, crops, tmp_path / "out")
    cosines = (embeddings @ embeddings.T)[np.triu_indices(100, 1)]
    assert np.mean(cosines >= found.threshold) == pytest.approx(0.001, abs=2e-4)
    assert (found.people, found.alone) == (3, 0)


def test_bad_input_is_one_clear_line(model, crops, tmp_path):
    with pytest.raises(FacetpuError, match=r"has no cohort\.npz beside it to take a threshold from"):
        cluster(model, crops, tmp_path / "out")
    (crops / "Di" / "0.png").rename(crops / "0.png")
    with pytest.raises(FacetpuError, match=r"0\.png: is in no person's folder"):
        cluster(model, crops, tmp_path / "out", threshold=0.5, check=True)
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_it_found(model, crops, tmp_path):
    out = str(tmp_path / "out")
    done = CliRunner().invoke(main, ["cluster", str(model), str(crops), out, "--threshold", "0.6", "--check"])
    assert done.stdout == (
        f"{out}: 3 people in 14 faces, 1 alone (whispers, cosine 0.600)\n  against the folders: B-cubed "
        "precision 100.0%, recall 100.0%, F1 100.0%; pairwise F1 100.0%\n"
    )


def test_one_look_alike_joins_no_two_crowds():
    """Two crowds with one face between them: whispers keep them apart where a chain would not."""
    rng = np.random.default_rng(0)
    crowd = np.repeat([[1.0, 0, 0, 0], [0, 1.0, 0, 0]], 10, axis=0) + 0.1 * rng.normal(size=(20, 4))
    faces = unit(np.vstack([crowd, [[1.0, 1.0, 0, 0]]]), "test")
    labels = chinese_whispers(faces, 0.6)
    assert len(set(labels[:10])) == len(set(labels[10:20])) == 1
    assert labels[0] != labels[10]
    assert len(set(METHODS["dbscan"](faces, 0.6, 0))) == 1


@given(st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 3)), min_size=1, max_size=25))
def test_agreement_is_b_cubed_by_its_definition(pairs):
    labels, people = np.array(pairs).T
    clusters = [label if label != NOBODY else -2 - index for index, label in enumerate(labels)]
    precision, recall, together, clustered, true = [], [], 0, 0, 0
    for i, (cluster_of, person) in enumerate(zip(clusters, people, strict=True)):
        mine = [j for j, other in enumerate(clusters) if other == cluster_of]
        ours = [j for j, other in enumerate(people) if other == person]
        precision.append(len(set(mine) & set(ours)) / len(mine))
        recall.append(len(set(mine) & set(ours)) / len(ours))
        together += len(set(mine) & set(ours) - {i})
        clustered += len(mine) - 1
        true += len(ours) - 1
    score = agreement(labels, people)
    assert score.precision == pytest.approx(np.mean(precision))
    assert score.recall == pytest.approx(np.mean(recall))
    assert score.pairs_f1 == pytest.approx(2 * together / (clustered + true) if clustered + true else 1)
    assert score.f1 == pytest.approx(2 / (1 / np.mean(precision) + 1 / np.mean(recall)))


def test_clusters_are_numbered_by_size():
    labels = np.array([7, 7, 3, 3, 3, 9, -1, 5, 5, -1])
    assert largest_first(labels).tolist() == [1, 1, 0, 0, 0, -1, -1, 2, 2, -1]
