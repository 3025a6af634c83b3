"""Learning from another network: its embeddings, made once, and a student that follows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from crops import write_crops
from onnx import TensorProto, helper, numpy_helper

from facetpu.config import Teacher, TrainConfig
from facetpu.errors import FacetpuError
from facetpu.stages.pack import pack

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
    chosen = targets.of(np.array([3, 5]), np.array([False, True]))
    centred = np.stack([expected[0][3], expected[1][5]]) - targets.mean
    np.testing.assert_allclose(chosen, centred / np.linalg.norm(centred, axis=1, keepdims=True), atol=1e-4)
    (kept,) = records.glob(".teacher-*.npy")
    before = kept.stat().st_mtime_ns
    read_targets(teacher, data)
    assert kept.stat().st_mtime_ns == before
    assert len(list(records.glob(".teacher-*.npy"))) == 1
    kept.unlink()


def settings(teacher: Path, **changes: Any) -> TrainConfig:
    network = {"depth_multiplier": 0.25, "image_size": 32, "embedding_dim": DIM, "batch_norm_decay": 0.8}
    asked = {
        "network": network,
        "teacher": {"model": str(teacher)},
        "loss": {"weight": 0},
        "steps": 60,
        "batch_size": 16,
        "optimizer": {"name": "adam", "learning_rate": 0.01},
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
    both = train(settings(tmp_path / "teacher.onnx", loss="softmax"), records, tmp_path / "both")
    assert both.validation_accuracy == 1.0


def test_a_teacher_that_cannot_teach_is_told(records: Path, tmp_path: Path) -> None:
    from facetpu.stages.train import train

    with pytest.raises(FacetpuError, match=r"none.onnx: no such"):
        train(settings(tmp_path / "none.onnx"), records, tmp_path / "run")
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    with pytest.raises(FacetpuError, match=r"broken.onnx: onnxruntime cannot read it"):
        train(settings(tmp_path / "broken.onnx"), records, tmp_path / "run", overwrite=True)
    write_teacher(tmp_path / "teacher.onnx")
    wide = settings(tmp_path / "teacher.onnx", network={"image_size": 32, "embedding_dim": 16})
    with pytest.raises(FacetpuError, match=r"gives embeddings of 6 and network.embedding_dim is 16"):
        train(wide, records, tmp_path / "run", overwrite=True)
