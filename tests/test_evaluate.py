from __future__ import annotations

import csv
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from small_base import pixels_as_embedding

from facetpu import metrics
from facetpu.artefacts import write_manifest
from facetpu.cli import main
from facetpu.errors import FacetpuError
from facetpu.evaluation.figures import read_evaluation
from facetpu.stages.embed import embed
from facetpu.stages.evaluate import FAR, EvaluateConfig, evaluate

SIDE = 8


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
    path.write_bytes(pixels_as_embedding(SIDE))
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
    val = metrics.validate_folds(scores, same, np.repeat([0, 1], 24), 0.001)
    assert result._asdict() == {
        "model": "base.tflite",
        "accuracy": pytest.approx(verification.accuracy),
        "std": pytest.approx(verification.std),
        "auc": pytest.approx(metrics.auc(curve)),
        "eer": pytest.approx(metrics.equal_error_rate(curve)),
        "tar": {far: pytest.approx(metrics.tar_at_far(curve, float(far))) for far in FAR},
        "metric": "cosine",
        "flip": False,
        "thresholds": {
            far: pytest.approx(metrics.threshold_at_far(scores[~same], float(far)), abs=1e-5) for far in FAR
        },
        "val": pytest.approx(val.val),
        "val_std": pytest.approx(val.std),
        "val_far": pytest.approx(val.far),
        "identification": None,
        "groups": None,
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
    float_base.write_bytes(pixels_as_embedding(SIDE, np.float32))
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
        "det.png", "evaluation.html", "evaluation.json", "manifest.json", "map.png", "pairs.csv", "roc.png",
        "scores.png",
    ]  # fmt: skip
    assert json.loads((out / "evaluation.json").read_text()) == result._asdict()
    for name in ("roc.png", "det.png", "scores.png", "map.png"):
        picture = np.asarray(Image.open(out / name).convert("RGB"))
        assert picture.shape[1] > picture.shape[0] > 400
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50
    page = (out / "evaluation.html").read_text(encoding="utf-8")
    assert page.count("data:image/png") == 4
    assert page.count("data:image/jpeg") == 2 * (12 + 12)
    assert f"{result.auc:.4f}" in page
    assert read_evaluation(out) == result
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
        "base.tflite", "accuracy", "AUC", "EER", "VAL", "TAR", "TAR", "TAR", "threshold", "rank-1",
        "pairs",
    ]  # fmt: skip


def test_euclidean_gives_facenets_figures_as_squared_distances(model, crops, pairs_file):
    cosine = evaluate(model, crops, pairs_file)
    result = evaluate(model, crops, pairs_file, config=EvaluateConfig(metric="euclidean"))
    scores, same = by_hand(crops, pairs_file)
    grid = 1 - np.arange(0, 4, 0.01) / 2
    assert result.folds == pytest.approx(
        metrics.verify_folds(scores, same, np.repeat([0, 1], 24), grid).folds
    )
    assert (result.auc, result.eer, result.tar) == (cosine.auc, cosine.eer, cosine.tar)
    assert result.thresholds == {far: pytest.approx(2 - 2 * cosine.thresholds[far]) for far in FAR}
    assert "(squared distance)" in str(result)


def test_flipping_averages_with_the_mirror_image(model, crops, pairs_file, tmp_path):
    embed(model, crops, tmp_path / "flipped.npz", flip=True)
    with np.load(tmp_path / "flipped.npz") as arrays:
        names, rows = arrays["crops"].tolist(), arrays["embeddings"]
    for name, row in list(zip(names, rows, strict=True))[:5]:
        pixels = np.asarray(Image.open(crops / name), np.float64) - 128
        expected = pixels + pixels[:, ::-1]  # lengths are equal, so the sum points where the mean does
        np.testing.assert_allclose(row, expected.ravel() / np.linalg.norm(expected), atol=1e-5)
    flipped = evaluate(model, crops, pairs_file, config=EvaluateConfig(flip=True))
    assert flipped.flip
    from_file = evaluate(tmp_path / "flipped.npz", crops, pairs_file)
    assert from_file.folds == flipped.folds
    with pytest.raises(FacetpuError, match="no photos to mirror"):
        evaluate(tmp_path / "flipped.npz", crops, config=EvaluateConfig(flip=True))


