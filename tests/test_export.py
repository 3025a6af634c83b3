"""From a checkpoint to all that a board needs: freeze, quantise, write the head, join, compile."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crops import write_crops

from facetpu.artefacts import read_manifest
from facetpu.board.embed import Embedder
from facetpu.config import TrainConfig, read_config
from facetpu.errors import FacetpuError
from facetpu.labels import read_labels
from facetpu.quantization.calibration import read_sample
from facetpu.runtime import interpreter
from facetpu.stages.pack import pack
from facetpu.tflite.model import op_name, quantization, read_model, tensor_data, tensor_shape, type_name

SIZE, DIM, PEOPLE = 32, 16, 6


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MobileNet that tells six people apart, beside its ``crops`` and ``records``."""
    from facetpu.stages.train import train

    folder = tmp_path_factory.mktemp("export")
    write_crops(folder / "crops", people=PEOPLE, photos=20)
    pack(folder / "crops", folder / "records", shards=2, validation=0.2)
    network = {
        "depth_multiplier": 0.25,
        "image_size": SIZE,
        "embedding_dim": DIM,
        "batch_norm_decay": 0.8,
    }
    optimizer = {"learning_rate": 0.02}
    config = TrainConfig.model_validate(
        {"network": network, "optimizer": optimizer, "steps": 80, "batch_size": 32}
    )
    train(config, folder / "records", folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def frozen(run: Path) -> Path:
    from facetpu.stages.freeze import freeze

    freeze(run, run.with_name("frozen"))
    return run.with_name("frozen")


@pytest.fixture(scope="module")
def quantized(frozen: Path) -> Path:
    from facetpu.stages.quantize import quantize

    quantize(frozen, frozen.with_name("quantized"), frozen.with_name("crops"), samples=60)
    return frozen.with_name("quantized")


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    from facetpu.export import export

    export(run, run.with_name("exported"), samples=60)
    return run.with_name("exported")


@pytest.fixture(scope="module")
def crops(run: Path) -> np.ndarray:
    return read_sample(run.with_name("crops"), 8, SIZE).crops


def live_output(run: Path, crops: np.ndarray) -> Any:
    """What the classifier says in TF2, its variables read by their names in the checkpoint."""
    from facetpu.nets.classifier import Classifier
    from facetpu.nets.tensorflow import tf

    model = Classifier(read_config(run / "config.yaml").network, PEOPLE)
    pixels = tf.constant(crops, tf.float32)
    model(pixels, False)
    checkpoint = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(run / "checkpoints")))
    for variable in model.variables:
        variable.assign(checkpoint.get_tensor(variable.name.split(":")[0]))
    return model(pixels, False)


def frozen_output(graph_def: Any, crops: np.ndarray) -> np.ndarray:
    from facetpu.nets.tensorflow import tf, v1

    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        tf.import_graph_def(graph_def, name="")
        rows = [session.run("embedding:0", {"input:0": crop[None].astype(np.float32)}) for crop in crops]
    return np.concatenate(rows)


def invoke(model: Path, crop: np.ndarray) -> np.ndarray:
    runner = interpreter(model)
    runner.allocate_tensors()
    runner.set_tensor(runner.get_input_details()[0]["index"], crop)
    runner.invoke()
    return np.array(runner.get_tensor(runner.get_output_details()[0]["index"]))


def test_a_plain_saver_reads_the_checkpoint_by_slims_names(run: Path, crops: np.ndarray) -> None:
    from facetpu.nets.classifier import classify
    from facetpu.nets.tensorflow import tf, v1

    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        pixels = v1.placeholder(tf.float32, [None, SIZE, SIZE, 3])
        output = classify(pixels, read_config(run / "config.yaml").network, PEOPLE, is_training=False)
        names = [variable.op.name for variable in v1.global_variables()]
        v1.train.Saver().restore(session, tf.train.latest_checkpoint(str(run / "checkpoints")))
        cosines = session.run(output.cosines, {pixels: crops})
    np.testing.assert_allclose(cosines, live_output(run, crops).cosines, atol=1e-5)
    first, last = "MobilenetV1/Conv2d_0", "MobilenetV1/Conv2d_13_depthwise"
    norm = [f"BatchNorm/{name}" for name in ("gamma", "beta", "moving_mean", "moving_variance")]
    assert set(names) >= {
        *(f"{first}/{name}" for name in ("weights", *norm)),
        *(f"{last}/{name}" for name in ("depthwise_weights", *norm)),
        "MobilenetV1/Conv2d_13_pointwise/weights",
        "Embedding/weights",
        "Embedding/biases",
        "Logits/weights",
        "Logits/scale",
    }
    assert len(names) == 27 * 5 + 4


