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
from facetpu.tflite.schema import Padding, new

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


Op = tuple[str, dict[str, int], tuple[int, ...]]  # its name, options, and the shape of its kernel, if any

OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
}


def write_network(path: Path, side: int, ops: list[Op]) -> Path:
    """A network of float32 [1, side, side, 3]; the shapes in between are left to the runtime."""
    net = Builder()
    tensor = net.input("image", [1, side, side, 3])
    for index, (name, options, kernel) in enumerate(ops):
        inputs = [tensor]
        if kernel:
            inputs.append(net.constant(f"kernel{index}", noise(*kernel).astype(np.float32)))
            inputs.append(net.constant(f"bias{index}", np.zeros(kernel[0], np.float32)))
        tensor = net.activation(f"out{index}", [1, -1] if name == "FULLY_CONNECTED" else [1, -1, -1, -1])
        net.op(name, inputs, [tensor], new(OPTIONS[name], **options))
    path.write_bytes(net.finish([tensor]))
    return path


def convolution(kernel: tuple[int, ...] = (4, 3, 3, 3), **options: int) -> Op:
    return "CONV_2D", {"padding": Padding.VALID, "stride_w": 1, "stride_h": 1, **options}, kernel


def pool(**options: int) -> Op:
    halves = {"stride_w": 2, "stride_h": 2, "filter_width": 2, "filter_height": 2}
    return "MAX_POOL_2D", {"padding": Padding.SAME, **halves, **options}, ()


def dense(inputs: int, **options: int) -> Op:
    return "FULLY_CONNECTED", options, (5, inputs)


@pytest.mark.parametrize(
    "ops",
    [
        pytest.param([convolution(padding=Padding.SAME)], id="padded"),
        pytest.param([convolution(padding=Padding.SAME), dense(12 * 12 * 4)], id="padded, then dense"),
        pytest.param([convolution(stride_w=2, stride_h=2)], id="stride"),
        pytest.param([convolution(dilation_w_factor=2, dilation_h_factor=2)], id="dilation"),
        pytest.param([convolution(fused_activation_function=1)], id="activation"),
        pytest.param([convolution((4, 12, 12, 3))], id="large kernel"),
        pytest.param([convolution((4, 3, 2, 3))], id="oblong kernel"),
        pytest.param([convolution((3, 3, 3, 1))], id="groups"),
        pytest.param([convolution((3, 3, 3, 3))] * 6, id="more than the image"),
        pytest.param([convolution(), pool(stride_w=1, stride_h=1)], id="pool's stride"),
        pytest.param([convolution(), pool(filter_height=3)], id="oblong pool"),
        pytest.param([convolution(), pool(filter_width=3, filter_height=3)], id="pool before the edge"),
        pytest.param([convolution(), pool(fused_activation_function=1)], id="pool's activation"),
        pytest.param([convolution(), dense(4)], id="dense, of each pixel"),
        pytest.param([convolution(), dense(400, fused_activation_function=1)], id="dense, with activation"),
    ],
)
def test_what_the_compiled_code_does_not_do_is_no_chain(tmp_path: Path, ops: list[Op]) -> None:
    assert chains.read_chain(write_network(tmp_path / "other.tflite", 12, ops)) is None


def test_a_chain_need_not_be_one_of_the_three(tmp_path: Path) -> None:
    ops = [convolution(), pool(), dense(5 * 5 * 4)]
    assert chains.read_chain(write_network(tmp_path / "small.tflite", 12, ops)) is not None


def test_a_network_of_another_make_is_left_to_tflite(compiled: None, tmp_path: Path) -> None:
    ops = [convolution(padding=Padding.SAME), dense(24 * 24 * 4)]
    network = Network(write_network(tmp_path / "rnet.tflite", 24, ops), *FORMS["rnet"])
    assert network._chain is None
    assert network(noise(1, 24, 24, 3)).shape == (1, 5)


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
