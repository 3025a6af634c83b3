"""Training with rounding to integers: what is rounded, and that the exported integers are those trained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crops import write_crops
from PIL import Image

from facetpu.artefacts import read_manifest
from facetpu.board.embed import Embedder
from facetpu.config import Network, TrainConfig
from facetpu.edgetpu.support import check
from facetpu.errors import FacetpuError
from facetpu.image import read_image
from facetpu.people import people_under
from facetpu.quantization.calibration import read_sample
from facetpu.stages.pack import pack
from facetpu.tflite.model import op_name, read_model

SIDE, DIM, PEOPLE = 32, 8, 4
QUANTIZABLE = ("mobilenet_v1", "mobilenet_v2", "mobilefacenet")


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """A network ``small`` of every kind of layer that is rounded: plain, depthwise, linear, a sum."""
    from facetpu.nets import classifier
    from facetpu.nets.fake_quant import rounded_sum, rounding
    from facetpu.nets.layers import convolutions
    from facetpu.nets.tensorflow import slim, v1

    def network(images: Any, network: Any, is_training: bool) -> Any:
        with v1.variable_scope("Small"), convolutions(network, is_training):
            before = slim.conv2d(images, 8, 5, stride=4, scope="first")
            net = slim.separable_conv2d(before, None, 3, depth_multiplier=1, scope="depthwise")
            linear = rounding(None, network, is_training)
            net = slim.conv2d(net, 8, 1, activation_fn=linear, scope="project")
            return rounded_sum(before, net, "sum", network, is_training)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(classifier.NETWORKS, "small", network)
        patch.setattr(classifier, "QUANTIZABLE", (*QUANTIZABLE, "small"))
        yield


def settings(**changes: Any) -> TrainConfig:
    network = {"name": "small", "image_size": SIDE, "embedding_dim": DIM, "batch_norm_decay": 0.8}
    network["quantization_aware"] = "warm_start" in changes
    optimizer = {"learning_rate": changes.pop("learning_rate", 0.05)}
    asked = {"network": network, "steps": 30, "batch_size": 8, "optimizer": optimizer}
    return TrainConfig.model_validate({**asked, **changes})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in floats, beside its ``crops`` and ``records``."""
    from facetpu.stages.train import train

    folder = tmp_path_factory.mktemp("qat")
    write_crops(folder / "crops", people=PEOPLE, photos=10)
    pack(folder / "crops", folder / "records", shards=2, validation=0.2)
    train(settings(), folder / "records", folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def rounded_run(run: Path) -> Path:
    """That run, trained on with rounding."""
    from facetpu.stages.train import train

    train(settings(warm_start=str(run)), run.with_name("records"), run.with_name("rounded"))
    return run.with_name("rounded")


@pytest.fixture(scope="module")
def quantized(rounded_run: Path) -> Path:
    """Its integer model, beside its ``frozen`` graph."""
    from facetpu.stages.freeze import freeze
    from facetpu.stages.quantize import quantize

    frozen, out = rounded_run.with_name("frozen"), rounded_run.with_name("quantized")
    freeze(rounded_run, frozen)
    result = quantize(frozen, out, rounded_run.with_name("crops"), samples=20)
    assert "ranges learnt in training; int8 against float on 20 crops" in str(result)
    return out


def embeddings_of(graph: Any, crops: np.ndarray) -> np.ndarray:
    """What a frozen graph gives, [n, D]."""
    from facetpu.nets.tensorflow import tf, v1

    side = crops.shape[1]
    with tf.Graph().as_default(), v1.Session() as session:
        image = v1.placeholder(tf.float32, [1, side, side, 3])
        (embedding,) = tf.import_graph_def(graph, {"input": image}, ["embedding:0"])
        return np.stack([session.run(embedding, {image: crop[None]}).ravel() for crop in crops])


def embedding_levels_off(graph: Any, base: Path, crops: np.ndarray) -> np.ndarray:
    """By how many levels each number of the embeddings that ``base`` gives misses that of the graph."""
    embedder = Embedder(base)
    wanted = np.rint(embeddings_of(graph, crops) / embedder.scale + embedder.zero_point)
    return np.abs(embedder.run(crops).reshape(wanted.shape) - wanted)


def levels_off(graph: Any, base: bytes, crops: np.ndarray) -> list[float]:
    """By how many levels at most each layer of ``base`` misses that of the graph it was made from.

    Every layer is given what the integer model gives to it, so that none answers for those before it.
    """
    from facetpu.nets.tensorflow import tf, v1
    from facetpu.quantization.tensors import AllTensors

    model = AllTensors(base)
    outputs = {"sums": [], "pools": []}  # type: dict[str, list[int]]
    for op in model.graph.operators:
        kind = op_name(model.model, op)
        if kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "AVERAGE_POOL_2D"):
            outputs["pools" if kind == "AVERAGE_POOL_2D" else "sums"].append(int(op.outputs[0]))
    scales = [model.graph.tensors[index].quantization.scale[0] for index in outputs["sums"]]
    side, worst = crops.shape[1], np.zeros(len(scales))
    with tf.Graph().as_default() as whole, v1.Session() as session:
        image = v1.placeholder(tf.float32, [1, side, side, 3])
        tf.import_graph_def(graph, {"input": image})
        ops = whole.get_operations()
        layers = [op.outputs[0] for op in ops if op.type == "FakeQuantWithMinMaxVars"]
        pools = [op.outputs[0] for op in ops if op.type == "AvgPool"]
        assert (len(layers), len(pools)) == (len(outputs["sums"]), len(outputs["pools"]))
        for crop in crops:
            model.run(crop[None])
            held = {image: crop[None]}
            held.update(
                (pool, model.real(index)) for pool, index in zip(pools, outputs["pools"], strict=True)
            )
            for place, (layer, index) in enumerate(zip(layers, outputs["sums"], strict=True)):
                given = model.real(index)
                off = np.abs(session.run(layer, held) - given).max() / scales[place]
                worst[place] = max(worst[place], off)
                held[layer] = given
    return worst.tolist()


