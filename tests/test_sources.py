"""Embedders of other makers: read, rebuilt, normalised and exported like a network of our own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from crops import write_crops
from onnx import TensorProto, helper, numpy_helper

from facetpu.artefacts import read_manifest
from facetpu.board.imprint import ImprintingEngine
from facetpu.errors import FacetpuError
from facetpu.quantization.calibration import read_sample
from facetpu.sources.embedder import Foreign, read_embedder
from facetpu.sources.reading import Settings

SIDE, DIM = 16, 8


class Network:
    """An ONNX model under construction: nodes over an image ``x`` and constants."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, *shape: int, low: float = -0.4, high: float = 0.4) -> str:
        return self.array(self.rng.uniform(low, high, shape).astype(np.float32))

    def array(self, value: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def integers(self, *values: int) -> str:
        return self.array(np.array(values))

    def __call__(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=f"/{name}", **attributes))
        return name

    def save(self, path: Path, output: str, side: int | str = SIDE, channels_last: bool = False) -> Path:
        shape: list[Any] = ["batch", side, side, 3] if channels_last else ["batch", 3, side, side]
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", DIM])],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(model, str(path))
        return path


def conv(net: Network, x: str, inputs: int, outputs: int, size: int = 3, group: int = 1, **more: Any) -> str:
    weights = net.constant(outputs, inputs // group, size, size)
    more = {"pads": [size // 2] * 4, **more}
    return net("Conv", x, weights, net.constant(outputs), kernel_shape=[size, size], group=group, **more)


def norm(net: Network, x: str, channels: int) -> str:
    statistics = [net.constant(channels, low=0.5, high=1.5) for _ in range(4)]
    return net("BatchNormalization", x, *statistics)


def block(net: Network, x: str) -> str:
    """Stride 2 where TensorFlow's SAME would pad otherwise, a depthwise convolution, a residual addition."""
    x = net("PRelu", norm(net, conv(net, x, 3, 6, strides=[2, 2]), 6), net.constant(6, 1, 1))
    y = net("Clip", conv(net, x, 6, 6, group=6), net.array(np.float32(0)), net.array(np.float32(6)))
    return net("Add", x, conv(net, y, 6, 6, size=1))


def dense(net: Network, x: str, inputs: int) -> str:
    return net("Gemm", net("Flatten", x), net.constant(DIM, inputs), net.constant(DIM), transB=1)


def channels(net: Network, x: str, first: int, end: int) -> str:
    return net("Slice", x, net.integers(first), net.integers(end), net.integers(1))


def first_size(net: Network, x: str) -> str:
    return net("Gather", net("Shape", x), net.array(0))


def pooled(net: Network, x: str) -> str:
    return net("GlobalAveragePool", x)


# What face embedders are made of, each over the six channels of a block, ended by a dense layer.
HEADS: dict[str, Callable[[Network, str], str]] = {
    "pooled": lambda n, x: dense(n, pooled(n, x), 6),
    "flattened map": lambda n, x: dense(n, x, 6 * 64),
    "dropout and norm before and after": lambda n, x: norm(
        n, dense(n, n("Dropout", norm(n, n("Relu", x), 6)), 6 * 64), DIM
    ),
    "global depthwise": lambda n, x: n(
        "Reshape",
        conv(n, conv(n, x, 6, 6, size=8, group=6, pads=[0] * 4), 6, DIM, size=1),
        n.array(np.array([-1, DIM])),
    ),
    "groups": lambda n, x: dense(n, pooled(n, conv(n, x, 6, 4, group=2)), 4),
    "max pool": lambda n, x: dense(
        n, n("MaxPool", n("Relu", x), kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4), 6 * 16
    ),
    "average pool": lambda n, x: dense(
        n, n("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2]), 6 * 16
    ),
    "squeeze and excite": lambda n, x: dense(
        n, n("Mul", x, n("Sigmoid", conv(n, n("Relu", conv(n, pooled(n, x), 6, 2, 1)), 2, 6, 1))), 6 * 64
    ),
    "hard swish, leaky": lambda n, x: dense(
        n, pooled(n, n("LeakyRelu", n("HardSwish", n("Mul", x, n.array(np.float32(2)))), alpha=0.2)), 6
    ),
    "parts": lambda n, x: dense(
        n,
        n(
            "Concat",
            channels(n, x, 0, 2),
            n("Sub", channels(n, x, 4, 6), n.constant(2, 1, 1)),
            axis=1,
        ),
        4 * 64,
    ),
    "mean, matmul": lambda n, x: n(
        "Add", n("MatMul", n("ReduceMean", x, axes=[2, 3], keepdims=0), n.constant(6, DIM)), n.constant(DIM)
    ),
    "pad, asymmetric": lambda n, x: dense(
        n,
        pooled(
            n,
            n("Pad", conv(n, x, 6, 6, pads=[0, 1, 1, 0], strides=[2, 2]), n.integers(0, 0, 1, 0, 0, 0, 0, 1)),
        ),
        6,
    ),
    "shapes computed": lambda n, x: n(
        "Gemm",
        n(
            "Reshape",
            x,
            n("Concat", n("Unsqueeze", first_size(n, x), n.integers(0)), n.integers(-1), axis=0),
        ),
        n.constant(6 * 64, DIM),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", HEADS)
def test_an_onnx_network_is_rebuilt_as_its_own_runtime_runs_it(kind: str, tmp_path: Path) -> None:
    net = Network()
    path = net.save(tmp_path / "net.onnx", HEADS[kind](net, block(net, "x")))
    foreign = read_embedder(path, Settings(mean=(127.5,), std=(127.5,)))
    assert foreign.parity is not None
    assert foreign.parity < 1e-5
    assert (foreign.frozen.image_size, foreign.frozen.embedding_dim) == (SIDE, DIM)


@pytest.mark.parametrize("spelling", ["ReduceL2", "LpNormalization", "Sqrt"])
def test_an_l2_norm_at_the_end_is_left_out_however_it_is_spelt(spelling: str, tmp_path: Path) -> None:
    net = Network()
    embedding = HEADS["pooled"](net, block(net, "x"))
    if spelling == "LpNormalization":
        output = net(spelling, embedding, axis=1, p=2)
    else:
        squares = net("ReduceSum", net("Mul", embedding, embedding), net.array(np.array([1])), keepdims=1)
        length = (
            net("Sqrt", squares) if spelling == "Sqrt" else net("ReduceL2", embedding, axes=[1], keepdims=1)
        )
        shape = net("Shape", embedding)
        output = net(
            "Div", embedding, net("Expand", net("Clip", length, net.array(np.float32(1e-12))), shape)
        )
    foreign = read_embedder(net.save(tmp_path / "net.onnx", output), Settings())
    assert foreign.output == embedding
    assert foreign.parity is not None
    assert foreign.parity < 1e-5


def test_sizes_left_open_and_channels_that_come_last(tmp_path: Path) -> None:
    net = Network()
    output = HEADS["pooled"](net, block(net, net("Transpose", "x", perm=[0, 3, 1, 2])))
    path = net.save(tmp_path / "net.onnx", output, side="side", channels_last=True)
    with pytest.raises(FacetpuError, match=r"net.onnx: its input x has no fixed size; give it with --size"):
        read_embedder(path, Settings())
    foreign = read_embedder(path, Settings(size=24))
    assert foreign.frozen.image_size == 24
    assert foreign.parity is not None
    assert foreign.parity < 1e-5


def test_an_op_that_is_not_known_is_named_with_the_converter_to_use(tmp_path: Path) -> None:
    net = Network()
    output = dense(net, net("Erf", block(net, "x")), 6 * 64)
    path = net.save(tmp_path / "net.onnx", output)
    with pytest.raises(FacetpuError) as error:
        read_embedder(path, Settings())
    place = next(node.name for node in net.nodes if node.op_type == "Erf")
    assert str(error.value).startswith(f"{path}: node {place} (Erf) is an op that facetpu does not rebuild; ")
    assert f"onnx2tf/bin/onnx2tf -i {path} -o saved_model" in str(error.value)
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(FacetpuError, match="is no valid ONNX model"):
        read_embedder(tmp_path / "text.onnx", Settings())


def run(foreign: Foreign, pixels: np.ndarray) -> np.ndarray:
    """The frozen graph on raw pixels ``[n, S, S, 3]``: rows of the embedding."""
    from facetpu.nets.tensorflow import tf, v1

    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        tf.import_graph_def(foreign.frozen.graph, name="")
        return np.stack([session.run("embedding:0", {"input:0": image[None]}).ravel() for image in pixels])


def test_pixels_go_in_raw_whatever_the_network_wants(tmp_path: Path) -> None:
    """Mean and std of each channel, and the channels the other way round, are done inside the graph."""
    import onnxruntime

    net = Network()
    path = net.save(tmp_path / "net.onnx", HEADS["pooled"](net, block(net, "x")))
    mean, std = (120.0, 110.0, 100.0), (60.0, 50.0, 40.0)
    foreign = read_embedder(path, Settings(mean=mean, std=std, channels="bgr"))
    pixels = np.random.default_rng(1).integers(0, 256, (3, SIDE, SIDE, 3)).astype(np.float32)
    wanted = ((pixels[..., ::-1] - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path))
    exact = np.concatenate([session.run(None, {"x": image[None]})[0] for image in wanted])
    np.testing.assert_allclose(run(foreign, pixels), exact, atol=1e-5)
    assert foreign.normalisation == "BGR, (pixel - (120, 110, 100)) / (60, 50, 40)"


def test_a_scaling_of_each_channel_moves_into_the_first_convolution(tmp_path: Path) -> None:
    """Without a border to pad nothing at all is lost by it."""
    from facetpu.nets.scaling import without_scaling
    from facetpu.nets.tensorflow import tf, v1

    net = Network()
    path = net.save(tmp_path / "net.onnx", dense(net, pooled(net, conv(net, "x", 3, 5, pads=[0] * 4)), 5))
    settings = Settings(mean=(120.0, 110.0, 100.0), std=(60.0, 50.0, 40.0), channels="bgr")
    foreign = read_embedder(path, settings)
    scaled = without_scaling(foreign.frozen.graph, SIDE)
    assert (scaled.scale, scaled.mean) == (1 / 128, 110)
    assert {"Sub", "Mul", "ReverseV2"}.isdisjoint(node.op for node in scaled.graph.node)
    pixels = np.random.default_rng(1).integers(0, 256, (1, SIDE, SIDE, 3)).astype(np.float32)
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        tf.import_graph_def(scaled.graph, name="")
        row = session.run("embedding:0", {"input:0": (pixels - scaled.mean) * scaled.scale})
    np.testing.assert_allclose(row.ravel(), run(foreign, pixels)[0], atol=1e-5)


def test_a_network_that_scales_no_pixels_is_given_the_usual_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    net = Network()
    path = net.save(tmp_path / "net.onnx", HEADS["pooled"](net, block(net, "x")))
    assert read_embedder(path, Settings()).normalisation == "RGB, (pixel - 127.5) / 127.5"
    assert "scales no pixels itself, so (pixel - 127.5) / 127.5, the usual, is put in front" in caplog.text
    net = Network()
    scaled = net("Div", net("Sub", "x", net.array(np.float32(128))), net.array(np.float32(64)))
    path = net.save(tmp_path / "own.onnx", HEADS["pooled"](net, block(net, scaled)))
    assert read_embedder(path, Settings()).normalisation == "RGB, scaled by the network itself"
    for settings, reason in (
        (Settings(mean=(1.0, 2.0)), "--mean: give one"),
        (Settings(std=(0.0,)), "--std: "),
    ):
        with pytest.raises(FacetpuError, match=reason):
            read_embedder(path, settings)


def test_a_foreign_export_can_be_imprinted(tmp_path: Path) -> None:
    from facetpu.export import export

    net = Network()
    path = net.save(tmp_path / "net.onnx", HEADS["global depthwise"](net, block(net, "x")))
    crops = write_crops(tmp_path / "crops", people=12, photos=6, size=SIDE)
    out = tmp_path / "out"
    result = export(
        path, out, calibration=crops, samples=50, settings=Settings(mean=(120.0, 110, 100), std=(60.0,))
    )
    assert (result.people, result.embedding_dim, result.cpu_ops) == (12, DIM, 0)
    assert result.cosine > 0.98
    assert result.auc is not None
    engine = ImprintingEngine(out / "model.tflite")
    engine.train(np.eye(DIM, dtype=np.float32)[0], 0)
    assert ImprintingEngine(engine.serialize_model(), keep_classes=True).num_classes == 1
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Export of net.onnx" in page
    assert "shows 12 people" not in page


def test_the_cohorts_people_are_numbered_as_the_labels(tmp_path: Path) -> None:
    """Who of the calibration crops has no row in the head must not pass for somebody who has."""
    from facetpu.export import export
    from facetpu.labels import read_labels

    net = Network()
    path = net.save(tmp_path / "net.onnx", HEADS["pooled"](net, block(net, "x")))
    crops = write_crops(tmp_path / "crops", people=240, photos=1, size=SIDE)
    export(path, tmp_path / "out", calibration=crops, samples=20)
    labels = read_labels(tmp_path / "out/labels.txt")
    assert len(labels) == 220  # 20 to calibrate on, 200 to compare on
    sample, cohort = read_sample(crops, 1000, SIDE), np.load(tmp_path / "out/cohort.npz")
    names = [sample.names[person] for person in sample.people]
    for number, name in zip(cohort["people"], names, strict=True):
        assert (labels[number] == name) if number < len(labels) else (name not in labels)
    assert len(set(cohort["people"].tolist())) == 240


# --- TensorFlow's own forms


def keras_model() -> Any:
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = layers.Input((SIDE, SIDE, 3))
    net = layers.Rescaling(1 / 127.5, -1)(image)
    net = layers.Conv2D(8, 3, 2, padding="same")(net)
    net = layers.PReLU(shared_axes=[1, 2], alpha_initializer="random_uniform")(
        layers.BatchNormalization()(net)
    )
    net = layers.ReLU(6)(layers.DepthwiseConv2D(3, padding="same")(net))
    net = layers.Dense(DIM)(layers.Dropout(0.3)(layers.GlobalAveragePooling2D()(net)))
    return keras.Model(image, layers.UnitNormalization()(net))


@pytest.mark.parametrize("form", ["keras", "h5", "saved_model", "tflite", "float16.tflite"])
def test_a_keras_model_is_read_in_every_form_it_is_saved_in(form: str, tmp_path: Path) -> None:
    from facetpu.nets.tensorflow import quiet, tf

    model, path = keras_model(), tmp_path / f"net.{form}"
    if form == "saved_model":
        model.export(str(path), verbose=False)
    elif form.endswith("tflite"):
        model.export(str(tmp_path / "saved"), verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved"))
        if form.startswith("float16"):
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]
        with quiet():
            path.write_bytes(converter.convert())
    else:
        model.save(path)
    foreign = read_embedder(path, Settings())
    assert foreign.normalisation == "RGB, scaled by the network itself"
    pixels = np.random.default_rng(1).integers(0, 256, (2, SIDE, SIDE, 3)).astype(np.float32)
    rows = run(foreign, pixels)
    assert not np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-3)  # before the norm
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    tolerance = 3e-3 if form.startswith("float16") else 1e-5
    np.testing.assert_allclose(unit, model(pixels, training=False), atol=tolerance)


def test_a_quantised_tflite_is_no_source(tmp_path: Path) -> None:
    from small_export import write_export

    with pytest.raises(FacetpuError, match=r"base.tflite: .* is u?int8: the model is quantised already"):
        read_embedder(write_export(tmp_path / "model") / "base.tflite", Settings())


def trained_graph(folder: Path, name: str, frozen: bool) -> tuple[Path, np.ndarray]:
    """A TensorFlow 1 graph as facenet's: a training switch, a queue of images, batch statistics.

    Returns the model and the embedding of an all-zero image.
    """
    from facetpu.nets.tensorflow import tf, v1

    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        tf.random.set_seed(0)
        training = v1.placeholder(tf.bool, [], name="phase_train")
        shape = [None, SIDE, SIDE, 3]
        image = v1.placeholder(tf.float32, shape, name="input")
        if not frozen:
            queue = tf.queue.FIFOQueue(4, [tf.float32])
            queue.enqueue(image)
            image = tf.identity(queue.dequeue(), name="image_batch")
            image.set_shape(shape)
        weights = v1.get_variable("conv/weights", [3, 3, 3, 6])
        below = v1.random_uniform_initializer(-1, 0)  # the ReLU lets all of an all-zero image through
        mean = v1.get_variable("conv/mean", [6], initializer=below)
        net = tf.nn.conv2d(image, weights, 2, "SAME")
        net = tf.cond(training, lambda: net - tf.reduce_mean(net, [0, 1, 2]), lambda: net - mean)
        net = tf.matmul(tf.reduce_mean(tf.nn.relu(net), [1, 2]), v1.get_variable("dense/weights", [6, DIM]))
        embeddings = tf.nn.l2_normalize(net, 1, 1e-10, name="embeddings")
        session.run(v1.global_variables_initializer())
        zeros = np.zeros([1, SIDE, SIDE, 3], np.float32)
        exact = session.run(embeddings, {image: zeros, training: False})
        if frozen:
            constant = v1.graph_util.convert_variables_to_constants(
                session, graph.as_graph_def(), [embeddings.op.name]
            )
            (folder / f"{name}.pb").write_bytes(constant.SerializeToString())
            return folder / f"{name}.pb", exact
        return Path(v1.train.Saver().save(session, str(folder / name), global_step=7)), exact


@pytest.mark.parametrize("frozen", [True, False])
def test_a_graph_of_a_training_is_read_as_it_infers(frozen: bool, tmp_path: Path) -> None:
    source, exact = trained_graph(tmp_path, "model", frozen)
    settings = Settings(mean=(0.0,), std=(1.0,))
    if not frozen:
        settings = settings._replace(input="image_batch", size=SIDE)
    foreign = read_embedder(source, settings)
    row = run(foreign, np.zeros([1, SIDE, SIDE, 3]))
    np.testing.assert_allclose(row / np.linalg.norm(row), exact, atol=1e-5)
    assert "Placeholder" in {node.op for node in foreign.frozen.graph.node}
    assert {"If", "StatelessIf", "Switch", "Merge"}.isdisjoint(node.op for node in foreign.frozen.graph.node)


def test_a_checkpoint_without_its_graph_needs_a_config(tmp_path: Path) -> None:
    prefix, _ = trained_graph(tmp_path, "model", frozen=False)
    Path(f"{prefix}.meta").unlink()
    with pytest.raises(FacetpuError, match=r"has no graph beside it \(model-7.meta\); give .* --config"):
        read_embedder(prefix, Settings())


def test_a_frozen_folder_remembers_what_it_came_from(tmp_path: Path) -> None:
    from facetpu.stages.freeze import freeze

    net = Network()
    path = net.save(tmp_path / "net.onnx", HEADS["pooled"](net, block(net, "x")))
    result = freeze(path, tmp_path / "frozen", Settings(mean=(127.5,), std=(128.0,)))
    assert (result.kind, result.people, result.step) == ("onnx", 0, None)
    assert str(result).splitlines()[1] == "  the network is given RGB, (pixel - 127.5) / 128"
    assert sorted(file.name for file in (tmp_path / "frozen").iterdir()) == ["frozen.pb", "manifest.json"]
    assert read_manifest(tmp_path / "frozen")["normalisation"] == "RGB, (pixel - 127.5) / 128"
    assert freeze(path, tmp_path / "frozen", Settings(mean=(127.5,), std=(128.0,))) == result


@pytest.mark.data
@pytest.mark.slow
def test_mobilefacenet_becomes_a_base_that_the_compiler_takes_whole(data: Path) -> None:
    from facetpu.edgetpu.support import check
    from facetpu.image import read_image, resize
    from facetpu.people import photos_under
    from facetpu.quantization.convert import convert
    from facetpu.tflite.model import read_model

    imagenet = Settings(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
    foreign = read_embedder(data / "models" / "MobileFaceNet.onnx", imagenet)
    assert foreign.parity is not None
    assert foreign.parity < 1e-5
    crops = np.stack([resize(read_image(photo), 112, 112) for photo in photos_under(data / "pins")[::300]])
    ops = check(read_model(convert(foreign.frozen, crops).base))
    assert [op.op for op in ops if op.target == "CPU"] == []
    assert len(ops) == 69
