"""The networks: their cost as published, the names of their variables, and the head on top."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from facetpu.config import Network
from facetpu.errors import FacetpuError

SMALLEST = {"inception_resnet_v1": 75}  # others take 32 px
ALL = (
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilefacenet",
    "inception_resnet_v1",
    "squeezenet",
    "vgg16",
    "resnet50",
    "se_resnet50",
)


class Built(NamedTuple):
    """A network's graph, of which only this is kept."""

    cost: Any
    variables: dict[str, list[int]]  # shapes by name


@cache
def built(name: str, side: int, multiplier: float | None) -> Built:
    """Each is built once: that takes a second or two, and several tests look at it."""
    from facetpu.nets.classifier import NETWORKS
    from facetpu.nets.cost import cost

    held: dict[str, list[int]] = {}

    def build(images: Any, network: Network, is_training: bool) -> Any:
        out = NETWORKS[name](images, network, is_training)
        held.update(variables())
        return out

    found = cost(build, Network(name=name, image_size=side, depth_multiplier=multiplier))
    return Built(found, held)


def variables() -> dict[str, list[int]]:
    """Those of the graph at hand."""
    from facetpu.nets.tensorflow import v1

    return {variable.op.name: variable.shape.as_list() for variable in v1.global_variables()}


def cost_of(name: str, side: int, multiplier: float | None = None) -> Any:
    return built(name, side, multiplier).cost


def slow_if_large(name: str) -> Any:
    """These take seconds to build."""
    return pytest.mark.slow if name in ("inception_resnet_v1", "vgg16", "resnet50", "se_resnet50") else ()


def dense(inputs: int, outputs: int) -> int:
    """Parameters of a dense layer with a bias, as the published networks end in."""
    return inputs * outputs + outputs


@pytest.mark.parametrize(
    ("multiplier", "side", "millions", "parameters"),
    [
        # arXiv:1704.04861, tables 6 and 7, at three digits; parameters with a dense layer of 1,000.
        (1.0, 224, 569, 4.2),
        (0.75, 224, 325, 2.6),
        (0.5, 224, 149, 1.3),
        (0.25, 224, 41, 0.5),
        pytest.param(1.0, 192, 418, 4.2, marks=pytest.mark.slow),
        pytest.param(1.0, 160, 290, 4.2, marks=pytest.mark.slow),
        pytest.param(1.0, 128, 186, 4.2, marks=pytest.mark.slow),
    ],
)
def test_mobilenet_v1_costs_what_its_paper_says(
    multiplier: float, side: int, millions: int, parameters: float
) -> None:
    found = cost_of("mobilenet_v1", side, multiplier)
    depth = found.map_shape[-1]
    assert depth == 1024 * multiplier
    assert (found.multiply_adds + depth * 1000) / 1e6 == pytest.approx(millions, rel=0.01)
    assert round((found.parameters + dense(depth, 1000)) / 1e6, 1) == parameters


@pytest.mark.parametrize(
    ("multiplier", "millions", "parameters"),
    # tensorflow/models, slim/nets/mobilenet/README.md, at 224 px with 1,001 classes.
    [
        (1.4, 582, 6.06),
        pytest.param(1.3, 509, 5.34, marks=pytest.mark.slow),
        (1.0, 300, 3.47),
        pytest.param(0.75, 209, 2.61, marks=pytest.mark.slow),
        pytest.param(0.5, 97, 1.95, marks=pytest.mark.slow),
        (0.35, 59, 1.66),
    ],
)
def test_mobilenet_v2_costs_what_its_authors_say(multiplier: float, millions: int, parameters: float) -> None:
    found = cost_of("mobilenet_v2", 224, multiplier)
    depth = found.map_shape[-1]
    assert (found.multiply_adds + depth * 1001) / 1e6 == pytest.approx(millions, rel=0.01)
    # They count the kernels and one offset a channel.
    counted = found.weights + (found.parameters - found.weights) / 2 + dense(depth, 1001)
    assert counted / 1e6 == pytest.approx(parameters, rel=0.01)


