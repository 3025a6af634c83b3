"""What the integers cost and where, what is said of the calibration set, and the models for other targets."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from crops import write_crops
from standin_litert_js import write_packages

from facetpu.artefacts import read_manifest
from facetpu.board.embed import Embedder
from facetpu.cli import main
from facetpu.errors import FacetpuError
from facetpu.quantization.advice import remedies, warnings_of, weakness
from facetpu.quantization.calibration import Sample, read_sample
from facetpu.quantization.compare import Comparison, compare
from facetpu.runtime import interpreter
from facetpu.tflite.metadata import read_metadata
from facetpu.tflite.model import op_name, quantization, read_model, tensor_shape, type_name

SIDE, DIM, PEOPLE = 32, 16, 12


def residual_graph(path: Path) -> Path:
    """A frozen graph that adds a convolution, small numbers, to what it was made from, large ones."""
    from facetpu.nets.tensorflow import tf, v1

    rng = np.random.default_rng(0)

    def weights(*shape: int, scale: float = 0.3) -> np.ndarray:
        return (scale * rng.normal(size=shape)).astype(np.float32)

    with tf.Graph().as_default() as graph:
        image = v1.placeholder(tf.float32, [1, SIDE, SIDE, 3], name="image")
        large = tf.nn.conv2d(
            (image - 127.5) / 127.5, weights(4, 4, 3, 12, scale=2.0), 4, "SAME", name="large"
        )
        small = tf.nn.conv2d(large, weights(1, 1, 12, 12, scale=0.01), 1, "SAME", name="small")
        net = tf.nn.relu(tf.add(large, small, name="sum"))
        net = tf.nn.avg_pool2d(net, [8, 8], 1, "VALID")
        tf.nn.l2_normalize(tf.nn.conv2d(net, weights(1, 1, 12, DIM), 1, "VALID"), 3, name="embeddings")
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A frozen folder, beside its ``crops``."""
    from facetpu.stages.freeze import freeze

    folder = tmp_path_factory.mktemp("targets")
    write_crops(folder / "crops", people=PEOPLE, photos=8, size=SIDE)
    freeze(residual_graph(folder / "net.pb"), folder / "frozen")
    return folder / "frozen"


@pytest.fixture(scope="module")
def exported(frozen: Path) -> Path:
    """The same exported for LiteRT and for browsers too."""
    from facetpu.export import export

    out, packages = frozen.with_name("exported"), write_packages(frozen.with_name("node_modules"))
    crops = frozen.with_name("crops")
    targets = ["litert", "web", "pi", "ios"]
    result = export(frozen, out, calibration=crops, samples=60, targets=targets, litert_js=packages)
    assert result.web == out / "web"
    assert f"{out / 'web'}: for any web server" in str(result)
    assert result.devices == [out / "ios", out / "pi"]
    assert f"{out / 'ios'}: Faces.swift in it says how to use it" in str(result)
    return out


def test_the_browsers_folder_has_the_exported_base(exported: Path) -> None:
    assert (exported / "web" / "model" / "base.tflite").read_bytes() == (
        exported / "base.tflite"
    ).read_bytes()


def test_the_pis_model_gives_the_exported_bases_embeddings(exported: Path, frozen: Path) -> None:
    runner = interpreter(exported / "pi" / "recogniser.tflite")
    runner.allocate_tensors()
    (image,), (_, embedding) = runner.get_input_details(), runner.get_output_details()
    crops = read_sample(frozen.with_name("crops"), 8, SIDE).crops
    for crop, row in zip(crops, Embedder(exported / "base.tflite").run(crops), strict=True):
        runner.set_tensor(image["index"], crop[None])
        runner.invoke()
        assert (runner.get_tensor(embedding["index"]).ravel() == row).all()
    labels = (exported / "pi" / "labels.txt").read_text(encoding="utf-8").splitlines()
    assert labels == sorted(labels) == [f"person {number}" for number in sorted(range(PEOPLE), key=str)]


