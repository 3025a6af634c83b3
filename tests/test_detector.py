"""The detector's networks against plain NumPy, and its faces on real photos."""

from __future__ import annotations

import csv
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

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
    found[..., 0] = 1 / (1 + np.exp(-found[..., 0]))
    expected = np.concatenate(published(name, pixels), axis=2).reshape(found.shape)
    np.testing.assert_allclose(found, expected, atol=2e-5)


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
    cells = np.concatenate([detector._pnet(strip[None])[0] for strip in strips])
    np.testing.assert_allclose(cells, detector._pnet(level[None])[0], rtol=1e-5, atol=1e-5)


def test_the_pyramid_keeps_its_scales_when_levels_are_dropped(networks: Path, detector: Detector) -> None:
    scales = detector._scales((250, 300, 3))
    np.testing.assert_allclose(scales, 0.6 * 0.709 ** np.arange(8))
    assert Detector(networks, drop_levels=3)._scales((250, 300, 3)) == scales[3:]
    assert Detector(networks, drop_levels=8)._scales((250, 300, 3)) == []
    assert Detector(networks, min_face=40)._scales((39, 300, 3)) == []


def face(*box: float) -> Face:
    return Face(box, 0.9, np.zeros((5, 2)))


def test_the_main_face_is_large_and_near_the_centre() -> None:
    small, large = face(40, 40, 60, 60), face(0, 0, 60, 60)
    assert main_face([small, large], (100, 100, 3)) is large
    assert main_face([small, face(0, 0, 30, 30)], (100, 100, 3)) is small
    # 60 x 60 at a distance of 50 weighs less than 20 x 20 in the middle: 3600 - 2 * 2500 < 400.
    assert main_face([face(70, 20, 130, 80), small], (100, 100, 3)) is small


