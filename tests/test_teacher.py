"""Learning from another network: its embeddings, made once, and a student that follows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from crops import write_crops
from onnx import TensorProto, helper, numpy_helper
from small_base import pixels_as_embedding

from facetpu.config import Augmentation, Teacher, TrainConfig
from facetpu.errors import FacetpuError
from facetpu.stages.pack import pack
from facetpu.training.sampling import read_index

pytestmark = pytest.mark.usefixtures("tiny")

DIM = 6


def write_teacher(path: Path, size: int = 112) -> np.ndarray:
    """An .onnx that sums each of two by three tiles of a picture, mixed; returns the mixing matrix."""
    kernel = np.random.default_rng(0).normal(size=(3 * 4, DIM)).astype(np.float32)
    half = size // 2
    nodes = [
        helper.make_node("AveragePool", ["x"], ["p"], kernel_shape=[half, half], strides=[half, half]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "k"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "teacher",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, size, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, DIM])],
        [numpy_helper.from_array(kernel, "k")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    return kernel


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher")
    write_crops(folder / "crops", people=4, photos=6, size=32)
    write_crops(folder / "strangers", people=2, photos=6, size=32)
    pack(folder / "crops", folder / "records", shards=2, validation=0.2, unlabelled=folder / "strangers")
    return folder / "records"


def test_the_embeddings_are_the_teachers_and_made_once(records: Path, tmp_path: Path) -> None:
    from facetpu.nets.tensorflow import tf
    from facetpu.training.records import all_photos, read_records
    from facetpu.training.teacher import read_targets

    kernel = write_teacher(tmp_path / "teacher.onnx")
    teacher = Teacher(model=str(tmp_path / "teacher.onnx"), mean=(100, 110, 120), std=(50, 60, 70))
    data = read_records(records)
    targets = read_targets(teacher, data)
    pixels = np.concatenate([batch for batch, _ in all_photos(data, data.train, 7)])
    large = np.clip(np.round(tf.image.resize(pixels, [112, 112], antialias=True)), 0, 255)  # its size
    expected = []
    for way in (large, large[:, :, ::-1]):
        scaled = ((way - [100, 110, 120]) / [50, 60, 70]).transpose(0, 3, 1, 2)
        tiles = scaled.reshape(len(way), 3, 2, 56, 2, 56).mean(axis=(3, 5)).reshape(len(way), 12)
        rows = tiles @ kernel
        expected.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    np.testing.assert_allclose(targets.embeddings, np.stack(expected, axis=1), atol=1e-4)
    np.testing.assert_allclose(targets.mean, np.mean(expected, axis=(0, 1)), atol=1e-4)
    chosen = targets.of(pixels[[3, 5]], np.array([3, 5]), np.array([False, True]))
    centred = np.stack([expected[0][3], expected[1][5]]) - targets.mean
    np.testing.assert_allclose(chosen, centred / np.linalg.norm(centred, axis=1, keepdims=True), atol=1e-4)
    (kept,) = records.glob(".teacher-*.npy")
    before = kept.stat().st_mtime_ns
    read_targets(teacher, data)
    assert kept.stat().st_mtime_ns == before
    assert len(list(records.glob(".teacher-*.npy"))) == 1
    kept.unlink()


def settings(teacher: Path | None, **changes: Any) -> TrainConfig:
    network = {"name": "tiny", "image_size": 32, "embedding_dim": DIM, "batch_norm_decay": 0.8}
    asked = {
        "network": network,
        "teacher": {"model": str(teacher)} if teacher else None,
        "loss": {"weight": 0},
        "steps": 200,
        "batch_size": 16,
        "optimizer": {"name": "adam", "learning_rate": 0.03},
        "augmentation": {"flip": False},  # so small a network has no room for mirror images
    }
    return TrainConfig.model_validate({**asked, **changes})


def test_a_student_follows_its_teacher_without_labels_and_beside_them(records: Path, tmp_path: Path) -> None:
    from facetpu.nets.tensorflow import tf
    from facetpu.stages.train import train

    write_teacher(tmp_path / "teacher.onnx")
    alone = train(settings(tmp_path / "teacher.onnx"), records, tmp_path / "alone")
    assert alone.loss < 0.2  # 1 - cosine; what knows nothing scores 1
    assert alone.validation_accuracy is None  # its head was not trained ...
    head = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(tmp_path / "alone/checkpoints")))
    rows = head.get_tensor("Logits/weights")[0, 0]  # ... but set to the people's mean embeddings
    np.testing.assert_allclose(np.linalg.norm(rows, axis=0), 1, atol=1e-5)
    both = train(settings(tmp_path / "teacher.onnx", loss="softmax", steps=80), records, tmp_path / "both")
    assert both.validation_accuracy == 1.0


def test_a_teacher_that_cannot_teach_is_told(records: Path, tmp_path: Path) -> None:
    from facetpu.stages.train import train

    with pytest.raises(FacetpuError, match=r"none.onnx: no such"):
        train(settings(tmp_path / "none.onnx"), records, tmp_path / "run")
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    with pytest.raises(FacetpuError, match=r"broken.onnx: onnxruntime cannot read it"):
        train(settings(tmp_path / "broken.onnx"), records, tmp_path / "run", overwrite=True)
    write_teacher(tmp_path / "teacher.onnx")
    wide = settings(
        tmp_path / "teacher.onnx", network={"name": "tiny", "image_size": 32, "embedding_dim": 16}
    )
    with pytest.raises(FacetpuError, match=r"gives embeddings of 6 and network.embedding_dim is 16"):
        train(wide, records, tmp_path / "run", overwrite=True)


def test_a_tflite_teaches(records: Path, tmp_path: Path) -> None:
    """The pixels are the embedding, quantised as (q - 128) / 128: its rows can be said beforehand."""
    from facetpu.training.records import all_photos, read_records
    from facetpu.training.teacher import read_targets

    (tmp_path / "teacher.tflite").write_bytes(pixels_as_embedding(32))
    data = read_records(records)
    targets = read_targets(Teacher(model=str(tmp_path / "teacher.tflite"), centered=False), data)
    pixels = np.concatenate([batch for batch, _ in all_photos(data, data.train, 7)])
    expected = [(way.reshape(len(way), -1) - 128) / 128 for way in (pixels, pixels[:, :, ::-1])]
    expected = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in expected]
    np.testing.assert_allclose(targets.embeddings, np.stack(expected, axis=1), atol=1e-6)
    rows, flipped = np.array([2, 0]), np.array([True, False])
    chosen = targets.of(pixels[rows], rows, flipped)
    np.testing.assert_allclose(chosen, [expected[1][2], expected[0][0]], atol=1e-6)


def test_a_live_teacher_tells_of_the_very_picture(records: Path, tmp_path: Path) -> None:
    """Its embeddings are the pixels, so that the targets are those of the batch, turned and crossed."""
    from facetpu.training.records import read_records, training_batches
    from facetpu.training.teacher import read_targets

    (tmp_path / "teacher.tflite").write_bytes(pixels_as_embedding(32))
    config = TrainConfig(
        teacher=Teacher(model=str(tmp_path / "teacher.tflite"), live=True),
        augmentation=Augmentation(rotation=10, mix=0.5),
        batch_size=8,
        steps=2,
    )
    data = read_records(records)
    targets = read_targets(config.teacher, data)
    first, again = (next(iter(training_batches(data, config, 1, None, targets.of))) for _ in range(2))
    rows = np.round(first.pixels).reshape(8, -1) / 128 - 1
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True) - targets.mean
    expected = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(first.targets, expected, atol=1e-5)
    assert np.array_equal(first.targets, again.targets)
    for live in (True, False):  # what it once said of the photos is kept for both
        assert (read_targets(config.teacher.model_copy(update={"live": live}), data).live is not None) == live


def test_a_face_of_nobody_has_no_label(records: Path, tmp_path: Path) -> None:
    from facetpu.stages.train import train
    from facetpu.training.augmentation import draw
    from facetpu.training.records import read_records, training_batches

    write_teacher(tmp_path / "teacher.onnx")
    live = Teacher(model=str(tmp_path / "teacher.onnx"), live=True)
    half = settings(None, augmentation={"flip": False}, loss="softmax", steps=3)
    half = half.model_copy(update={"augmentation": Augmentation(flip=False, mix=0.5), "teacher": live})
    data = read_records(records)
    whole = settings(None, augmentation={"flip": False}, loss="softmax", steps=3)
    mixed, plain = (next(iter(training_batches(data, config, 0))) for config in (half, whole))
    crossed = draw(16, [half.seed, 0]).mixed(half.augmentation).numpy()
    assert 0 < crossed.sum() < 16
    assert np.array_equal(mixed.labels, np.where(crossed, -1, plain.labels))
    assert np.isfinite(train(half, records, tmp_path / "run").loss)
    with pytest.raises(ValueError, match=r"set teacher\.live"):
        settings(None, augmentation={"mix": 0.5}, loss="softmax")
    with pytest.raises(ValueError, match="takes photos out of mined triplets: set it to 0, or take triplet"):
        TrainConfig.model_validate({**half.model_dump(), "loss": "triplet_mined", "batch_size": 9})


def test_a_run_teaches_and_frozen_it_teaches_the_same(records: Path, tmp_path: Path) -> None:
    from facetpu.nets.checkpoint import by_name, latest_checkpoint
    from facetpu.nets.classifier import Classifier
    from facetpu.nets.tensorflow import tf
    from facetpu.stages.freeze import freeze
    from facetpu.stages.train import train
    from facetpu.training.records import all_photos, read_records
    from facetpu.training.teacher import read_targets

    config = settings(None, loss="softmax", steps=3)
    train(config, records, tmp_path / "run")
    freeze(tmp_path / "run", tmp_path / "frozen")
    data = read_records(records)
    ways = [
        read_targets(Teacher(model=str(tmp_path / model)), data).embeddings
        for model in ("run", "frozen", "frozen/frozen.pb")
    ]
    pixels = np.concatenate([batch for batch, _ in all_photos(data, data.train, 7)])
    model = Classifier(config.network, len(data.labels))
    model(pixels, False)
    trained = tf.train.load_checkpoint(latest_checkpoint(tmp_path / "run/checkpoints"))
    for name, variable in by_name(model.variables).items():
        variable.assign(trained.get_tensor(name))
    rows = [model(way, False).embedding.numpy().reshape(-1, DIM) for way in (pixels, pixels[:, :, ::-1])]
    expected = np.stack([each / np.linalg.norm(each, axis=1, keepdims=True) for each in rows], axis=1)
    for found in ways:
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.data
def test_mobilefacenet_teaches_who_is_who_by_onnxruntime_and_by_opencv(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from facetpu.metrics import auc, roc
    from facetpu.stages.align import align
    from facetpu.training import teacher as room
    from facetpu.training.records import read_records

    people = [folder for folder in sorted((data / "lfw").iterdir()) if len(list(folder.iterdir())) >= 4][:5]
    for person in people:
        (tmp_path / "photos" / person.name).mkdir(parents=True)
        for photo in sorted(person.iterdir())[:4]:
            (tmp_path / "photos" / person.name / photo.name).symlink_to(photo)
    align(tmp_path / "photos", tmp_path / "crops", workers=1)
    pack(tmp_path / "crops", tmp_path / "records", shards=1, validation=0)
    records = read_records(tmp_path / "records")
    imagenet = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
    teacher = Teacher(model=str(data / "models" / "MobileFaceNet.onnx"), **imagenet)
    found = room.read_targets(teacher, records)
    assert found.embeddings.shape == (records.photos, 2, 128)
    labels = read_index(records.train).labels
    first, second = np.triu_indices(len(labels), 1)
    rows = np.arange(len(labels))
    unit = found.of(np.empty(0), rows, rows % 2 == 1)  # every other mirrored
    curve = roc((unit @ unit.T)[first, second], labels[first] == labels[second])
    assert auc(curve) > 0.99
    monkeypatch.setattr(room, "_onnxruntime", lambda path: None)  # as where it is not installed
    (kept,) = records.folder.glob(".teacher-*.npy")
    kept.unlink()
    np.testing.assert_allclose(room.read_targets(teacher, records).embeddings, found.embeddings, atol=1e-4)
