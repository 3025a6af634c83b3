"""Photos of every make and state of repair, and the crops cut from them."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from facetpu import image as images
from facetpu.image import (
    ARCFACE_LANDMARKS,
    Face,
    UnreadableImage,
    align_face,
    arcface_transform,
    margin_box,
    read_image,
    resize,
    resize_area,
    write_png,
)
from facetpu.png import encode_photo

HEIGHT, WIDTH = 24, 40


@pytest.fixture
def colours() -> np.ndarray:
    """A smooth picture that differs in every corner, so that JPEG keeps it and a turn shows."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] / (HEIGHT, WIDTH)[0]
    return np.stack([40 + 60 * x, 200 - 100 * y, 60 + 40 * x + 60 * y], axis=2).astype(np.uint8)


def encode(pixels: np.ndarray, form: str = "PNG", mode: str | None = None, **options: object) -> bytes:
    image = Image.fromarray(pixels)
    file = io.BytesIO()
    (image.convert(mode) if mode else image).save(file, form, **options)
    return file.getvalue()


def read(tmp_path: Path, data: bytes, name: str = "photo.jpg") -> np.ndarray:
    path = tmp_path / name
    path.write_bytes(data)
    return read_image(path)


def reason(tmp_path: Path, data: bytes, name: str = "photo.jpg") -> str:
    with pytest.raises(UnreadableImage) as error:
        read(tmp_path, data, name)
    assert str(error.value) == f"{tmp_path / name}: {error.value.reason}"
    assert "\n" not in error.value.reason
    return error.value.reason


def close(found: np.ndarray, expected: np.ndarray, levels: int) -> bool:
    return found.shape == expected.shape and np.abs(found.astype(int) - expected).max() <= levels


# Reading


@pytest.mark.parametrize("form", ["PNG", "BMP", "PPM", "TIFF"])
def test_lossless_formats_come_back_pixel_by_pixel(tmp_path: Path, colours: np.ndarray, form: str) -> None:
    found = read(tmp_path, encode(colours, form))
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, colours)


@pytest.mark.parametrize(("form", "mode"), [("JPEG", None), ("WEBP", None), ("JPEG", "CMYK")])
def test_lossy_formats_come_back_nearly_whatever_their_name(
    tmp_path: Path, colours: np.ndarray, form: str, mode: str | None
) -> None:
    assert close(read(tmp_path, encode(colours, form, mode, quality=95), "photo.jpg"), colours, 12)


def test_grey_has_three_equal_channels(tmp_path: Path, colours: np.ndarray) -> None:
    grey = np.asarray(Image.fromarray(colours).convert("L"))
    np.testing.assert_array_equal(read(tmp_path, encode(grey)), np.repeat(grey[:, :, None], 3, axis=2))


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_keep_the_upper_eight(tmp_path: Path, colours: np.ndarray, form: str) -> None:
    grey = colours[:, :, 0].astype(np.uint16)
    found = read(tmp_path, encode(grey * 256 + 255, form))
    np.testing.assert_array_equal(found, np.repeat(colours[:, :, :1], 3, axis=2))


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 0]], np.uint8))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    file = io.BytesIO()
    image.save(file, "PNG")
    assert read(tmp_path, file.getvalue()).tolist() == [
        [[255, 0, 0], [0, 255, 0]],
        [[0, 0, 255], [255, 0, 0]],
    ]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_lie_over_white(tmp_path: Path, mode: str) -> None:
    pixels = {"RGBA": [[[10, 10, 10, 255], [10, 10, 10, 0]]], "LA": [[[10, 255], [10, 0]]]}[mode]
    assert read(tmp_path, encode(np.array(pixels, np.uint8))).tolist() == [[[10] * 3, [255] * 3]]


def test_a_transparent_palette_colour_lies_over_white(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8))
    image.putpalette([9, 9, 9, 7, 7, 7])
    file = io.BytesIO()
    image.save(file, "GIF", transparency=1)
    assert read(tmp_path, file.getvalue()).tolist() == [[[9] * 3, [255] * 3]]


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    first, second = (Image.new("L", (4, 3), level) for level in (0, 255))
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=[second])
    np.testing.assert_array_equal(read(tmp_path, file.getvalue()), np.zeros((3, 4, 3), np.uint8))


