"""The compiled networks against TFLite's, and what happens without them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facetpu.mtcnn import chains
from facetpu.mtcnn import networks as room
from facetpu.mtcnn.networks import Network
from facetpu.mtcnn.weights import ARCHITECTURES, build_network, package_weights, write_networks
from facetpu.tflite.build import Builder
from facetpu.tflite.schema import new

SOURCE = Path(chains.__file__).with_name("_networks.c")
FORMS = {
    "pnet": ((1, 12, 12, 3), (1, 1, 1, 5)),
    "rnet": ((1, 24, 24, 3), (1, 5)),
    "onet": ((1, 48, 48, 3), (1, 15)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("networks")
    write_networks(folder)
    return folder


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The room with ``_networks.c`` compiled, whether or not it was when facetpu was installed."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler here")
    library = tmp_path_factory.mktemp("compiled") / "networks.so"
    flags = ["-O3", "-std=c99", "-Wall", "-Wextra", "-Werror", "-ffp-contract=fast", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, str(SOURCE), "-o", str(library)], check=True)
    before, chains.compiled = chains.compiled, chains.load_compiled(library)
    if chains.compiled is None:
        chains.compiled = before
        pytest.skip("this processor has no AVX2")
    yield
    chains.compiled = before


@pytest.fixture(scope="module")
def fast(compiled: None, folder: Path) -> dict[str, Network]:
    return {name: Network(folder / f"{name}.tflite", *FORMS[name]) for name in FORMS}


@pytest.fixture(scope="module")
def plain(folder: Path) -> dict[str, Network]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chains, "compiled", None)
        return {name: Network(folder / f"{name}.tflite", *FORMS[name]) for name in FORMS}


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).integers(0, 256, shape, dtype=np.uint8)


def assert_alike(found: np.ndarray, expected: np.ndarray) -> None:
    """What is used agrees to 1e-5: probability, offsets, landmarks. A logit has larger sums behind it."""
    assert found.dtype == expected.dtype == np.float32
    np.testing.assert_allclose(found[..., 1:], expected[..., 1:], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found[..., 0], expected[..., 0], rtol=0, atol=1e-4)
    probabilities = (1 / (1 + np.exp(-cells[..., 0].astype(np.float64))) for cells in (found, expected))
    np.testing.assert_allclose(*probabilities, rtol=0, atol=1e-5)


def test_both_ways_are_taken(fast: dict[str, Network], plain: dict[str, Network]) -> None:
    assert all(network._chain is not None and not network._interpreters for network in fast.values())
    assert all(network._chain is None for network in plain.values())


@settings(max_examples=40)
@given(height=st.integers(12, 70), width=st.integers(12, 70))
def test_pnet_agrees_with_tflite_on_images_of_any_size(
    fast: dict[str, Network], plain: dict[str, Network], height: int, width: int
) -> None:
    image = noise(1, height, width, 3)
    assert_alike(fast["pnet"](image), plain["pnet"](image))


@pytest.mark.parametrize(("height", "width"), [(12, 3000), (2501, 13)])
def test_pnet_agrees_with_tflite_on_long_images(
    fast: dict[str, Network], plain: dict[str, Network], height: int, width: int
) -> None:
    image = noise(1, height, width, 3)
    assert_alike(fast["pnet"](image), plain["pnet"](image))


@pytest.mark.parametrize("name", ["rnet", "onet"])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13])
def test_crops_in_any_number_agree_with_tflite(
    fast: dict[str, Network], plain: dict[str, Network], name: str, count: int
) -> None:
    side = ARCHITECTURES[name].side
    images = noise(count, side, side, 3)
    assert_alike(fast[name](images), plain[name](images))


@pytest.mark.parametrize("name", ["rnet", "onet"])
def test_a_crop_gives_the_same_bits_whatever_its_company(fast: dict[str, Network], name: str) -> None:
    side = ARCHITECTURES[name].side
    images = noise(7, side, side, 3)
    together = fast[name](images)
    for index, image in enumerate(images):
        np.testing.assert_array_equal(fast[name](image[None])[0], together[index])
    np.testing.assert_array_equal(fast[name](images), together)


def test_negative_slopes_above_one_are_right(compiled: None, tmp_path: Path) -> None:
    arrays = package_weights("pnet")
    for index in (2, 5, 8):
        arrays[index] = np.linspace(-2, 3, arrays[index].size, dtype=np.float32).reshape(arrays[index].shape)
    path = tmp_path / "pnet.tflite"
    path.write_bytes(build_network("pnet", arrays))
    network = Network(path, *FORMS["pnet"])
    assert network._chain is not None
    image = noise(1, 31, 24, 3).astype(np.float32)
    np.testing.assert_allclose(network(image), network._interpret(image), rtol=1e-4, atol=1e-3)


def test_a_network_of_another_make_is_left_to_tflite(compiled: None, tmp_path: Path) -> None:
    net = Builder()
    image = net.input("image", [1, 12, 12, 3])
    kernel = net.constant("kernel", noise(5, 12, 12, 3).astype(np.float32))
    bias = net.constant("bias", np.zeros(5, np.float32))
    out = net.activation("out", [1, 1, 1, 5])
    net.op("CONV_2D", [image, kernel, bias], [out], new("Conv2DOptions", padding=1, stride_w=1, stride_h=1))
    path = tmp_path / "pnet.tflite"
    path.write_bytes(net.finish([out]))
    network = Network(path, *FORMS["pnet"])
    assert network._chain is None
    assert network(noise(1, 12, 12, 3)).shape == (1, 1, 1, 5)


def test_a_chain_that_tflite_contradicts_is_not_taken(
    compiled: None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = chains.read_chain

    def misread(path: Path) -> chains.Chain | None:
        chain = read(path)
        assert chain is not None
        first, *others = chain._convolutions
        return chains.Chain([first._replace(bias=first.bias + 1), *others], chain._dense)

    monkeypatch.setattr(chains, "read_chain", misread)
    assert Network(folder / "onet.tflite", *FORMS["onet"])._chain is None


def test_interpreters_of_many_sizes_do_not_pile_up(
    plain: dict[str, Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_CACHED_PIXELS", 5000)
    for side in (40, 60, 50, 40, 90):
        plain["pnet"](noise(1, side, side, 3))
    assert list(plain["pnet"]._interpreters) == [(1, 90, 90, 3)]


@given(st.integers(0, 100))
def test_batches_cover_all_crops_in_order(count: int) -> None:
    batches = list(room._batches(count))
    assert [index for batch in batches for index in range(batch.start, batch.stop)] == list(range(count))
    assert {batch.stop - batch.start for batch in batches} <= set(room._BATCHES)