@pytest.mark.data
def test_a_huge_photo_stays_bytes_and_gives_the_same_faces(
    data: Path, detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = read_image(data / "lfw/Kurt_Busch/Kurt_Busch_0002.jpg")
    as_float = detector.detect(image)
    monkeypatch.setattr(room, "_FLOAT_VALUES", 1)
    assert [face.box for face in detector.detect(image)] == [face.box for face in as_float]


# What the reference finds: see the head of reference_boxes.csv.


class Found(NamedTuple):
    """How the faces compare on photos that the reference was run on."""

    photos: int
    main_within_1: int  # photos whose main face is the reference's, within a pixel
    faces: int  # of the reference
    paired: int  # of these found
    within_1: int  # of these within a pixel
    extra: int  # found by us alone


def reference_boxes() -> dict[str, list[Face]]:
    """Photo -> the faces that the reference finds, on the first 1,000 photos of LFW."""
    photos: dict[str, list[Face]] = {}
    with open(Path(__file__).parent / "reference_boxes.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(line for line in file if not line.startswith("#")):
            box = tuple(float(row[side]) for side in ("x1", "y1", "x2", "y2"))
            photos.setdefault(row["photo"], []).append(Face(box, float(row["score"]), np.zeros((5, 2))))
    return photos


def apart(one: Face, other: Face) -> float:
    """The most that a side of one box lies from that of the other, in pixels."""
    return float(np.abs(np.subtract(one.box, other.box)).max())


def compare(detector: Detector, lfw: Path, photos: dict[str, list[Face]]) -> Found:
    """Faces are paired one to one, the nearest first; paired boxes overlap by half or more."""
    main_within_1 = faces = paired = within_1 = extra = 0
    for photo, expected in photos.items():
        image = read_image(lfw / photo[: -len("_0001")] / f"{photo}.jpg")
        found = detector.detect(image)
        main_within_1 += bool(found) and (
            apart(main_face(found, image.shape), main_face(expected, image.shape)) <= 1
        )
        faces += len(expected)
        for face in expected:
            nearest = min(found, key=lambda other: apart(face, other), default=None)
            if nearest is not None and overlap(face.box, nearest.box) > 0.5:
                found.remove(nearest)
                paired += 1
                within_1 += apart(face, nearest) <= 1
        extra += len(found)
    return Found(len(photos), main_within_1, faces, paired, within_1, extra)


def overlap(box: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Intersection over union."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    common = max(width, 0) * max(height, 0)
    return common / (sum((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)) - common)


@pytest.mark.data
def test_boxes_are_the_references_on_every_tenth_photo(data: Path, detector: Detector) -> None:
    photos = dict(list(reference_boxes().items())[3::10])
    found = compare(detector, data / "lfw", photos)
    assert found == Found(100, 100, found.faces, found.faces, found.faces, 0)
    assert found.faces > 100


@pytest.mark.data
@pytest.mark.slow
def test_boxes_are_the_references_on_a_thousand_photos(data: Path, detector: Detector) -> None:
    # In two photos several boxes of one face have a score of exactly 1: which of them stays is up to
    # the sort of the NumPy that the reference ran on. They are two to three pixels apart.
    assert compare(detector, data / "lfw", reference_boxes()) == Found(1000, 998, 1180, 1180, 1178, 0)


@pytest.mark.data
def test_landmarks_are_where_the_reference_finds_them(data: Path, detector: Detector) -> None:
    image = read_image(data / "lfw/Winona_Ryder/Winona_Ryder_0022.jpg")
    x = [110.6, 142.8, 118.9, 115.0, 141.5]  # eyes, nose, corners of the mouth, by the reference
    landmarks = detector.detect(image)[0].landmarks
    np.testing.assert_allclose(landmarks[:, 0], x, atol=0.1)
    left_eye, right_eye, nose, mouth_left, mouth_right = landmarks
    assert left_eye[0] < right_eye[0]
    assert mouth_left[0] < mouth_right[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(mouth_left[1], mouth_right[1])


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
@pytest.mark.parametrize(("drop_levels", "expected"), [(0, 18), (2, 17)])
def test_group_photos_recall_and_false_boxes(
    data: Path, networks: Path, drop_levels: int, expected: int
) -> None:
    folder, detector = data / "group_photos", Detector(networks, drop_levels=drop_levels)
    people = recalled = false = 0
    for photo in ElementTree.parse(folder / "boxes.xml").getroot().iter("image"):
        centres = [
            ((face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2)
            for face in detector.detect(read_image(folder / photo.attrib["file"]))
        ]
        for box in photo.iter("box"):
            left, top, width, height = (int(box.attrib[key]) for key in ("left", "top", "width", "height"))
            inside = [(x, y) for x, y in centres if 0 <= x - left <= width and 0 <= y - top <= height]
            people += 1
            recalled += bool(inside)
            centres = [centre for centre in centres if centre not in inside[:1]]
        false += len(centres)
    assert (people, recalled, false) == (18, expected, 0)


# Memory, each in a process of its own


def peak_memory(networks: Path, prepare: str) -> int:
    """Megabytes that a process needs at most to find the faces in what ``prepare`` calls ``image``.

    Not by getrusage, whose peak a process takes over from the one that started it.
    """
    if not Path("/proc/self/status").exists():
        pytest.skip("only Linux tells the peak of one process")
    code = f"""
import sys
from pathlib import Path
from facetpu.image import one_thread, read_image
from facetpu.mtcnn.detector import Detector
one_thread()
detector = Detector(Path(sys.argv[1]))
{prepare}
assert detector.detect(image)
status = Path("/proc/self/status").read_text()
print(int(status.split("VmHWM:")[1].split()[0]) // 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(networks)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.data
def test_the_detector_fits_on_the_board(data: Path, networks: Path) -> None:
    photo = data / "lfw/Kurt_Busch/Kurt_Busch_0002.jpg"
    assert peak_memory(networks, f"image = read_image(Path({str(photo)!r}))") < 150


@pytest.mark.data
@pytest.mark.slow
def test_a_photo_of_64_megapixels_takes_less_than_a_gigabyte(
    data: Path, networks: Path, tmp_path: Path
) -> None:
    photo = next(iter(sorted((data / "group_photos").glob("*.jpg"))))
    Image.open(photo).resize((8000, 8000)).save(tmp_path / "large.jpg")
    assert peak_memory(networks, f"image = read_image(Path({str(tmp_path / 'large.jpg')!r}))") < 1000