def test_the_frozen_graph_is_the_live_one_up_to_the_embeddings_norm(
    run: Path, frozen: Path, crops: np.ndarray
) -> None:
    from facetpu.nets.graph import read_graph
    from facetpu.nets.nodes import Nodes, find_norms

    graph = read_graph(frozen / "frozen.pb")
    live = live_output(run, crops)
    rows = frozen_output(graph, crops)
    np.testing.assert_allclose(rows / np.abs(rows).max(), live.embedding / np.abs(rows).max(), atol=1e-5)
    assert list(find_norms(Nodes(graph))) == []
    head = np.load(frozen / "head.npz")
    np.testing.assert_allclose(np.linalg.norm(head["kernel"], axis=1), np.ones(PEOPLE), atol=1e-6)
    embedding = np.reshape(live.embedding, (len(crops), DIM))
    unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    np.testing.assert_allclose(unit @ head["kernel"].T, live.cosines, atol=1e-5)
    assert head["scale"] == pytest.approx(float(live.scale))
    assert read_labels(frozen / "labels.txt") == [f"person {number}" for number in range(PEOPLE)]


def test_the_base_is_integer_throughout_and_takes_pixels_as_they_are(quantized: Path) -> None:
    model = read_model(quantized / "base.tflite")
    graph = model.subgraphs[0]
    assert {type_name(tensor) for tensor in graph.tensors} == {"uint8", "int8", "int32"}
    (source,), (target,) = graph.inputs, graph.outputs
    image, embedding = graph.tensors[source], graph.tensors[target]
    assert (type_name(image), tensor_shape(image)) == ("uint8", (1, SIZE, SIZE, 3))
    assert (type_name(embedding), tensor_shape(embedding)) == ("uint8", (1, 1, 1, DIM))
    assert quantization(image) == (1 / 128, 128)
    ops = [op_name(model, operator) for operator in graph.operators]
    assert ops == [
        "QUANTIZE",
        "CONV_2D",
        *["DEPTHWISE_CONV_2D", "CONV_2D"] * 13,
        "AVERAGE_POOL_2D",
        "CONV_2D",
        "QUANTIZE",
    ]
    dynamic = [tensor.name for tensor in graph.tensors if -1 in (tensor.shape_signature or [])]
    assert dynamic == []


def test_integers_and_floats_agree(quantized: Path, frozen: Path, crops: np.ndarray) -> None:
    from facetpu.nets.graph import read_graph
    from facetpu.stages.quantize import quantize

    rows = frozen_output(read_graph(frozen / "frozen.pb"), crops).reshape(len(crops), DIM)
    float_base = Embedder(quantized / "base_float.tflite")
    largest = np.abs(rows).max()
    np.testing.assert_allclose(float_base.run(crops) / largest, rows / largest, atol=2e-5)
    integer = Embedder(quantized / "base.tflite").embed(crops)
    cosines = np.sum(integer * float_base.embed(crops), axis=1)
    assert cosines.mean() > 0.99
    assert cosines.min() > 0.97  # 0.984 to 0.999 over ten seeds, and another machine is another seed
    again = quantize(frozen, quantized, frozen.with_name("crops"), samples=60)
    assert again.cosine > 0.99
    assert again.correlation > 0.99
    assert (again.calibrated_on, again.compared_on) == (60, 60)


def test_records_calibrate_as_crops_do(quantized: Path, frozen: Path, tmp_path: Path) -> None:
    from facetpu.stages.quantize import quantize

    result = quantize(frozen / "frozen.pb", tmp_path / "out", frozen.with_name("records"), samples=60)
    assert result.cosine > 0.99
    assert result.compared_on == 96 - 60
    assert (tmp_path / "out/base_float.tflite").read_bytes() == (quantized / "base_float.tflite").read_bytes()


def test_the_head_holds_the_trained_people(quantized: Path, frozen: Path, run: Path) -> None:
    model = read_model(quantized / "head.tflite")
    kernel = next(tensor for tensor in model.subgraphs[0].tensors if tensor.name == "head/kernel")
    stored = np.reshape(tensor_data(model, kernel), (PEOPLE, DIM)).astype(np.float32)
    rows = (stored - 128) / 128
    np.testing.assert_allclose(rows, np.load(frozen / "head.npz")["kernel"], atol=0.5 / 128 + 1e-6)


