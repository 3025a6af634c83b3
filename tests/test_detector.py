"""The detector's networks against plain NumPy, and its faces on real photos."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from facetpu.errors import FacetpuError
from facetpu.image import Face, read_image
from facetpu.mtcnn import detector as room
from facetpu.mtcnn import weights
from facetpu.mtcnn.detector import Detector, main_face
from facetpu.mtcnn.weights import ARCHITECTURES, package_weights, write_networks
from facetpu.runtime import interpreter


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("networks")
    write_networks(folder)
    return folder


@pytest.fixture(scope="module")
def detector(networks: Path) -> Detector:
    return Detector(networks)


# The networks


def convolve(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Valid convolution of [H, W, C] with [h, w, C, N]."""
    height, width = kernel.shape[:2]
    rows, columns = image.shape[0] - height + 1, image.shape[1] - width + 1
    return sum(
        image[y : y + rows, x : x + columns] @ kernel[y, x] for y in range(height) for x in range(width)
    )


def largest(image: np.ndarray, side: int, same: bool) -> np.ndarray:
    """Maximum over ``side`` x ``side``, every second one; ``same`` fills up beyond the last."""
    pad = 0
    if same:
        pad = max((-(-image.shape[0] // 2) - 1) * 2 + side - image.shape[0], 0)
        image = np.pad(image, ((pad // 2, pad - pad // 2),) * 2 + ((0, 0),), constant_values=-np.inf)
    count = (image.shape[0] - side) // 2 + 1
    return np.array(
        [
            [image[2 * y : 2 * y + side, 2 * x : 2 * x + side].max(axis=(0, 1)) for x in range(count)]
            for y in range(count)
        ]
    )


def published(name: str, pixels: np.ndarray) -> list[np.ndarray]:
    """The network as it was published: scaled input, softmax, heads of their own."""
    arrays = [array.astype(np.float64) for array in package_weights(name)]
    pools = {"pnet": [(2, True)], "rnet": [(3, True), (3, False)], "onet": [(3, True), (3, False), (2, True)]}
    image = (pixels - 127.5) / 128
    for layer in range(len(ARCHITECTURES[name].pools)):
        kernel, bias, slopes, *arrays = arrays
        if kernel.ndim == 2:  # dense, over an image whose columns come first
            image, kernel = image.transpose(1, 0, 2).reshape(1, 1, -1), kernel[None, None]
        image = convolve(image, kernel) + bias
        image = np.maximum(image, 0) + slopes.reshape(-1) * np.minimum(image, 0)
        if layer < len(pools[name]):
            image = largest(image, *pools[name][layer])
    heads = [
        image @ kernel.reshape(-1, len(bias)) + bias
        for kernel, bias in zip(arrays[0::2], arrays[1::2], strict=True)
    ]
    exponents = np.exp(heads[-1] - heads[-1].max(axis=2, keepdims=True))
    return [(exponents / exponents.sum(axis=2, keepdims=True))[:, :, 1:], *heads[:-1]]


@pytest.mark.parametrize(("name", "side"), [("pnet", 12), ("pnet", 31), ("rnet", 24), ("onet", 48)])
def test_a_network_equals_the_published_one(networks: Path, name: str, side: int) -> None:
    pixels = np.random.default_rng(side).integers(0, 256, (side, side, 3)).astype(np.float32)
    model = interpreter(networks / f"{name}.tflite")
    model.resize_tensor_input(0, (1, side, side, 3))
    model.allocate_tensors()
    model.set_tensor(0, pixels[None])
    model.invoke()
    found = model.get_tensor(model.get_output_details()[0]["index"])[0].astype(np.float64)
    found[:, :, 0] = 1 / (1 + np.exp(-found[:, :, 0]))
    np.testing.assert_allclose(found, np.concatenate(published(name, pixels), axis=2), atol=2e-5)


def test_the_networks_are_written_without_tensorflow(tmp_path: Path) -> None:
    code = (
        "import sys; from facetpu.mtcnn.weights import write_networks; write_networks(sys.argv[1]); "
        "print('tensorflow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
    sizes = {path.name: path.stat().st_size // 1000 for path in sorted(tmp_path.iterdir())}
    assert sizes == {"onet.tflite": 1558, "pnet.tflite": 28, "rnet.tflite": 402}


def test_the_networks_are_the_same_bytes_every_time(networks: Path, tmp_path: Path) -> None:
    write_networks(tmp_path)
    for name in ARCHITECTURES:
        assert (tmp_path / f"{name}.tflite").read_bytes() == (networks / f"{name}.tflite").read_bytes()


def test_without_the_package_the_advice_is_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FacetpuError, match="weights are missing: run pip install"):
        package_weights("pnet")


def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    other = ARCHITECTURES["pnet"]._replace(shapes=((3, 3, 3, 11), *ARCHITECTURES["pnet"].shapes[1:]))
    monkeypatch.setitem(ARCHITECTURES, "pnet", other)
    with pytest.raises(FacetpuError, match="not the weights facetpu knows"):
        package_weights("pnet")


def test_a_missing_network_is_named(tmp_path: Path) -> None:
    with pytest.raises(FacetpuError, match=r"pnet\.tflite: no such file"):
        Detector(tmp_path)


def test_a_damaged_network_is_named(networks: Path, tmp_path: Path) -> None:
    for path in networks.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "rnet.tflite").write_bytes(b"no model")
    with pytest.raises(FacetpuError, match=r"rnet\.tflite"):
        Detector(tmp_path)


# The cascade


@pytest.mark.parametrize("shape", [(1, 1), (11, 11), (12, 12), (1, 5000), (5000, 13), (20, 200)])
def test_nothing_is_found_in_nothing(detector: Detector, shape: tuple[int, int]) -> None:
    assert detector.detect(np.full((*shape, 3), 120, np.uint8)) == []


@pytest.mark.parametrize("shape", [(97, 61), (98, 60), (131, 40), (59, 40)])
def test_a_level_in_strips_gives_what_it_gives_whole(
    detector: Detector, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int]
) -> None:
    level = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    monkeypatch.setattr(room, "_STRIP_PIXELS", 1)
    strips = list(room._strips(level))
    assert len(strips) > 1
    cells = np.concatenate([detector._pnet(strip) for strip in strips])
    np.testing.assert_allclose(cells, detector._pnet(level), atol=1e-5)


def test_the_pyramid_keeps_its_scales_when_levels_are_dropped(networks: Path, detector: Detector) -> None:
    scales = detector._scales((250, 300, 3))
    np.testing.assert_allclose(scales, 0.6 * 0.709 ** np.arange(8))
    assert Detector(networks, drop_levels=3)._scales((250, 300, 3)) == scales[3:]
    assert Detector(networks, drop_levels=8)._scales((250, 300, 3)) == []
    assert Detector(networks, min_face=40)._scales((39, 300, 3)) == []


def test_interpreters_of_many_sizes_do_not_pile_up(networks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_CACHED_PIXELS", 5000)
    network = room._Network(networks / "pnet.tflite", 5)
    for side in (40, 60, 50, 40, 90):
        network(np.zeros((side, side, 3), np.uint8))
    assert list(network._interpreters) == [(90, 90, 3)]


def face(*box: float) -> Face:
    return Face(box, 0.9, np.zeros((5, 2)))


def test_the_main_face_is_large_and_near_the_centre() -> None:
    small, large = face(40, 40, 60, 60), face(0, 0, 60, 60)
    assert main_face([small, large], (100, 100, 3)) is large
    assert main_face([small, face(0, 0, 30, 30)], (100, 100, 3)) is small
    # 60 x 60 at a distance of 50 weighs less than 20 x 20 in the middle: 3600 - 2 * 2500 < 400.
    assert main_face([face(70, 20, 130, 80), small], (100, 100, 3)) is small


# What detect_face.py of davidsandberg/facenet finds: its surest box, and its eyes, nose and mouth.
REFERENCE = {
    "Kurt_Busch_0002": (1, (74.11, 55.39, 168.79, 194.74), (102.1, 145.0, 125.2, 108.1, 137.8)),
    "Jesse_Jackson_0003": (2, (61.74, 65.33, 167.84, 192.47), (106.9, 151.7, 129.3, 98.3, 136.1)),
    "Yasser_Arafat_0002": (3, (80.8, 78.59, 166.98, 177.05), (105.6, 146.5, 128.1, 108.5, 150.1)),
    "Mark_Hurlbert_0004": (2, (61.61, 65.77, 152.47, 192.02), (103.1, 140.3, 135.4, 112.0, 142.9)),
    "Winona_Ryder_0022": (2, (98.1, 66.25, 179.61, 175.4), (110.6, 142.8, 118.9, 115.0, 141.5)),
}


@pytest.mark.data
@pytest.mark.parametrize("photo", REFERENCE)
def test_faces_are_where_the_reference_finds_them(data: Path, detector: Detector, photo: str) -> None:
    count, box, x = REFERENCE[photo]
    faces = detector.detect(read_image(data / "lfw" / photo[:-5] / f"{photo}.jpg"))
    assert len(faces) == count
    np.testing.assert_allclose(faces[0].box, box, atol=0.02)
    np.testing.assert_allclose(faces[0].landmarks[:, 0], x, atol=0.1)
    left_eye, right_eye, nose, mouth_left, mouth_right = faces[0].landmarks
    assert left_eye[0] < right_eye[0]
    assert mouth_left[0] < mouth_right[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(mouth_left[1], mouth_right[1])
    assert [face.score for face in faces] == sorted((face.score for face in faces), reverse=True)


@pytest.mark.data
def test_faces_are_found_without_opencv_too(
    data: Path, detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = read_image(data / "lfw/Kurt_Busch/Kurt_Busch_0002.jpg")
    fast = detector.detect(image)
    monkeypatch.setattr("facetpu.image.cv2", None)
    plain = detector.detect(image)
    np.testing.assert_allclose(plain[0].box, fast[0].box, atol=0.05)


@pytest.mark.data
def test_every_face_in_the_group_photos_is_found_and_no_other(data: Path, detector: Detector) -> None:
    folder = data / "group_photos"
    for photo in ElementTree.parse(folder / "boxes.xml").getroot().iter("image"):
        centres = [
            ((f.box[0] + f.box[2]) / 2, (f.box[1] + f.box[3]) / 2)
            for f in detector.detect(read_image(folder / photo.attrib["file"]))
        ]
        truth = [{key: int(value) for key, value in box.attrib.items()} for box in photo.iter("box")]
        assert len(centres) == len(truth)
        for box in truth:
            assert any(
                0 <= x - box["left"] <= box["width"] and 0 <= y - box["top"] <= box["height"]
                for x, y in centres
            )
