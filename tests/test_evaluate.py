from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from facetpu import metrics
from facetpu.artefacts import write_manifest
from facetpu.cli import main
from facetpu.errors import FacetpuError
from facetpu.stages.evaluate import evaluate
from facetpu.tflite.build import Builder
from facetpu.tflite.schema import new

SIDE = 8


def pixels_as_embedding(dtype: type = np.uint8) -> bytes:
    """A base whose embedding is the crop itself: 192 numbers, quantised as (q - 128) / 128 or float."""
    scale = (1 / 128, 128) if dtype == np.uint8 else ()
    net = Builder()
    crop = net.input("crop", [1, SIDE, SIDE, 3], dtype, *scale)
    shape = net.constant("shape", np.array([1, 1, 1, SIDE * SIDE * 3], np.int32))
    embedding = net.activation("embedding", [1, 1, 1, SIDE * SIDE * 3], dtype, *scale)
    net.op("RESHAPE", [crop, shape], [embedding], new("ReshapeOptions", new_shape=[1, 1, 1, SIDE * SIDE * 3]))
    return net.finish([embedding])


def make_crops(root: Path, people: int = 24, photos: int = 3, noise: float = 70, side: int = SIDE) -> Path:
    """A pattern for each person, and noise on each photo: easy to tell apart, but not for certain."""
    rng = np.random.default_rng(0)
    for person in range(people):
        folder = root / f"p{person:02d}"
        folder.mkdir(parents=True)
        pattern = rng.integers(64, 192, (side, side, 3))
        for photo in range(1, photos + 1):
            crop = np.clip(pattern + rng.normal(0, noise, pattern.shape), 0, 255).astype(np.uint8)
            Image.fromarray(crop).save(folder / f"{folder.name}_{photo:04d}.png")
    return root


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    return make_crops(tmp_path / "crops")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "base.tflite"
    path.write_bytes(pixels_as_embedding())
    return path


@pytest.fixture
def pairs_file(tmp_path: Path) -> Path:
    """Two folds of twelve and twelve, all in the crops."""
    lines = ["2\t12"]
    for fold in range(2):
        names = [f"p{12 * fold + index:02d}" for index in range(12)]
        lines += [f"{name}\t1\t{2 + index % 2}" for index, name in enumerate(names)]
        lines += [f"{name}\t1\t{other}\t3" for name, other in zip(names, names[1:] + names[:1], strict=True)]
    path = tmp_path / "pairs.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


def by_hand(crops: Path, pairs: Path) -> tuple[np.ndarray, np.ndarray]:
    """The score of each pair straight from the pixels."""

    def embedding(name: str, number: str) -> np.ndarray:
        crop = (
            np.asarray(Image.open(crops / name / f"{name}_{int(number):04d}.png"), np.float64).ravel() - 128
        )
        return crop / np.linalg.norm(crop)

    scores, same = [], []
    for line in pairs.read_text().splitlines()[1:]:
        fields = line.split("\t")
        other = fields[2] if len(fields) == 4 else fields[0]
        scores.append(embedding(*fields[:2]) @ embedding(other, fields[-1]))
        same.append(len(fields) == 3)
    return np.array(scores), np.array(same)


def test_the_figures_are_those_of_the_models_embeddings(model, crops, pairs_file):
    result = evaluate(model, crops, pairs_file)
    scores, same = by_hand(crops, pairs_file)
    verification = metrics.verify_folds(scores, same, np.repeat([0, 1], 24))
    curve = metrics.roc(scores, same)
    assert result._asdict() == {
        "model": "base.tflite",
        "accuracy": pytest.approx(verification.accuracy),
        "std": pytest.approx(verification.std),
        "auc": pytest.approx(metrics.auc(curve)),
        "eer": pytest.approx(metrics.equal_error_rate(curve)),
        "tar": {far: pytest.approx(metrics.tar_at_far(curve, float(far))) for far in ("0.01", "0.001")},
        "threshold": pytest.approx(verification.threshold, abs=1e-5),
        "rank1": result.rank1,
        "people": 24,
        "crops": 60,
        "pairs": 48,
        "missing": 0,
        "missing_crops": [],
        "folds": pytest.approx(verification.folds),
    }
    assert 0.8 < result.accuracy < 1
    assert 0.8 < result.rank1 <= 1