# --- what is rounded, and how


def test_weights_have_255_levels_a_channel_and_gradients_do_not_see_them() -> None:
    from facetpu.nets.fake_quant import _rounded_weights
    from facetpu.nets.tensorflow import tf

    weights = np.random.default_rng(0).normal(0, [[[[1, 0.01, 30, 0]]]], (3, 3, 5, 4)).astype(np.float32)
    with tf.GradientTape() as tape:
        variable = tf.Variable(weights)
        found = _rounded_weights(variable)
        total = tf.reduce_sum(found)
    step = np.abs(weights).max(axis=(0, 1, 2)) / 127
    wanted = np.rint(np.divide(weights, step, where=step > 0, out=np.zeros_like(weights))) * step
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    gradient = tape.gradient(total, variable).numpy()
    assert (gradient[..., :3] == 1).mean() > 0.97  # the largest weight may lie a rounding error outside


def test_a_range_is_the_first_batchs_and_then_follows_slowly_and_holds_zero() -> None:
    from facetpu.nets.fake_quant import RANGE_DECAY, rounded
    from facetpu.nets.tensorflow import tf, v1

    class Layer(tf.Module):
        @v1.keras.utils.track_tf1_style_variables
        def __call__(self, net: Any, is_training: bool) -> Any:
            return rounded(net, is_training)

    layer = Layer()

    def held() -> list[float]:
        named = {variable.name: float(variable.numpy()) for variable in layer.variables}
        return [named["FakeQuant/min:0"], named["FakeQuant/max:0"]]

    first = layer(tf.constant([-1.0, 0.3, 3.0]), True)
    assert held() == [-1, 3]
    step = 4 / 255
    np.testing.assert_allclose(first, np.rint(np.array([-1, 0.3, 3]) / step) * step, atol=step / 100)
    layer(tf.constant([1.0, 13.0]), True)
    wanted = [-RANGE_DECAY, 3 + 10 * (1 - RANGE_DECAY)]
    np.testing.assert_allclose(held(), wanted, rtol=1e-5)
    beyond = layer(tf.constant([-100.0, 0.0, 100.0]), False)
    np.testing.assert_allclose(held(), wanted, rtol=1e-5)
    np.testing.assert_allclose(beyond, [wanted[0], 0, wanted[1]], atol=step)


