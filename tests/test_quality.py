"""What is said of a face's picture, on drawn faces and on real ones."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from facetpu import quality
from facetpu.image import ARCFACE_LANDMARKS, align_face, read_image
from facetpu.mtcnn.detector import Detector, main_face
from facetpu.mtcnn.weights import write_networks


def drawn(seed: int = 0, size: int = 112) -> np.ndarray:
    """Coloured patches with hard edges on a smooth ground: a crop with detail at every scale."""
    rng = np.random.default_rng(seed)
    crop = np.zeros((112, 112, 3))
    for side in (4, 8, 16, 28):
        patches = rng.uniform(-1, 1, (112 // side, 112 // side, 3))
        crop += np.kron(patches, np.ones((side, side, 1)))
    pixels = np.clip(128 + 35 * crop, 0, 255).astype(np.uint8)
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.BICUBIC))


def blurred(crop: np.ndarray, sigma: float) -> np.ndarray:
    return np.asarray(Image.fromarray(crop).filter(ImageFilter.GaussianBlur(sigma)))


def saved(crop: np.ndarray, quality: int) -> np.ndarray:
    """The crop after JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(crop).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def test_the_more_a_face_is_blurred_the_less_sharp_it_is() -> None:
    values = [quality.sharpness(blurred(drawn(), sigma)) for sigma in (0, 1, 2, 4)]
    assert values == sorted(values, reverse=True)
    assert values[0] > quality.BLURRED > values[2]


def test_a_face_smeared_in_one_direction_is_not_sharp() -> None:
    crop = drawn().astype(np.float64)
    smeared = np.mean([np.roll(crop, shift, axis=1) for shift in range(13)], axis=0).astype(np.uint8)
    assert quality.sharpness(smeared) < quality.BLURRED
    assert quality.sharpness(smeared.swapaxes(0, 1)) == pytest.approx(quality.sharpness(smeared), abs=0.1)


def test_a_tiny_face_made_large_is_not_sharp() -> None:
    tiny = np.asarray(Image.fromarray(drawn()).resize((20, 20), Image.BOX))
    assert quality.sharpness(tiny) < quality.BLURRED
    assert quality.sharpness(drawn(size=160)) > quality.BLURRED


def test_flat_crops_have_neither_sharpness_nor_contrast() -> None:
    for level in (0, 100, 255):
        crop = np.full((112, 112, 3), level, np.uint8)
        assert quality.sharpness(crop) == 0
        assert quality.contrast(crop) == pytest.approx(0, abs=1e-3)
        assert quality.brightness(crop) == pytest.approx(level, abs=1e-3)


def test_brightness_and_contrast_are_those_of_the_face_not_of_its_surroundings() -> None:
    crop = np.zeros((112, 112, 3), np.uint8)
    crop[28:104, 18:94] = (200, 100, 50)
    assert quality.brightness(crop) == pytest.approx(0.299 * 200 + 0.587 * 100 + 0.114 * 50, abs=1e-3)
    assert quality.contrast(crop) == pytest.approx(0, abs=1e-3)
    assert quality.brightness(drawn() // 5) < quality.DARK
    assert quality.contrast(drawn() // 8 + 100) < quality.FLAT


def test_the_turn_of_a_head_is_signed_and_the_same_at_every_scale_and_angle() -> None:
    front = ARCFACE_LANDMARKS
    assert abs(quality.turn(front)) < 0.05
    turned = front + np.outer([0, 0, 1, 0, 0], (12, 0))
    value = quality.turn(turned)
    assert value == pytest.approx(12 / ((73.53 - 38.29 + 70.73 - 41.55) / 4), abs=0.05)
    mirrored = turned[[1, 0, 2, 4, 3]] * (-1, 1)
    assert quality.turn(mirrored) == pytest.approx(-value)
    cos, sin = np.cos(0.5), np.sin(0.5)
    assert quality.turn(turned @ [[cos, sin], [-sin, cos]] * 3 + 40) == pytest.approx(value)
    assert np.isfinite(quality.turn(np.zeros((5, 2))))


@given(st.integers(0, 50), st.integers(0, 50))
def test_a_fingerprint_tells_pictures_apart(one: int, other: int) -> None:
    bits = quality.distance(quality.fingerprint(drawn(one)), quality.fingerprint(drawn(other)))
    assert bits == 0 if one == other else bits > quality.SAME_PICTURE


def test_a_copy_has_nearly_the_fingerprint_of_its_original() -> None:
    crop = drawn(3)
    copies = {
        "saved again": saved(crop, 50),
        "half as large": np.asarray(Image.fromarray(crop).resize((56, 56), Image.BOX)),
        "darker": (crop * 0.6).astype(np.uint8),
        "shifted": np.roll(crop, 1, axis=0),
    }
    bits = {name: quality.distance(*map(quality.fingerprint, (crop, copy))) for name, copy in copies.items()}
    assert max(bits.values()) <= quality.SAME_PICTURE, bits


@pytest.mark.data
def test_real_faces_pass_and_their_spoilt_copies_do_not(data: Path, tmp_path: Path) -> None:
    write_networks(tmp_path)
    detector = Detector(tmp_path)
    photos = sorted((data / "lfw").glob("*/*_0001.jpg"))[::110]
    crops = []
    for photo in photos:
        image = read_image(photo)
        faces = detector.detect(image)
        if faces:
            face = main_face(faces, image.shape)
            crops.append(align_face(image, face, "arcface", 112))
            assert abs(quality.turn(face.landmarks)) < quality.TURNED
    assert len(crops) > 30
    passing = [quality.sharpness(crop) >= quality.BLURRED for crop in crops]
    assert np.mean(passing) > 0.95
    assert np.mean([quality.sharpness(blurred(crop, 2)) < quality.BLURRED for crop in crops]) > 0.9
    assert all(quality.DARK < quality.brightness(crop) < quality.BRIGHT for crop in crops)
    assert all(quality.brightness(crop // 6) < quality.DARK for crop in crops)
    assert all(quality.contrast(crop) > quality.FLAT for crop in crops)
    prints = [quality.fingerprint(crop) for crop in crops]
    copies = [quality.fingerprint(saved(crop, 60)) for crop in crops]
    same = np.array([[quality.distance(one, copy) for copy in copies] for one in prints])
    assert (np.diag(same) <= quality.SAME_PICTURE).all()
    assert ((same <= quality.SAME_PICTURE) == np.eye(len(crops), dtype=bool)).all()