def test_a_float_base_and_a_folder_around_it_give_the_same(model, crops, pairs_file, tmp_path):
    quantised = evaluate(model, crops, pairs_file)
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "base.tflite").write_bytes(model.read_bytes())
    assert evaluate(folder, crops, pairs_file) == quantised
    float_base = tmp_path / "base_float.tflite"
    float_base.write_bytes(pixels_as_embedding(np.float32))
    # Not the same embedding: the float base of this test does not subtract the 128.
    assert evaluate(float_base, crops, pairs_file).pairs == quantised.pairs


def test_without_a_pairs_file_pairs_are_drawn(model, crops):
    result = evaluate(model, crops)
    assert (result.pairs, result.people, len(result.folds)) == (2 * 24 * 3, 24, 10)
    assert result == evaluate(model, crops)


def test_the_out_folder_holds_figures_picture_and_every_score(model, crops, pairs_file, tmp_path, caplog):
    out = tmp_path / "evaluation"
    result = evaluate(model, crops, pairs_file, out)
    assert sorted(file.name for file in out.iterdir()) == [
        "curves.png", "evaluation.json", "manifest.json", "pairs.csv"
    ]  # fmt: skip
    assert json.loads((out / "evaluation.json").read_text()) == result._asdict()
    picture = np.asarray(Image.open(out / "curves.png").convert("RGB"))
    assert picture.shape[1] > picture.shape[0] > 400
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50
    rows = list(csv.DictReader((out / "pairs.csv").read_text().splitlines()))
    scores, same = by_hand(crops, pairs_file)
    np.testing.assert_allclose([float(row["cosine"]) for row in rows], scores, atol=1e-5)
    assert [row["same"] == "1" for row in rows] == same.tolist()
    assert rows[0] == {"fold": "0", "first": "p00/p00_0001.png", "second": "p00/p00_0002.png", "same": "1",
                       "cosine": f"{scores[0]:.6f}"}  # fmt: skip

    caplog.set_level("INFO")
    written = (out / "manifest.json").stat().st_mtime_ns
    assert evaluate(model, crops, pairs_file, out) == result
    assert (out / "manifest.json").stat().st_mtime_ns == written
    assert f"{out}: is up to date" in caplog.text

    (crops / "p00" / "p00_0001.png").unlink()
    with pytest.raises(FacetpuError, match="exists; choose another name, or pass --overwrite"):
        evaluate(model, crops, pairs_file, out)
    assert evaluate(model, crops, pairs_file, out, overwrite=True).missing == 2


def test_pairs_without_their_crops_are_counted_and_named(model, crops, pairs_file):
    (crops / "p03" / "p03_0001.png").unlink()
    result = evaluate(model, crops, pairs_file)
    assert (result.pairs, result.missing, result.missing_crops) == (46, 2, ["p03/p03_0001"])
    assert "46, 2 left out" in str(result)