def test_an_export_is_all_that_a_board_needs(exported: Path, crops: np.ndarray) -> None:
    files = sorted(path.relative_to(exported).as_posix() for path in exported.rglob("*") if path.is_file())
    assert files == [
        "base.tflite",
        "base_float.tflite",
        "cohort.npz",
        "detector/onet.tflite",
        "detector/pnet.tflite",
        "detector/rnet.tflite",
        "head.tflite",
        "labels.txt",
        "manifest.json",
        "model.tflite",
        "report.html",
        "report.json",
    ]
    for crop in crops:
        embedding = invoke(exported / "base.tflite", crop[None])
        apart = invoke(exported / "head.tflite", embedding)
        assert np.array_equal(invoke(exported / "model.tflite", crop[None]), apart)
    manifest = read_manifest(exported)
    assert manifest["alignment"] == {"template": "arcface", "size": SIZE, "margin": 44}
    assert manifest["embedding_dim"] == DIM
    cohort = np.load(exported / "cohort.npz")
    assert (cohort["embeddings"].dtype, cohort["people"].dtype) == (np.float32, np.int32)
    np.testing.assert_allclose(np.linalg.norm(cohort["embeddings"], axis=1), 1, atol=1e-5)
    different = np.triu(cohort["people"][:, None] != cohort["people"])
    accepted = (cohort["embeddings"] @ cohort["embeddings"].T)[different] >= manifest["threshold"]
    assert 0.009 < accepted.mean() <= 0.01
    report = json.loads((exported / "report.json").read_text(encoding="utf-8"))
    assert sorted(report["stages"]) == ["freeze", "quantize"]
    assert {op["target"] for op in report["ops"]} == {"TPU"}


def test_the_exported_model_knows_the_people_it_was_trained_on(exported: Path) -> None:
    sample = read_sample(exported.with_name("crops"), 40, SIZE)
    named = [int(invoke(exported / "model.tflite", crop[None]).argmax()) for crop in sample.crops]
    assert np.mean(np.array(named) == sample.people) > 0.9


def test_exporting_again_does_nothing(exported: Path, run: Path) -> None:
    from facetpu.export import export

    before = {path: path.stat().st_mtime_ns for path in exported.rglob("*")}
    result = export(run, exported, samples=60)
    assert {path: path.stat().st_mtime_ns for path in exported.rglob("*")} == before
    assert (result.people, result.tpu_ops, result.cpu_ops, result.compiled) == (PEOPLE, 31, 0, False)
    with pytest.raises(FacetpuError, match=r"exists; .* --overwrite"):
        export(run, exported, samples=61)