def test_mobilenet_v2_has_the_parameters_of_other_makers_networks() -> None:
    # torchvision's documentation: mobilenet_v2, num_params 3504872.
    assert cost_of("mobilenet_v2", 224, 1.0).parameters + dense(1280, 1000) == 3504872


def test_mobilefacenet_costs_what_its_paper_says() -> None:
    # arXiv:1804.07573, section 1: 0.99 million parameters; section 4: 221 million multiply-adds.
    found = cost_of("mobilefacenet", 112)
    assert found.map_shape == (1, 1, 512)
    assert round((found.multiply_adds + 512 * 128) / 1e6) == 221
    # The slopes of its PReLU, 7 thousand numbers, are not here.
    assert (found.parameters + 512 * 128 + 2 * 128) / 1e6 == pytest.approx(0.99, abs=0.01)


@pytest.mark.slow
def test_inception_resnet_v1_has_as_many_parameters_as_facenets() -> None:
    # timesler/facenet-pytorch, which loads facenet's 20180402 checkpoints: 23,482,624 up to the
    # embedding of 512, a dense layer without a bias and its batch norm among them.
    found = cost_of("inception_resnet_v1", 160)
    assert found.map_shape == (3, 3, 1792)
    assert found.parameters + 1792 * 512 + 2 * 512 == 23482624
    assert found.multiply_adds / 1e9 == pytest.approx(1.42, abs=0.005)  # no published figure is known


def test_squeezenet_costs_what_is_published() -> None:
    # torchvision's documentation: squeezenet1_0, num_params 1248424, one offset a channel and no scale.
    found = cost_of("squeezenet", 224)
    offsets = (found.parameters - found.weights) // 2
    assert found.weights + offsets + dense(512, 1000) == 1248424
    # Gholami et al., SqueezeNext, arXiv:1803.10615, table 3: 837 million at 227 px.
    assert (found.multiply_adds + 13 * 13 * 512 * 1000) / 1e6 == pytest.approx(837, rel=0.01)


def test_vgg16_costs_what_its_paper_says() -> None:
    # arXiv:1409.1556, table 2: 138 million; torchvision's documentation: 138357544, 15.47 giga.
    found = cost_of("vgg16", 224)
    ends = dense(7 * 7 * 512, 4096) + dense(4096, 4096) + dense(4096, 1000)
    assert found.parameters == 14714688  # keras.applications' documentation: without the dense layers
    assert found.parameters + ends == 138357544
    products = found.multiply_adds + 7 * 7 * 512 * 4096 + 4096 * 4096 + 4096 * 1000
    assert round(products / 1e9, 2) == 15.47


@pytest.mark.slow
def test_resnet50_costs_what_is_published() -> None:
    # arXiv:1512.03385, table 1: 3.8 giga; torchvision's documentation: num_params 25557032.
    found = cost_of("resnet50", 224)
    assert found.map_shape == (7, 7, 2048)
    assert found.parameters + dense(2048, 1000) == 25557032
    # arXiv:1709.01507, table 2: 3.86 giga; 3.87 with the gates, and 28.1 million parameters.
    assert round((found.multiply_adds + 2048 * 1000) / 1e9, 2) == 3.86
    gated = cost_of("se_resnet50", 224)
    # Cadene's pretrained-models.pytorch: se_resnet50, 28088024 parameters.
    assert gated.parameters + dense(2048, 1000) == 28088024
    assert 3.86 <= (gated.multiply_adds + 2048 * 1000) / 1e9 < 3.875


NAMES = {
    ("mobilenet_v1", 224, 1.0): "MobilenetV1/Conv2d_13_depthwise/depthwise_weights",
    ("mobilenet_v2", 224, 1.0): "MobilenetV2/expanded_conv_16/project/BatchNorm/moving_variance",
    ("mobilefacenet", 112, None): "MobileFaceNet/Bottleneck_14/expand/weights",
    (
        "inception_resnet_v1",
        160,
        None,
    ): "InceptionResnetV1/Repeat_1/block17_10/Branch_1/Conv2d_0b_1x7/weights",
    ("squeezenet", 224, None): "squeezenet/fire9/expand/3x3/weights",
    ("vgg16", 224, None): "vgg_16/conv5/conv5_3/biases",
    ("resnet50", 224, None): "resnet_v1_50/block4/unit_3/bottleneck_v1/conv3/BatchNorm/gamma",
    ("se_resnet50", 224, None): "se_resnet_v1_50/block1/unit_1/bottleneck_v1/shortcut/weights",
}