def test_a_model_that_gives_one_embedding_is_broken_not_half_right(model, tmp_path):
    crops = make_crops(tmp_path / "same", noise=0, people=2)
    flat = np.full((SIDE, SIDE, 3), 200, np.uint8)
    for crop in crops.rglob("*.png"):
        Image.fromarray(flat).save(crop)
    with pytest.raises(FacetpuError, match=r"base.tflite: is broken: all 6 crops have one embedding"):
        evaluate(model, crops, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bad_input_is_one_clear_line(model, crops, tmp_path):
    cases = [
        (tmp_path / "none", "no such run, frozen graph or model"),
        (crops, "holds no model.tflite or base.tflite"),
        (crops / "p00" / "p00_0001.png", "is neither a run, a .pb nor a .tflite"),
    ]
    (tmp_path / "text.tflite").write_text("no model")
    cases.append((tmp_path / "text.tflite", "is no TFLite model"))
    for path, message in cases:
        with pytest.raises(FacetpuError, match=message) as error:
            evaluate(path, crops)
        assert str(error.value).startswith(str(path))
        assert "\n" not in str(error.value)

    larger = make_crops(tmp_path / "larger", side=9)
    with pytest.raises(FacetpuError, match=r"is 9x9 px and the model takes 8x8; align with --size 8"):
        evaluate(model, larger)
    (crops / "p00" / "p00_0001.png").write_bytes(b"")
    with pytest.raises(FacetpuError, match=r"p00_0001\.png"):
        evaluate(model, crops)


def test_crops_cut_in_another_way_than_the_models_are_warned_of(model, crops, caplog):
    arcface = {"template": "arcface", "size": SIDE, "margin": 44}
    write_manifest(model.parent, "export", {}, {}, alignment=arcface)
    write_manifest(crops, "align", {}, {}, alignment=arcface)
    evaluate(model, crops)
    assert not caplog.records
    write_manifest(crops, "align", {}, {}, alignment={**arcface, "template": "box"})
    evaluate(model, crops)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "'box'" in caplog.text


def test_the_command_prints_one_json_document_or_a_table(model, crops, pairs_file):
    arguments = ["evaluate", str(model), str(crops), "--pairs", str(pairs_file)]
    done = CliRunner().invoke(main, [*arguments, "--json"])
    assert done.exit_code == 0
    document = json.loads(done.stdout)
    assert document == evaluate(model, crops, pairs_file)._asdict()
    text = CliRunner().invoke(main, [*arguments, "-q"]).stdout
    assert [line.split("  ")[0].strip() or line.split()[0] for line in text.splitlines()] == [
        "base.tflite", "accuracy", "AUC", "EER", "TAR", "TAR", "threshold", "rank-1", "pairs",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_frozen_graph_gives_its_embedding_in_batches(crops, pairs_file, tmp_path):
    from facetpu.nets.tensorflow import tf, v1

    with tf.Graph().as_default() as graph:
        pixels = v1.placeholder(tf.float32, [1, SIDE, SIDE, 3], name="input")
        v1.nn.avg_pool2d((pixels - 128.0) / 128.0, 1, 1, "VALID", name="pixels")
        kernel = np.eye(SIDE * SIDE * 3, dtype=np.float32).reshape(SIDE, SIDE, 3, -1)
        tf.nn.conv2d(graph.get_tensor_by_name("pixels:0"), kernel, 1, "VALID", name="embedding")
    frozen = tmp_path / "frozen"
    frozen.mkdir()
    (frozen / "frozen.pb").write_bytes(graph.as_graph_def().SerializeToString())
    scores, same = by_hand(crops, pairs_file)
    expected = metrics.verify_folds(scores, same, np.repeat([0, 1], 24))
    for path in (frozen, frozen / "frozen.pb"):
        result = evaluate(path, crops, pairs_file)
        assert result.model == "frozen.pb"
        assert result.folds == pytest.approx(expected.folds)

    (frozen / "frozen.pb").write_bytes(b"no graph")
    with pytest.raises(FacetpuError, match="is no TensorFlow graph"):
        evaluate(frozen, crops, pairs_file)
    with tf.Graph().as_default() as graph:
        v1.placeholder(tf.float32, [1, SIDE, SIDE, 3], name="input")
    (frozen / "frozen.pb").write_bytes(graph.as_graph_def().SerializeToString())
    with pytest.raises(FacetpuError, match="has 0 L2 norms of an embedding"):
        evaluate(frozen, crops, pairs_file)


@pytest.mark.slow
def test_a_runs_newest_checkpoint_gives_its_embedding(tmp_path):
    from facetpu.config import Network, TrainConfig, write_config
    from facetpu.labels import write_labels
    from facetpu.nets.classifier import classify
    from facetpu.nets.tensorflow import tf, v1

    crops = make_crops(tmp_path / "crops", people=4, side=32)
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    network = Network(depth_multiplier=0.25, image_size=32, embedding_dim=16)
    write_config(run / "config.yaml", TrainConfig(network=network, steps=1))
    write_labels(run / "labels.txt", ["a", "b", "c"])
    files = sorted(crops.rglob("*.png"))
    with tf.Graph().as_default(), v1.Session() as session:
        tf.random.set_seed(0)
        pixels = v1.placeholder(tf.float32, [None, 32, 32, 3])
        output = classify(pixels, network, people=3, is_training=False)
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(run / "checkpoints" / "model.ckpt"), global_step=7)
        rows = session.run(output.embedding, {pixels: np.stack([np.asarray(Image.open(f)) for f in files])})
    expected = rows.reshape(len(files), 16)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    of_file = {file.relative_to(crops).as_posix(): row for file, row in zip(files, expected, strict=True)}

    evaluate(run, crops, out=tmp_path / "out")
    for row in csv.DictReader((tmp_path / "out" / "pairs.csv").read_text().splitlines()):
        assert float(row["cosine"]) == pytest.approx(of_file[row["first"]] @ of_file[row["second"]], abs=1e-5)

    for file in (run / "checkpoints").iterdir():
        file.unlink()
    with pytest.raises(FacetpuError, match="holds no checkpoint yet"):
        evaluate(run, crops)
