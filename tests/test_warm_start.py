"""Beginning with trained weights: other people, other makers, and public quantised files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facetpu.config import Network
from facetpu.errors import FacetpuError


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """One seed a test, not a model: two models of a test must begin apart."""
    from facetpu.nets.tensorflow import tf

    tf.random.set_seed(0)


def model_of(network: Network, people: int = 3) -> tuple[Any, dict[str, Any]]:
    """A classifier with its variables made, in their order."""
    from facetpu.nets.checkpoint import by_name
    from facetpu.nets.classifier import Classifier

    side = network.image_size
    model = Classifier(network, people)
    model(np.zeros((1, side, side, 3), np.float32), False)
    return model, by_name(model.variables)


def small(**changes: Any) -> Network:
    return Network.model_validate({"image_size": 32, "depth_multiplier": 0.25, "embedding_dim": 8, **changes})


def save(variables: dict[str, Any], folder: Path) -> Path:
    from facetpu.nets.checkpoint import make_saver

    folder.mkdir()
    return Path(make_saver(variables, 1).save(None, str(folder / "model.ckpt"), global_step=7))


def photos(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (count, side, side, 3)).astype(np.float32)


def test_a_checkpoint_of_other_people_gives_all_but_the_head(tmp_path: Path) -> None:
    from facetpu.nets.warm_start import warm_start

    _, theirs = model_of(small(), people=5)
    prefix = save(theirs, tmp_path / "checkpoints")
    for source in (tmp_path, prefix.parent, prefix):  # a run, its checkpoints, one of them
        _, ours = model_of(small(), people=9)
        before = ours["Logits/weights"].numpy()
        assert warm_start(source, small(), ours) == len(ours) - 1
        for name in ours.keys() - {"Logits/weights"}:
            np.testing.assert_array_equal(ours[name].numpy(), theirs[name].numpy(), err_msg=name)
        np.testing.assert_array_equal(ours["Logits/weights"].numpy(), before)


def test_averaged_weights_are_taken_where_a_checkpoint_holds_them(tmp_path: Path) -> None:
    from facetpu.nets.tensorflow import tf
    from facetpu.nets.warm_start import warm_start

    _, theirs = model_of(small())
    averaged = {f"{name}/ExponentialMovingAverage": tf.Variable(v + 1.0) for name, v in theirs.items()}
    prefix = save({**theirs, **averaged}, tmp_path / "public")
    _, ours = model_of(small())
    warm_start(prefix, small(), ours)
    for name, value in ours.items():
        np.testing.assert_array_equal(value.numpy(), theirs[name].numpy() + 1, err_msg=name)


def test_what_does_not_fit_is_told(tmp_path: Path) -> None:
    from facetpu.nets.warm_start import warm_start

    _, theirs = model_of(small())
    prefix = save(theirs, tmp_path / "public")
    _, wider = model_of(small(depth_multiplier=0.5))
    with pytest.raises(
        FacetpuError, match=r"MobilenetV1/Conv2d_0/\w+/beta has shape \[8\] there and \[16\] here"
    ):
        warm_start(prefix, small(), wider)
    _, other = model_of(Network(name="squeezenet", image_size=32, embedding_dim=8))
    with pytest.raises(FacetpuError, match=r"holds no squeezenet/conv1/BatchNorm/beta; check network.name"):
        warm_start(prefix, small(), other)
    with pytest.raises(FacetpuError, match=r"none: is no run, checkpoint or .tflite to start from"):
        warm_start(tmp_path / "none", small(), wider)
    with pytest.raises(FacetpuError, match=r"none.tflite: no such file"):
        warm_start(tmp_path / "none.tflite", small(), wider)


def test_a_batch_norm_spread_over_photos_gives_the_same_and_trains_alike() -> None:
    from facetpu.nets.warm_start import _spread, spread_batch_norm

    network = small(image_size=64, batch_norm_decay=0.0)  # the moving averages are the last batch's
    model, variables = model_of(network)
    pixels = photos(16, 64)
    model(pixels, True)
    for name, mean in variables.items():
        if name.endswith("moving_mean"):  # as a fold that was undone to an identity leaves it
            _spread(variables, name.rpartition("/")[0], np.zeros(mean.shape), np.ones(mean.shape))
    before = model(pixels, False).embedding.numpy()
    spread_batch_norm(network, variables, [pixels])
    after = model(pixels, False).embedding.numpy()
    close = 0.01 * np.abs(before).max()
    np.testing.assert_allclose(after, before, atol=close)
    # In training the batch's own statistics are taken: those of the photos that it was spread over.
    np.testing.assert_allclose(model(pixels, True).embedding.numpy(), before, atol=5 * close)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize(("multiplier", "side"), [(0.25, 128), (0.5, 160)])
def test_a_public_quantised_mobilenet_lives_on_in_slim(data: Path, multiplier: float, side: int) -> None:
    """Class scores of the file against those of our network with its weights and its last layer."""
    from facetpu.image import read_image, resize_area
    from facetpu.nets.classifier import NETWORKS
    from facetpu.nets.tensorflow import tf
    from facetpu.nets.warm_start import _convolutions, spread_batch_norm, warm_start
    from facetpu.runtime import interpreter

    file = data / f"coral/models/mobilenet_v1_{multiplier}_{side}_quant.tflite"
    network = Network(depth_multiplier=multiplier, image_size=side, embedding_dim=8)
    _, variables = model_of(network)
    assert warm_start(file, network, variables) == len(variables) - 4
    pictures = sorted((data / "coral/images").rglob("*.jpg"))[:12]
    pixels = np.stack([resize_area(read_image(path), side, side) for path in pictures])

    engine = interpreter(file)
    engine.allocate_tensors()
    (there,), (out,) = engine.get_input_details(), engine.get_output_details()
    stored = []
    for picture in pixels:
        engine.set_tensor(there["index"], picture[None])
        engine.invoke()
        stored.append(engine.get_tensor(out["index"])[0])
    theirs = np.array(stored, np.float32) * np.float32(out["quantization"][0])

    _, kernel, bias = _convolutions(file)[-1]

    def scores() -> np.ndarray:
        held = {name: variable.numpy() for name, variable in variables.items()}
        with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
            images = tf.constant((pixels.astype(np.float32) - 128) / 128)
            net = NETWORKS["mobilenet_v1"](images, network, False)
            for variable in tf.compat.v1.global_variables():
                variable.load(held[variable.op.name], session)
            pooled = session.run(net).mean(axis=(1, 2))
        return np.asarray(tf.nn.softmax(pooled @ kernel[0, 0] + bias))

    ours = scores()
    assert np.mean(ours.argmax(axis=1) == theirs.argmax(axis=1)) >= 0.75
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.97
    spread_batch_norm(network, variables, [pixels.astype(np.float32)])
    np.testing.assert_allclose(scores(), ours, rtol=0.02, atol=1e-4)