def test_a_range_is_that_of_the_tensor_itself_even_where_a_sum_takes_its_place(frozen: Path) -> None:
    """TensorFlow's calibration gives the convolution before an addition the range of the sum."""
    from facetpu.nets.graph import Frozen, read_graph
    from facetpu.nets.tensorflow import tf, v1
    from facetpu.quantization.convert import convert

    graph = read_graph(frozen / "frozen.pb")
    crops = read_sample(frozen.with_name("crops"), 20, SIDE).crops
    model = read_model(convert(Frozen(graph, SIDE, DIM, None, None), crops).base)
    (tensor,) = [
        tensor
        for tensor in model.subgraphs[0].tensors
        if "/small" in tensor.name and tensor_shape(tensor) == (1, 8, 8, 12)
    ]
    pixels = crops.astype(np.float32)
    pixels[0, 0, 0], pixels[0, 0, 1] = 0, 0  # what the conversion paints white and black changes little
    with tf.Graph().as_default() as whole, v1.Session(graph=whole) as session:
        tf.import_graph_def(graph, name="")
        small = next(node.name for node in graph.node if node.name.endswith("/small"))
        values = np.concatenate([session.run(f"{small}:0", {"input:0": each[None]}) for each in pixels])
    form = quantization(tensor)
    assert form is not None
    assert 255 * form.scale == pytest.approx(np.ptp(np.append(values, 0)), rel=0.15)


def test_clipping_leaves_out_the_rarest_numbers(frozen: Path, tmp_path: Path) -> None:
    from facetpu.stages.quantize import quantize

    crops = frozen.with_name("crops")

    def scale(clip: float | None) -> float:
        out = tmp_path / f"clip {clip}"
        result = quantize(frozen, out, crops, samples=60, clip=clip)
        assert result.cosine > 0.9
        graph = read_model(out / "base.tflite").subgraphs[0]
        assert quantization(graph.tensors[graph.inputs[0]]) == (1 / 128, 128)  # a pixel stays what it is
        form = next(
            quantization(tensor)
            for tensor in graph.tensors
            if "/small" in tensor.name and tensor_shape(tensor) == (1, 8, 8, 12)
        )
        assert form is not None
        return form.scale

    assert scale(99.0) < 0.9 * scale(None)
    with pytest.raises(FacetpuError, match="no folder of facetpu freeze"):
        quantize(crops, tmp_path / "out", crops)


def test_every_layer_is_compared_with_its_twin(frozen: Path, exported: Path) -> None:
    report = json.loads((exported / "report.json").read_text(encoding="utf-8"))
    model = read_model(exported / "base.tflite")
    ops = [op_name(model, op) for op in model.subgraphs[0].operators]
    layers = report["layers"]
    assert [(layer["index"], layer["op"]) for layer in layers] == [
        (index, op) for index, op in enumerate(ops) if op != "QUANTIZE"
    ]
    assert all(15 < layer["snr"] < 60 for layer in layers)
    worst = sorted(layers, key=lambda layer: -layer["added"])
    manifest = read_manifest(exported)
    assert manifest["worst_layers"][0].startswith(f"{worst[0]['op']} {worst[0]['name']} (adds ")
    assert len(report["cosines"]) == report["stages"]["quantize"]["compared_on"] == PEOPLE * 8 - 60
    page = (exported / "report.html").read_text(encoding="utf-8")
    assert all(f"<code>{layer['name']}</code>" in page for layer in layers)
    assert page.count('<rect class="bar"') == 24


def test_the_last_layers_error_is_that_of_the_embeddings(frozen: Path, exported: Path) -> None:
    """What the layers' report ends with, measured again on the two models from outside."""
    crops = read_sample(frozen.with_name("crops"), 260, SIDE).crops[60:92]
    models = [Embedder(exported / name) for name in ("base_float.tflite", "base.tflite")]
    exact, integer = ((m.run(crops).astype(np.float64) - m.zero_point) * m.scale for m in models)
    snr = 10 * np.log10(np.square(exact).sum() / np.square(integer - exact).sum())
    report = json.loads((exported / "report.json").read_text(encoding="utf-8"))
    assert report["layers"][-1]["snr"] == pytest.approx(snr, abs=0.5)