@pytest.mark.parametrize(
    "which", [pytest.param(which, id=which[0], marks=slow_if_large(which[0])) for which in NAMES]
)
def test_the_variables_bear_slims_names(which: tuple[Any, ...]) -> None:
    assert NAMES[which] in built(*which).variables


@pytest.mark.parametrize("name", [pytest.param(name, marks=slow_if_large(name)) for name in ALL])
def test_every_network_carries_the_imprintable_head(name: str) -> None:
    from facetpu.nets.classifier import classify
    from facetpu.nets.tensorflow import tf, v1

    side = SMALLEST.get(name, 32)
    network = Network(name=name, image_size=side, embedding_dim=16)
    with tf.Graph().as_default():
        pixels = v1.placeholder(tf.float32, [2, side, side, 3])
        output = classify(pixels, network, 5, is_training=True)
        held = variables()
    assert output.embedding.shape == [2, 1, 1, 16]
    assert output.cosines.shape == [2, 5]
    assert {"Embedding/weights", "Embedding/biases", "Logits/weights", "Logits/scale"} <= held.keys()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("vgg16", "vgg_16"), pytest.param("resnet50", "resnet_v1_50", marks=pytest.mark.slow)],
)
def test_the_variables_are_those_of_slims_own_network(ours: str, theirs: str) -> None:
    """tf-slim's own definitions, their batch norm replaced by ours, which they cannot build without."""
    from tf_slim.nets import resnet_v1, vgg

    from facetpu.nets.batch_norm import batch_norm
    from facetpu.nets.tensorflow import slim, tf, v1

    with tf.Graph().as_default():
        images = v1.placeholder(tf.float32, [1, 224, 224, 3])
        if theirs == "vgg_16":
            vgg.vgg_16(images, is_training=False)
        else:
            settings = {"decay": 0.99, "is_training": False}
            with slim.arg_scope([slim.conv2d], normalizer_fn=batch_norm, normalizer_params=settings):
                resnet_v1.resnet_v1_50(images, is_training=False)
        known = variables()
    for name, shape in built(ours, 224, None).variables.items():
        assert known.get(name) == shape, name


def test_a_face_too_small_and_a_width_that_is_not_there_are_told() -> None:
    from facetpu.nets.classifier import check_network

    with pytest.raises(ValueError, match="inception_resnet_v1 has no depth_multiplier; leave it out"):
        Network(name="inception_resnet_v1", depth_multiplier=0.5)
    small = Network(name="inception_resnet_v1", image_size=64)
    with pytest.raises(FacetpuError, match=r"image_size is 64, and inception_resnet_v1 needs .* 75 px"):
        check_network(small)
    check_network(Network(name="inception_resnet_v1", image_size=75))


def test_scopes_are_names_and_patterns_of_them() -> None:
    from facetpu.nets.scopes import check_scopes, in_scopes

    name = "MobilenetV1/Conv2d_13_pointwise/BatchNorm/beta"
    assert in_scopes(name, None)
    assert in_scopes(name, ["Embedding", "MobilenetV1"])
    assert in_scopes(name, ["MobilenetV1/Conv2d_13*"])
    assert not in_scopes(name, ["MobilenetV1/Conv2d_1"])
    assert not in_scopes(name, ["Embedding", "Mobilenet"])
    with pytest.raises(FacetpuError, match=r"no variable lies in Mobilenet; scopes begin with MobilenetV1"):
        check_scopes([name], ["Mobilenet"])