@pytest.mark.slow
def test_without_rounding_it_is_the_network_that_it_began_with(run: Path, tmp_path: Path) -> None:
    from facetpu.nets.graph import read_graph
    from facetpu.nets.rounded import is_rounded, without_rounding
    from facetpu.stages.freeze import freeze
    from facetpu.stages.train import train

    still = settings(warm_start=str(run), steps=1, learning_rate=1e-9)
    train(still, run.with_name("records"), tmp_path / "still")
    freeze(run, tmp_path / "float")
    freeze(tmp_path / "still", tmp_path / "rounded")
    exact, rounded = (read_graph(tmp_path / name / "frozen.pb") for name in ("float", "rounded"))
    assert (is_rounded(exact), is_rounded(rounded), is_rounded(without_rounding(rounded))) == (
        False,
        True,
        False,
    )
    assert without_rounding(exact) is exact
    crops = read_sample(run.with_name("crops"), 10, SIDE).crops
    wanted = embeddings_of(exact, crops)
    np.testing.assert_allclose(embeddings_of(without_rounding(rounded), crops), wanted, atol=1e-4)
    off = np.abs(embeddings_of(rounded, crops) - wanted).max()
    assert 1e-3 < off / np.abs(wanted).max() < 0.1


# --- the integers


@pytest.mark.slow
def test_the_exported_integers_are_those_that_were_trained(quantized: Path) -> None:
    from facetpu.nets.graph import read_graph

    graph = read_graph(quantized.with_name("frozen") / "frozen.pb")
    crops = read_sample(quantized.with_name("crops"), 40, SIDE).crops
    assert max(levels_off(graph, (quantized / "base.tflite").read_bytes(), crops[:10])) <= 1.01
    off = embedding_levels_off(graph, quantized / "base.tflite", crops)
    assert (off <= 1).mean() > 0.98
    assert off.max() <= 2


@pytest.mark.slow
def test_an_export_of_a_network_trained_with_rounding_is_all_that_a_board_needs(
    rounded_run: Path, quantized: Path, tmp_path: Path
) -> None:
    from facetpu.export import export

    made = export(rounded_run, tmp_path / "model", samples=20, targets=["litert"])
    assert (tmp_path / "model/base.tflite").read_bytes() == (quantized / "base.tflite").read_bytes()
    model = read_model(tmp_path / "model/base.tflite")
    assert {op.target for op in check(model)} == {"TPU"}
    assert made.cosine > 0.99
    assert made.warnings == []
    told = read_manifest(quantized)
    assert (told["calibrated_on"], told["held_out"], len(told["worst_layers"])) == (0, True, 3)
    assert [target.file for target in made.targets if target.cosine < 0.98] == []
    with np.load(quantized.with_name("frozen") / "head.npz") as head:
        assert head["kernel"].shape == (PEOPLE, DIM)