def test_a_comparison_counts_pairs_only_where_people_have_two_crops(exported: Path, frozen: Path) -> None:
    sample = read_sample(frozen.with_name("crops"), 24, SIDE)
    paths = exported / "base_float.tflite", exported / "base.tflite"
    told = compare(*paths, sample.crops, sample.people)
    assert told.pairs == 24 * 23 // 2
    assert told.auc_float is not None
    assert told.auc is not None
    assert told.auc > 0.9
    assert told.lowest_cosine <= told.percentile <= told.cosine
    assert len(told.cosines) == 24
    alone = compare(*paths, sample.crops, np.arange(24))
    assert (alone.pairs, alone.auc_float, alone.auc) == (0, None, None)


def sample_of(crops: np.ndarray, people: int) -> Sample:
    return Sample(crops, np.arange(len(crops), dtype=np.int32) % people, [], None)


def test_a_calibration_set_that_will_not_do_is_warned_of() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, SIDE, SIDE, 3)).astype(np.uint8)
    assert warnings_of(sample_of(noise, 30), 60, aligned=True) == []
    (few,) = warnings_of(sample_of(noise[:49], 30), 60, aligned=True)
    assert few.startswith("has 49 crops, and 50 or more make sure of the ranges")
    (people,) = warnings_of(sample_of(noise, 9), 60, aligned=True)
    assert people.startswith("shows 9 people, and 10 or more")
    same = np.repeat(noise[:1], 60, axis=0)
    (varied,) = warnings_of(sample_of(same, 30), 60, aligned=True)
    assert varied.startswith("shows nearly one and the same picture")
    (faces,) = warnings_of(sample_of(noise, 30), 60, aligned=False)
    assert faces.startswith("has a face where alignment puts it in 0% of the crops")