def test_frozen_layers_keep_their_moving_averages_and_use_them() -> None:
    from facetpu.nets.classifier import Classifier
    from facetpu.nets.tensorflow import tf

    tf.random.set_seed(0)
    pixels = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype(np.float32)
    last = Network(image_size=32, embedding_dim=8, trainable_scopes=["MobilenetV1/Conv2d_13*", "Embedding"])
    model = Classifier(last, 3)
    model(pixels, False)
    before = {v.name: v.numpy() for v in model.variables}
    model(pixels, True)
    moved = {v.name for v in model.variables if not np.array_equal(before[v.name], v.numpy())}
    assert moved == {
        f"MobilenetV1/Conv2d_13_{part}/BatchNorm/moving_{kind}:0"
        for part in ("depthwise", "pointwise")
        for kind in ("mean", "variance")
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenet_v2", "squeezenet"])  # with the others it takes minutes
def test_a_network_runs_wholly_on_the_edge_tpu(name: str, tmp_path: Path) -> None:
    """As the op check foretells of its full-integer model, which TensorFlow Lite makes without a rest."""
    from facetpu.config import TrainConfig
    from facetpu.edgetpu.support import check
    from facetpu.nets.checkpoint import by_name
    from facetpu.nets.classifier import classify
    from facetpu.nets.graph import freeze_checkpoint
    from facetpu.nets.tensorflow import tf, v1
    from facetpu.quantization.convert import convert
    from facetpu.tflite.model import read_model

    side = 64
    network = Network(name=name, image_size=side, embedding_dim=16)
    with tf.Graph().as_default(), v1.Session() as session:
        tf.random.set_seed(0)
        classify(v1.placeholder(tf.float32, [1, side, side, 3]), network, 3, is_training=False)
        session.run(v1.global_variables_initializer())
        prefix = v1.train.Saver(by_name(v1.global_variables())).save(session, str(tmp_path / "model.ckpt"))
    frozen = freeze_checkpoint(prefix, TrainConfig(network=network, steps=1), 3)
    crops = np.random.default_rng(0).integers(0, 256, (4, side, side, 3), dtype=np.uint8)
    ops = check(read_model(convert(frozen, crops).base))
    assert [op for op in ops if op.target != "TPU"] == []


@pytest.mark.parametrize("side", [1, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_a_convolution_by_the_faster_kernel_is_that_convolution(side: int, stride: int, padding: str) -> None:
    from facetpu.nets.convolution import convolve
    from facetpu.nets.tensorflow import tf

    rng = np.random.default_rng(0)
    net = tf.constant(rng.normal(size=(2, 5, 6, 3)), tf.float32)
    weights = tf.constant(rng.normal(size=(side, side, 3, 4)), tf.float32)
    strides = [1, stride, stride, 1]

    def with_gradients(convolution: Any) -> list[Any]:
        with tf.GradientTape() as tape:
            tape.watch([net, weights])
            out = convolution(net, weights, strides, padding)
            loss = tf.reduce_sum(tf.square(out))
        return [out, *tape.gradient(loss, [net, weights])]

    for ours, theirs in zip(with_gradients(convolve), with_gradients(tf.nn.conv2d), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("aware", [False, True])
def test_no_slow_gradient_of_single_pixels_is_in_a_training_step(aware: bool) -> None:
    """And what is exported has the convolutions that the Edge TPU runs."""
    from facetpu.nets.classifier import Classifier
    from facetpu.nets.tensorflow import tf

    model = Classifier(Network(image_size=32, embedding_dim=8, quantization_aware=aware), 3)

    def kinds(is_training: bool) -> list[str]:
        def step(pixels: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(model(pixels, is_training).embedding)
            return tape.gradient(loss, model.trainable_variables)

        graph = tf.function(step, [tf.TensorSpec([2, 32, 32, 3])], autograph=False).get_concrete_function()
        return [op.type for op in graph.graph.get_operations()]

    pointwise = 13
    training, inference = kinds(is_training=True), kinds(is_training=False)
    assert training.count("MatMul") == 3 * pointwise
    assert inference.count("MatMul") == 0
    assert inference.count("Conv2D") >= pointwise + 1