@pytest.mark.slow
def test_a_training_with_rounding_resumes_to_the_same_bits(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from facetpu.nets.tensorflow import tf
    from facetpu.stages.train import train
    from facetpu.training import trainer

    def killed(steps: range, *args: Any, **kwargs: Any) -> Iterator[int]:
        yield from steps[:7]
        raise KeyboardInterrupt

    config, records = settings(warm_start=str(run), steps=12), run.with_name("records")
    train(config, records, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "progress", killed)
        with pytest.raises(KeyboardInterrupt):
            train(config, records, tmp_path / "run")
    train(config, records, tmp_path / "run", resume=True)
    readers = [
        tf.train.load_checkpoint(tf.train.latest_checkpoint(str(tmp_path / name / "checkpoints")))
        for name in ("whole", "run")
    ]
    names = readers[0].get_variable_to_shape_map()
    assert "Small/sum/FakeQuant/max" in names
    for name in names:
        one, other = (reader.get_tensor(name) for reader in readers)
        np.testing.assert_array_equal(one, other, err_msg=name)


@pytest.mark.parametrize(
    "name",
    ["small", *(pytest.param(name, marks=pytest.mark.slow) for name in QUANTIZABLE)],
)
def test_every_network_that_can_be_rounded_is_so_throughout(name: str, tmp_path: Path) -> None:
    """With the weights that it begins with, which tell nobody apart but go through the same layers."""
    from facetpu.nets.checkpoint import by_name, make_saver
    from facetpu.nets.classifier import Classifier
    from facetpu.nets.graph import freeze_checkpoint
    from facetpu.nets.tensorflow import tf
    from facetpu.quantization.convert import convert

    network = Network(
        name=name,
        image_size=SIDE,
        embedding_dim=DIM,
        quantization_aware=True,
        depth_multiplier=None if name == "mobilefacenet" else 0.25,
    )
    crops = np.random.default_rng(0).integers(0, 256, (6, SIDE, SIDE, 3)).astype(np.uint8)
    tf.random.set_seed(0)
    model = Classifier(network, PEOPLE)
    tf.function(lambda pixels: model(pixels, True))(crops.astype(np.float32))
    prefix = make_saver(by_name(model.variables), 1).save(None, str(tmp_path / "model.ckpt"))
    config = TrainConfig(network=network, steps=1, warm_start="run")
    embedder = freeze_checkpoint(prefix, config, PEOPLE)
    converted = convert(embedder, crops[:0])
    assert {op.target for op in check(read_model(converted.base))} == {"TPU"}
    off = levels_off(embedder.graph, converted.base, crops[:2])
    assert max(off) <= 1.01
    assert len(off) == {"small": 5, "mobilenet_v1": 28, "mobilenet_v2": 64, "mobilefacenet": 62}[name]


@pytest.mark.data
@pytest.mark.slow
def test_on_real_faces_the_integers_are_those_that_were_trained(data: Path, tmp_path: Path) -> None:
    """Coral's own MobileNet, whose weights are dequantised and rounded anew, on faces of 78 people."""
    from facetpu.nets.graph import read_graph
    from facetpu.stages.freeze import freeze
    from facetpu.stages.quantize import quantize
    from facetpu.stages.train import train

    people = sorted(people_under(data / "pins").items())
    for person, photos in people[:20]:
        (tmp_path / "crops" / person).mkdir(parents=True)
        for photo in photos[:6]:
            face = Image.fromarray(read_image(photo)).resize((128, 128))
            face.save(tmp_path / "crops" / person / f"{photo.stem}.png")
    pack(tmp_path / "crops", tmp_path / "records", shards=2, validation=0.2)
    start = data / "coral/models/mobilenet_v1_0.25_128_quant.tflite"
    config = TrainConfig.model_validate(
        {
            "network": {"depth_multiplier": 0.25, "image_size": 128, "quantization_aware": True},
            "warm_start": str(start), "steps": 20, "batch_size": 16, "optimizer": {"learning_rate": 0.01},
        }
    )  # fmt: skip
    train(config, tmp_path / "records", tmp_path / "run")
    freeze(tmp_path / "run", tmp_path / "frozen")
    quantize(tmp_path / "frozen", tmp_path / "quantized", tmp_path / "crops")
    graph = read_graph(tmp_path / "frozen/frozen.pb")
    crops = read_sample(tmp_path / "crops", 60, 128).crops
    assert max(levels_off(graph, (tmp_path / "quantized/base.tflite").read_bytes(), crops[:10])) <= 1.01
    off = embedding_levels_off(graph, tmp_path / "quantized/base.tflite", crops)
    # A number that lies between two levels may be rounded to either, and later layers carry that on.
    assert (off <= 1).mean() > 0.99
    assert off.mean() < 0.5


# --- what cannot be


def test_what_cannot_be_trained_with_rounding_is_told_in_one_line() -> None:
    from facetpu.nets.classifier import check_network

    with pytest.raises(
        FacetpuError, match=r"squeezenet cannot be trained with rounding; mobilenet_v1, mobile"
    ):
        check_network(Network(name="squeezenet", quantization_aware=True))
    with pytest.raises(ValueError, match="trains a trained network on: set warm_start to its run"):
        TrainConfig(network=Network(quantization_aware=True), steps=1)


@pytest.mark.slow
def test_learnt_ranges_are_not_clipped_nor_a_run_with_rounding_gone_on_with_without(
    run: Path, rounded_run: Path, quantized: Path, tmp_path: Path
) -> None:
    from facetpu.stages.quantize import quantize
    from facetpu.stages.train import train

    with pytest.raises(FacetpuError, match="was trained with rounding and has its ranges; leave out --clip"):
        quantize(quantized.with_name("frozen"), tmp_path / "out", run.with_name("crops"), clip=99.9)
    with pytest.raises(
        FacetpuError, match=r"network\.quantization_aware is True there and False in the config"
    ):
        train(settings(steps=60), run.with_name("records"), rounded_run, resume=True)