def test_an_embedder_that_knows_nobody_is_warned_of(
    frozen: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Which the cosines between floats and integers do not show; here nobody's folder holds one person."""
    from facetpu.stages.quantize import quantize

    for number, photo in enumerate(sorted(frozen.with_name("crops").rglob("*.png"))):
        folder = tmp_path / "mixed" / f"person {number % PEOPLE}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(photo.read_bytes())
    result = quantize(frozen, tmp_path / "out", tmp_path / "mixed", samples=60)
    (warning,) = [text for text in result.warnings if "hardly tells apart" in text]
    assert f"(AUC {result.auc_float:.2f}; guessing has 0.50): see that each folder holds one" in warning
    assert warning.endswith("and that --mean, --std and --channels are those the model was trained with")
    assert warning in caplog.text
    found = Comparison(24, 0.999, 0.99, 0.99, 1.0, [], 276, 0.5, 0.5)
    (trained,) = weakness(found, foreign=False)
    assert trained.endswith("see that each folder holds one person, and train longer or on more people")
    assert weakness(found._replace(auc_float=0.9), foreign=False) == []
    assert weakness(found._replace(auc_float=None), foreign=True) == []


def test_faces_that_somebody_else_aligned_are_taken_for_what_they_are(tmp_path: Path) -> None:
    from facetpu.portraits import write_people
    from facetpu.stages.align import AlignConfig, align

    write_people(tmp_path / "photos", 12, 1, seed=1)
    align(tmp_path / "photos", tmp_path / "crops", AlignConfig(), workers=1)
    sample = read_sample(tmp_path / "crops", 12, 112)
    assert [text for text in warnings_of(sample, 12, aligned=False) if "face" in text] == []


def test_remedies_are_those_not_yet_tried() -> None:
    poor = Comparison(100, 0.9, 0.8, 0.7, 0.9, [0.9], 0, None, None)
    tried = (200, None), (600, 99.99)
    words = [" ".join(remedies(poor, calibrated, clip, trainable=True)) for calibrated, clip in tried]
    assert "--samples 500" in words[0]
    assert "--clip 99.999" in words[0]
    assert words[1].startswith("train on with rounding to integers (QAT): in a copy of the run's config.yaml")
    assert remedies(poor, 600, 99.99, trainable=False) == []  # another maker's cannot be trained on
    (longer,) = remedies(poor, 0, None, trainable=True)
    assert longer.startswith("train on with rounding to integers (QAT) for more steps")
    assert remedies(poor, 0, None, trainable=False) == []
    assert remedies(poor._replace(cosine=0.99), 200, None, trainable=True) == []


# --- LiteRT


def test_four_models_for_litert_are_each_checked_against_float(exported: Path, frozen: Path) -> None:
    targets = read_manifest(exported)["targets"]
    assert [target["file"] for target in targets] == [
        f"litert/{name}.tflite" for name in ("float32", "float16", "dynamic_range", "int8")
    ]
    assert targets[0]["cosine"] == 1
    assert all(0.99 < target["percentile"] <= target["cosine"] <= 1 for target in targets)
    crops = read_sample(frozen.with_name("crops"), 8, SIDE).crops
    exact = Embedder(exported / "base_float.tflite").embed(crops)
    people = len((exported / "labels.txt").read_text().splitlines())
    for target in targets:
        path = exported / target["file"]
        assert path.stat().st_size == target["bytes"]
        runner = interpreter(path)
        runner.allocate_tensors()
        (image,) = runner.get_input_details()
        assert image["dtype"] == (np.uint8 if path.stem == "int8" else np.float32)
        for crop, wanted in zip(crops, exact, strict=True):
            runner.set_tensor(image["index"], crop[None].astype(image["dtype"]))
            runner.invoke()
            probability, embedding = (
                runner.get_tensor(output["index"]) for output in runner.get_output_details()
            )
            assert (probability.shape, embedding.shape) == ((1, people), (1, DIM))
            assert probability.sum() == pytest.approx(1, abs=0.05)
            assert np.dot(embedding[0] / np.linalg.norm(embedding), wanted) > 0.99
    kinds = {type_name(tensor) for tensor in read_model(exported / "litert/int8.tflite").subgraphs[0].tensors}
    assert kinds == {"uint8", "int8", "int32", "float32"}  # float32: the two outputs


def test_a_model_for_litert_says_what_it_is_and_whom_it_knows(exported: Path) -> None:
    for path in sorted((exported / "litert").iterdir()):
        data = path.read_bytes()
        metadata = read_metadata(data)
        assert metadata is not None
        (graph,) = metadata.subgraph_metadata
        (image,) = graph.input_tensor_metadata
        probability, embedding = graph.output_tensor_metadata
        options = image.process_units[0].options
        assert (options.mean.tolist(), options.std.tolist()) == ([0], [1])
        size = image.content.content_properties.default_size
        assert (size.width, size.height) == (SIDE, SIDE)
        assert (probability.name, embedding.name) == ("probability", "embedding")
        (labels,) = probability.associated_files
        names = zipfile.ZipFile(io.BytesIO(data)).read(labels.name).decode().splitlines()
        assert names == [f"person {number}" for number in sorted(range(PEOPLE), key=str)]
        model = read_model(data).subgraphs[0]
        outputs = [tensor_shape(model.tensors[index]) for index in model.outputs]
        assert outputs == [(1, len(names)), (1, DIM)]
        assert path.stem in metadata.description
    assert read_metadata((exported / "base.tflite").read_bytes()) is None


def test_the_command_shows_all_of_it(frozen: Path, tmp_path: Path) -> None:
    crops, out = frozen.with_name("crops"), tmp_path / "out"
    arguments = ["export", frozen, out, "--calibration", crops, "--samples", 60, "--target", "litert", "-q"]
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[1] == "  the network is given RGB, scaled by the network itself"
    assert lines[3].startswith("  int8 against float: cosine 0.9")
    assert "people told apart, AUC" in lines[3]
    assert [line.split(":")[0].strip() for line in lines[5:9]] == [
        f"litert/{name}.tflite" for name in ("float32", "float16", "dynamic_range", "int8")
    ]
    assert lines[-1] == f"  {out / 'report.html'} shows it"
    wrong = CliRunner().invoke(main, ["export", str(frozen), str(out), "--mean", "a,b"])
    assert wrong.exit_code == 2
    assert "'a,b' is neither a number nor three with commas between them" in wrong.stderr