def test_without_a_compiler_all_else_is_kept_and_with_one_it_is_added(
    exported: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from facetpu.export import export

    out = shutil.copytree(exported, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FacetpuError, match=r"no edgetpu_compiler on PATH; install .* has all else"):
        export(run, out, edgetpu=True, samples=60)
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before
    monkeypatch.undo()

    standin = Path(__file__).with_name("standin_compiler.py")
    compiler = tmp_path / "compiler"
    compiler.write_text(
        f"#!/bin/sh\nPYTHONPATH='{standin.parents[1]}' '{sys.executable}' '{standin}' 1 \"$@\"\n"
    )
    compiler.chmod(0o755)
    result = export(run, out, edgetpu=True, samples=60, compiler=str(compiler))
    assert (result.tpu_ops, result.cpu_ops, result.compiled) == (30, 1, True)
    assert {path.name for path in out.iterdir()} - before.keys() == {
        "base_edgetpu.tflite",
        "detector",
        "model_edgetpu.tflite",
    }
    assert (out / "model.tflite").read_bytes() == before["model.tflite"]
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert [op["target"] for op in report["ops"]] == ["TPU"] * 30 + ["CPU"]
    assert report["stages"]["compile"]["tpu_ops"] == 30
    assert export(run, out, edgetpu=True, samples=60, compiler="not needed now") == result


def foreign_graph(path: Path, mean: float = 0.0, norms: int = 1, size: int | None = SIZE) -> Path:
    """A frozen graph such as others make: no head, other names, its own normalisation, [1, D]."""
    from facetpu.nets.tensorflow import tf, v1

    rng = np.random.default_rng(0)
    with tf.Graph().as_default() as graph:
        image = v1.placeholder(tf.float32, [None, size, size, 3], name="image_batch")
        net = tf.nn.relu6(
            tf.nn.conv2d((image - mean) / 64.0, 0.1 * rng.normal(size=(8, 8, 3, 12)), 8, "SAME")
        )
        net = tf.reshape(net, [-1, 4 * 4 * 12])
        embedding = tf.matmul(net, 0.1 * rng.normal(size=(4 * 4 * 12, 8)).astype(np.float32))
        for _ in range(norms):
            embedding = tf.nn.l2_normalize(embedding, 1)
        tf.identity(embedding, name="embeddings")
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


def test_a_foreign_graph_gets_a_head_of_the_calibrations_people(run: Path, tmp_path: Path) -> None:
    from facetpu.export import export

    graph = foreign_graph(tmp_path / "foreign.pb", mean=100.0)
    result = export(graph, tmp_path / "out", calibration=run.with_name("crops"), samples=60)
    assert result.embedding_dim == 8
    assert result.cosine > 0.99
    base = read_model(tmp_path / "out" / "base.tflite").subgraphs[0]
    assert quantization(base.tensors[base.inputs[0]]) == (pytest.approx(1 / 64), 100)
    assert tensor_shape(base.tensors[base.outputs[0]]) == (1, 1, 1, 8)
    assert read_labels(tmp_path / "out" / "labels.txt") == [f"person {number}" for number in range(PEOPLE)]
    sample = read_sample(run.with_name("crops"), 40, SIZE)
    named = [int(invoke(tmp_path / "out" / "model.tflite", crop[None]).argmax()) for crop in sample.crops]
    assert np.mean(np.array(named) == sample.people) > 0.9


def test_what_cannot_be_exported_is_told_in_one_line(run: Path, frozen: Path, tmp_path: Path) -> None:
    from facetpu.export import export
    from facetpu.stages.freeze import freeze

    crops = run.with_name("crops")

    def refusal(source: Path, calibration: Path | None = crops) -> str:
        with pytest.raises(FacetpuError) as error:
            export(source, tmp_path / "out", calibration=calibration)
        assert not (tmp_path / "out").exists()
        return str(error.value).replace(str(tmp_path), "")

    assert refusal(tmp_path / "none") == "/none: no such run, frozen graph or model"
    assert f"{crops}: is no run of facetpu train, no frozen graph (.pb), SavedModel" in refusal(crops)
    assert "has 2 L2 norms of an embedding: l2_normalize" in refusal(
        foreign_graph(tmp_path / "b.pb", norms=2)
    )
    (tmp_path / "c.pb").write_bytes(b"no graph")
    assert refusal(tmp_path / "c.pb") == "/c.pb: is no TensorFlow graph; give a frozen GraphDef (.pb)"
    assert "does not say what it was trained on; give crops of facetpu align with --calib" in refusal(
        frozen, None
    )

    large = write_crops(tmp_path / "large", people=2, photos=2, size=48)
    assert "is 48 px, and the network takes 32 px; align with --size 32" in refusal(frozen, large)
    box = shutil.copytree(crops, tmp_path / "box")
    alignment = {"template": "box", "size": SIZE, "margin": 44}
    (box / "manifest.json").write_text(json.dumps({"stage": "align", "alignment": alignment}))
    assert "is aligned with --template box and the network was trained with arcface" in refusal(frozen, box)

    moved = shutil.copytree(run, tmp_path / "moved")
    assert "/records: the records of /moved are gone; give crops with --calibration" in refusal(moved, None)
    text = (moved / "config.yaml").read_text().replace("depth_multiplier: 0.25", "depth_multiplier: 0.5")
    (moved / "config.yaml").write_text(text)
    assert "is of another network: MobilenetV1/Conv2d_0/weights has shape [3, 3, 3, 8] there" in refusal(
        moved
    )
    shutil.rmtree(moved / "checkpoints")
    assert refusal(moved) == "/moved/checkpoints: holds no checkpoint yet; let the training reach one"
    with pytest.raises(FacetpuError, match="is no run of facetpu train"):
        freeze(crops, tmp_path / "out")


def test_a_small_calibration_set_is_warned_of(
    frozen: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from facetpu.stages.quantize import quantize

    few = write_crops(tmp_path / "few", people=2, photos=3)
    result = quantize(frozen, tmp_path / "out", few)
    assert (result.calibrated_on, result.compared_on) == (6, 6)
    assert f"{few}: has 6 crops, and 50 or more make sure of the ranges" in caplog.text