def test_embeddings_of_a_file_stand_for_the_model(model, crops, pairs_file, tmp_path):
    path = tmp_path / "crops.npz"
    done = CliRunner().invoke(main, ["embed", str(model), str(crops), str(path)])
    assert done.stdout == f"{path}: 72 embeddings of 192 numbers\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert evaluate(path, crops, pairs_file)._replace(model="base.tflite") == evaluate(
        model, crops, pairs_file
    )
    Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8)).save(crops / "p00" / "p00_0009.png")
    with pytest.raises(FacetpuError, match=r"lacks 1 of .* crops, p00/p00_0009\.png first"):
        evaluate(path, crops, config=EvaluateConfig(identify=[2]))
    path.write_bytes(b"no arrays")
    with pytest.raises(FacetpuError, match="is no file of embeddings"):
        evaluate(path, crops)


def test_identification_enrols_some_and_knows_the_others_for_strangers(model, tmp_path):
    crops = make_crops(tmp_path / "crops", people=10, photos=5, noise=40)
    for person in ("p07", "p08", "p09"):
        (crops / person / f"{person}_0005.png").unlink()
        (crops / person / f"{person}_0004.png").unlink()
    out = tmp_path / "out"
    result = evaluate(model, crops, out=out, config=EvaluateConfig(identify=[1, 3], repeats=4))
    found = result.identification
    assert (found.enrolled, found.strangers, found.stranger_faces, found.repeats) == (7, 3, 9, 4)
    one, three = found.rates
    assert (one.photos, three.photos) == (1, 3)
    assert three.ranks[0][0] == 1 >= one.ranks[0][0] > 0.8
    assert three.dir["0.1"][0] > 0.9
    assert {person.faces for person in found.people} == {4 * 2}
    assert read_evaluation(out) == evaluate(
        model, crops, out=out, config=EvaluateConfig(identify=[1, 3], repeats=4)
    )
    assert {"cmc.png", "open_set.png", "photos.png"} <= {file.name for file in out.iterdir()}
    assert "9 faces of\n3 strangers" in (out / "evaluation.html").read_text()
    assert "3 photos each: rank-1 100.0% ± 0.0" in str(result)


def test_lists_say_who_is_enrolled_and_who_is_a_stranger(model, crops, tmp_path):
    (tmp_path / "enrolled").write_text("p00\np01\n\np02\n")
    (tmp_path / "strangers").write_text("p10\np11\n")
    lists = EvaluateConfig(
        identify=[2], repeats=2, enrolled=tmp_path / "enrolled", strangers=tmp_path / "strangers"
    )
    found = evaluate(model, crops, config=lists).identification
    assert (found.enrolled, found.strangers, found.stranger_faces) == (3, 2, 6)

    cases = [
        ("enrolled", "p00\nnobody\n", "enrolled: nobody has no folder of crops"),
        ("strangers", "\n", "strangers: names nobody"),
        ("strangers", "p02\n", "strangers: p02 is enrolled, and so no stranger"),
    ]
    for name, text, message in cases:
        before = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text)
        with pytest.raises(FacetpuError, match=message):
            evaluate(model, crops, config=lists)
        (tmp_path / name).write_text(before)
    (crops / "p01" / "p01_0002.png").unlink()
    (crops / "p01" / "p01_0003.png").unlink()
    with pytest.raises(FacetpuError, match="p01 has 1 photos, and enrolling 2 takes 3 or more"):
        evaluate(model, crops, config=lists)
    with pytest.raises(FacetpuError, match="nobody has more than 9 photos"):
        evaluate(model, crops, config=EvaluateConfig(identify=[9]))
    with pytest.raises(FacetpuError, match="give --identify too"):
        evaluate(model, crops, config=EvaluateConfig(enrolled=tmp_path / "enrolled"))