# What a camera held so would have stored, for the picture to be upright after it is read.
STORED = {
    1: lambda up: up,
    2: lambda up: up[:, ::-1],
    3: lambda up: up[::-1, ::-1],
    4: lambda up: up[::-1],
    5: lambda up: up.swapaxes(0, 1),
    6: lambda up: np.rot90(up, 1),
    7: lambda up: up.swapaxes(0, 1)[::-1, ::-1],
    8: lambda up: np.rot90(up, -1),
}


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_undone(tmp_path: Path, colours: np.ndarray, form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(STORED[orientation](colours))
    assert close(read(tmp_path, encode(stored, form, exif=exif)), colours, 20)


@pytest.mark.parametrize("exif", [b"Exif\0\0rubbish", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0"])
def test_damaged_exif_leaves_the_photo_as_stored(tmp_path: Path, colours: np.ndarray, exif: bytes) -> None:
    assert close(read(tmp_path, encode(colours, "JPEG", exif=exif, quality=95)), colours, 12)


@pytest.mark.parametrize("shape", [(1, 1), (11, 11), (1, 5000), (5000, 1)])
def test_odd_shapes_are_read(tmp_path: Path, shape: tuple[int, int]) -> None:
    assert read(tmp_path, encode(np.full(shape, 77, np.uint8))).shape == (*shape, 3)


@pytest.mark.parametrize(
    "name", ["with space.jpg", 'it\'s "q".jpg', "two\nlines.jpg", "Žofie 蔡 ع.jpg", "%s.jpg"]
)
def test_odd_names_are_read(tmp_path: Path, colours: np.ndarray, name: str) -> None:
    np.testing.assert_array_equal(read(tmp_path, encode(colours), name), colours)


# Refusing


def test_what_is_no_image_is_named_so(tmp_path: Path) -> None:
    assert reason(tmp_path, b"") == "is empty"
    expected = "is no image in a format facetpu reads, whatever its name"
    assert reason(tmp_path, b"Dear diary, today I took no photo.\n" * 50) == expected
    assert reason(tmp_path, b"\xff\xd8\xff\xe0") == expected
    assert reason(tmp_path, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n") == expected


def test_what_is_no_file_is_named_so(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match=r"no such file$"):
        read_image(tmp_path / "absent.jpg")
    with pytest.raises(UnreadableImage, match=r"is no file$"):
        read_image(tmp_path)
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(UnreadableImage, match=r"is no file$"):
        read_image(tmp_path / "pipe.jpg")


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("GIF", {}),
        ("WEBP", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("PPM", {}),
        ("JPEG2000", {}),
    ],
)
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_a_photo_that_is_cut_off_is_refused(
    tmp_path: Path, form: str, options: dict[str, bool], share: float
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    data = encode(noise, form, **options)
    assert reason(tmp_path, data[: int(len(data) * share)])


def test_damaged_png_data_is_refused(tmp_path: Path, colours: np.ndarray) -> None:
    data = bytearray(encode(colours))
    middle = data.index(b"IDAT") + 40
    data[middle : middle + 8] = bytes(8)
    assert reason(tmp_path, bytes(data))


def test_flipped_bits_never_crash(tmp_path: Path, colours: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    for form in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"):
        whole = encode(colours, form)
        for _ in range(60):
            data = bytearray(whole)
            for place in rng.integers(0, len(data), 8):
                data[place] ^= 1 << int(rng.integers(8))
            try:
                found = read(tmp_path, bytes(data))
            except UnreadableImage:
                continue
            assert found.dtype == np.uint8
            assert found.shape[2:] == (3,)


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    data = bytearray(encode(np.zeros((1, 1), np.uint8), "BMP"))
    for side in (10_000, 60_000):
        data[18:26] = int(side).to_bytes(4, "little") * 2
        assert reason(tmp_path, bytes(data)) == "has more than 89,478,485 pixels"


def test_channels_without_a_range_are_refused(tmp_path: Path) -> None:
    assert "floating-point" in reason(tmp_path, encode(np.full((4, 4), 0.5, np.float32), "TIFF"))
    assert "32 bits" in reason(tmp_path, encode(np.full((4, 4), 1 << 20, np.int32), "TIFF"))


# Writing and resizing


def test_a_crop_is_written_as_it_is(tmp_path: Path, colours: np.ndarray) -> None:
    write_png(tmp_path / "crop.png", colours)
    np.testing.assert_array_equal(read_image(tmp_path / "crop.png"), colours)


@given(st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_a_photo_as_png_keeps_its_pixels(height: int, width: int, smooth: bool) -> None:
    photo = np.random.default_rng([height, width]).integers(0, 256, (height, width, 3), dtype=np.uint8)
    if smooth:
        photo = np.sort(photo, axis=1)
    data = encode_photo(photo)
    with Image.open(io.BytesIO(data)) as image:
        image.verify()
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        np.testing.assert_array_equal(np.asarray(image), photo)
    assert encode_photo(photo) == data


def test_resize_keeps_what_has_the_size_already(colours: np.ndarray) -> None:
    np.testing.assert_array_equal(resize(colours, HEIGHT, WIDTH), colours)
    assert resize(colours, 10, 20).shape == (10, 20, 3)


def naive_area(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Every output pixel as the mean over its area, pixel by pixel."""
    result = np.zeros((height, width, 3))
    sy, sx = image.shape[0] / height, image.shape[1] / width
    for y, x in np.ndindex(height, width):
        for row in range(int(y * sy), min(int(np.ceil((y + 1) * sy)), image.shape[0])):
            for column in range(int(x * sx), min(int(np.ceil((x + 1) * sx)), image.shape[1])):
                high = min(row + 1, (y + 1) * sy) - max(row, y * sy)
                wide = min(column + 1, (x + 1) * sx) - max(column, x * sx)
                result[y, x] += image[row, column] * (high * wide / (sy * sx))
    return result


def plain_resize_area(image: np.ndarray, height: int, width: int) -> np.ndarray:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "cv2", None)
        return resize_area(image, height, width)


@given(st.integers(1, 70), st.integers(1, 70), st.data())
def test_resize_area_averages_areas(height: int, width: int, draw: st.DataObject) -> None:
    target = draw.draw(st.tuples(st.integers(1, height), st.integers(1, width)))
    image = np.random.default_rng(height).uniform(0, 255, (height, width, 3)).astype(np.float32)
    np.testing.assert_allclose(plain_resize_area(image, *target), naive_area(image, *target), atol=1e-3)


@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([12, 24, 48]), st.booleans())
def test_resize_area_is_the_same_without_opencv(height: int, width: int, side: int, whole: bool) -> None:
    pytest.importorskip("cv2")
    image = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    if whole and (height < side or width < side):
        return  # OpenCV enlarges uint8 in fixed point; facetpu enlarges crops only, and those are float32.
    image = image if whole else image.astype(np.float32)
    found, expected = plain_resize_area(image, side, side), resize_area(image, side, side)
    assert found.dtype == expected.dtype == image.dtype
    np.testing.assert_allclose(found.astype(float), expected, atol=1 if whole else 1e-3)


# Aligning


@st.composite
def similarities(draw: st.DrawFn) -> np.ndarray:
    """A turn, a scale and a shift as [2, 3]."""
    angle, scale = draw(st.floats(-3.1, 3.1)), draw(st.floats(0.05, 20))
    x, y = draw(st.floats(-500, 500)), draw(st.floats(-500, 500))
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[cos, -sin, x], [sin, cos, y]])


@given(similarities(), st.sampled_from([96, 112, 224]))
def test_landmarks_land_on_the_reference_points(similarity: np.ndarray, size: int) -> None:
    landmarks = ARCFACE_LANDMARKS @ similarity[:, :2].T + similarity[:, 2]
    transform = arcface_transform(landmarks, size)
    found = landmarks @ transform[:, :2].T + transform[:, 2]
    np.testing.assert_allclose(found, ARCFACE_LANDMARKS * size / 112, atol=1e-6)


@given(st.integers(0, 2**32 - 1))
def test_no_other_similarity_is_nearer(seed: int) -> None:
    rng = np.random.default_rng(seed)
    landmarks = ARCFACE_LANDMARKS + rng.normal(0, 8, (5, 2))
    best = arcface_transform(landmarks, 112)

    def error(transform: np.ndarray) -> float:
        return float(((landmarks @ transform[:, :2].T + transform[:, 2] - ARCFACE_LANDMARKS) ** 2).sum())

    for direction in (
        [[1, 0, 0], [0, 1, 0]],
        [[0, -1, 0], [1, 0, 0]],
        [[0, 0, 1], [0] * 3],
        [[0] * 3, [0, 0, 1]],
    ):
        for step in (1e-3, -1e-3):
            assert error(best + step * np.array(direction)) >= error(best)


def test_a_mirrored_face_is_not_mirrored_back() -> None:
    mirrored = ARCFACE_LANDMARKS * (-1, 1)
    assert np.linalg.det(arcface_transform(mirrored, 112)[:, :2]) > 0


@pytest.mark.parametrize("size", [64, 112])
@pytest.mark.parametrize("scale", [0.4, 1.0, 3.0, 9.0])
def test_the_crop_shows_the_landmarks_where_they_belong(scale: float, size: int) -> None:
    turn = 0.3
    landmarks = (ARCFACE_LANDMARKS - 56) * scale @ [
        (np.cos(turn), np.sin(turn)),
        (-np.sin(turn), np.cos(turn)),
    ] + (600, 500)
    y, x = np.mgrid[0:1000, 0:1200]
    spots = sum(np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * (2 * scale) ** 2)) for u, v in landmarks)
    photo = np.repeat((255 * spots).astype(np.uint8)[:, :, None], 3, axis=2)
    crop = align_face(photo, Face((0, 0, 1, 1), 1.0, landmarks), "arcface", size)
    assert crop.shape == (size, size, 3)
    y, x = np.mgrid[0:size, 0:size]
    for point in ARCFACE_LANDMARKS * size / 112:
        weight = crop[:, :, 0] * (np.hypot(x - point[0], y - point[1]) < 7 * size / 112)
        centre = np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()
        np.testing.assert_allclose(centre, point, atol=0.25)


def test_the_crop_equals_opencvs_bilinear_warp() -> None:
    cv2 = pytest.importorskip("cv2")
    photo = np.random.default_rng(0).integers(0, 256, (150, 150, 3), dtype=np.uint8)
    landmarks = ARCFACE_LANDMARKS * 1.3 + (-20, 15)  # partly beyond the photo
    crop = align_face(photo, Face((0, 0, 1, 1), 1.0, landmarks), "arcface", 112)
    warped = cv2.warpAffine(photo, arcface_transform(landmarks, 112), (112, 112))
    difference = np.abs(crop.astype(int) - warped)
    assert difference.mean() < 1  # OpenCV before 5 rounds the shares to 1/32
    assert (crop == 0).all(axis=2).sum() == pytest.approx((warped == 0).all(axis=2).sum(), abs=40)


def test_a_large_face_is_averaged_before_it_shrinks() -> None:
    stripes = np.zeros((1200, 1200, 3), np.uint8)
    stripes[:, ::2] = 255
    face = Face((0, 0, 1, 1), 1.0, ARCFACE_LANDMARKS * 8.2 + 100)
    crop = align_face(stripes, face, "arcface", 112)
    assert np.abs(crop[20:90, 20:90].astype(int) - 127).max() <= 1


def test_the_box_is_cut_as_the_reference_cuts_it() -> None:
    assert margin_box((30.9, 20.2, 80.7, 90.1), 44, (100, 100, 3)) == (8, 0, 100, 100)
    assert margin_box((30.9, 20.2, 80.7, 90.1), 0, (100, 100, 3)) == (30, 20, 80, 90)
    assert margin_box((30.9, 40.2, 60.7, 70.1), 7, (100, 100, 3)) == (27, 36, 64, 73)


@given(st.tuples(*[st.floats(-300, 300)] * 4), st.integers(0, 60))
def test_a_cut_box_lies_in_the_photo_and_is_not_empty(
    box: tuple[float, float, float, float], margin: int
) -> None:
    x1, y1, x2, y2 = margin_box(box, margin, (60, 80, 3))
    assert 0 <= x1 < x2 <= 80
    assert 0 <= y1 < y2 <= 60


def test_the_box_template_is_the_box_resized(colours: np.ndarray) -> None:
    crop = align_face(colours, Face((8.0, 4.0, 24.0, 20.0), 1.0, ARCFACE_LANDMARKS), "box", 16, margin=0)
    np.testing.assert_array_equal(crop, colours[4:20, 8:24])


def test_an_unknown_template_is_refused(colours: np.ndarray) -> None:
    with pytest.raises(images.FacetpuError, match="'oval' is no template; choose one of arcface, box"):
        align_face(colours, Face((0, 0, 9, 9), 1.0, ARCFACE_LANDMARKS), "oval", 112)