def test_everybody_enrolled_leaves_the_closed_set_alone(model, crops):
    found = evaluate(model, crops, config=EvaluateConfig(identify=[2], repeats=2)).identification
    assert (found.enrolled, found.strangers, found.curve) == (24, 0, None)
    assert found.rates[0].dir is None
    assert "strangers" not in str(found)


def test_error_rates_by_group(model, crops, pairs_file, tmp_path):
    groups = tmp_path / "groups.csv"
    groups.write_text(
        "person,hair\n" + "".join(f"p{n:02d},{'dark' if n < 12 else 'fair'}\n" for n in range(23))
    )
    result = evaluate(model, crops, pairs_file, config=EvaluateConfig(groups=groups))
    scores, same = by_hand(crops, pairs_file)
    threshold = metrics.threshold_at_far(scores[~same], 0.01)
    dark, fair = result.groups
    assert (dark.column, dark.value, dark.same, dark.different) == ("hair", "dark", 12, 12)
    assert dark.false_rejects == pytest.approx(np.mean(scores[:12] < threshold))
    assert dark.false_accepts == pytest.approx(np.mean(scores[12:24] >= threshold))
    assert (fair.same, fair.different) == (11, 10)  # p23 is in no group
    for text, message in (
        ("name,hair\nAna,dark\n", "needs a first line with 'person' or 'photo'"),
        ("person,hair\nAna,dark\n", "names no person of the crops, such as p00"),
        ("", "needs a first line"),
    ):
        groups.write_text(text)
        with pytest.raises(FacetpuError, match=message):
            evaluate(model, crops, pairs_file, config=EvaluateConfig(groups=groups))


def test_insightfaces_bin_brings_its_own_crops(model, crops, pairs_file, tmp_path):
    photos, same = [], []
    for line in pairs_file.read_text().splitlines()[1:]:
        fields = line.split("\t")
        names = [(fields[0], fields[1]), (fields[2] if len(fields) == 4 else fields[0], fields[-1])]
        photos += [(crops / name / f"{name}_{int(n):04d}.png").read_bytes() for name, n in names]
        same.append(len(fields) == 3)
    path = tmp_path / "lfw.bin"
    path.write_bytes(pickle.dumps(([np.frombuffer(photo, np.uint8) for photo in photos], same)))
    result = evaluate(model, path, out=tmp_path / "out")
    expected = evaluate(model, crops, pairs_file)
    assert (result.pairs, result.crops, result.auc) == (48, 60, pytest.approx(expected.auc))
    assert (result.rank1, result.people, len(result.folds)) == (None, None, 10)
    with pytest.raises(FacetpuError, match="for verification alone"):
        evaluate(model, path, config=EvaluateConfig(identify=[1]))


def test_equal_scores_are_a_broken_model_too(crops, pairs_file, tmp_path):
    """Every crop at a right angle to every other: nothing is near to anything."""
    names = [crop.relative_to(crops).as_posix() for crop in sorted(crops.rglob("*.png"))]
    np.savez(tmp_path / "corners.npz", crops=np.array(names), embeddings=np.eye(len(names), dtype=np.float32))
    with pytest.raises(FacetpuError, match=r"gives all 48 pairs the score 0\.000000, so it is broken"):
        evaluate(tmp_path / "corners.npz", crops, pairs_file)


def test_the_command_takes_numbers_of_photos(model, crops):
    arguments = ["evaluate", str(model), str(crops), "--repeats", "2", "-q", "--identify"]
    done = CliRunner().invoke(main, [*arguments, "1,2", "--json"])
    found = json.loads(done.stdout)["identification"]
    assert [rates["photos"] for rates in found["rates"]] == [1, 2]
    assert found["enrolled"] == 24
    for wrong in ("five", "0", "1,,2"):
        done = CliRunner().invoke(main, [*arguments, wrong])
        assert done.exit_code == 2
        assert "is not numbers of photos such as 5 or 1,5,10" in done.stderr


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
