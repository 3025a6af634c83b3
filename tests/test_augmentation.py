"""The random changes to training pictures, each beside a plain statement of it in NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crops import write_crops

from facetpu.config import Augmentation, TrainConfig
from facetpu.stages.pack import pack

PICTURES, SIDE = 8, 20
NOTHING = {"flip": False, "shift": 0, "zoom": 0, "brightness": 0, "contrast": 0, "saturation": 0}
ALL = {"rotation": 20, "blur": 2, "jpeg": 30, "occlusion": 0.5}


def pictures(count: int = PICTURES, side: int = SIDE) -> np.ndarray:
    """Whole numbers, as photos have them."""
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3)).astype(np.float32)


def drawn(seed: int, count: int = PICTURES) -> Any:
    from facetpu.training.augmentation import draw

    return draw(count, [7, seed])


def changed(pixels: np.ndarray, draws: Any, **config: Any) -> np.ndarray:
    """``pixels`` after these changes and no others."""
    from facetpu.training.augmentation import augment

    return np.asarray(augment(pixels, Augmentation(**{**NOTHING, **config}), draws))


def numbers(draws: Any) -> dict[str, np.ndarray]:
    """The draws by what they decide, each [B]."""
    moves = ["flip", "right", "down", "zoom", "rotation", "brightness", "contrast", "saturation"]
    damage = ["blur", "jpeg", "hidden", "x", "y", "width", "height"]
    mixing = ["mixed", "direction", "place", "softness"]
    values = [*draws.moves.numpy(), *draws.damage.numpy(), *draws.mixing.numpy()]
    return dict(zip(moves + damage + mixing, values, strict=True))


def bilinear(picture: np.ndarray, x: float, y: float) -> np.ndarray:
    """The colour at ``x``, ``y`` of a picture whose edge goes on for ever."""
    last = len(picture) - 1
    x, y = min(max(x, 0), last), min(max(y, 0), last)
    left, top = int(x), int(y)
    right, bottom = min(left + 1, last), min(top + 1, last)
    upper = picture[top, left] * (1 - (x - left)) + picture[top, right] * (x - left)
    lower = picture[bottom, left] * (1 - (x - left)) + picture[bottom, right] * (x - left)
    return np.asarray(upper * (1 - (y - top)) + lower * (y - top))


def moved(picture: np.ndarray, right: float, down: float, zoom: float, degrees: float) -> np.ndarray:
    """Turned anticlockwise about the centre, enlarged, then shifted by shares of the side."""
    side, angle = len(picture), np.radians(degrees)
    centre = (side - 1) / 2
    out = np.empty_like(picture)
    for y in range(side):
        for x in range(side):
            across, along = x - centre - right * side, y - centre - down * side
            from_x = centre + (across * np.cos(angle) - along * np.sin(angle)) / zoom
            from_y = centre + (across * np.sin(angle) + along * np.cos(angle)) / zoom
            out[y, x] = bilinear(picture, from_x, from_y)
    return out


def blurred(picture: np.ndarray, deviation: float) -> np.ndarray:
    """A Gaussian of 13 by 13 pixels over a picture mirrored at its edges."""
    if deviation == 0:
        return picture
    weights = np.exp(-(np.arange(-6, 7) ** 2) / (2 * deviation**2))
    weights = np.outer(weights, weights) / weights.sum() ** 2
    wide = np.pad(picture, [(6, 6), (6, 6), (0, 0)], mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(wide, (13, 13), axis=(0, 1))
    return np.einsum("yxcij,ij->yxc", windows, weights)


def occluded(picture: np.ndarray, x: float, y: float, width: float, height: float) -> np.ndarray:
    """The picture's mean on the pixels whose centres lie in a rectangle, in shares of the side."""
    centres = (np.arange(len(picture)) + 0.5) / len(picture)
    across, along = np.abs(centres - x) < width / 2, np.abs(centres - y) < height / 2
    out = picture.copy()
    out[along[:, None] & across[None]] = picture.mean(axis=(0, 1))
    return out


@pytest.mark.parametrize("seed", range(3))
def test_a_picture_is_mirrored_moved_turned_and_enlarged_as_it_is_said_in_numpy(seed: int) -> None:
    pixels, draws = pictures(), drawn(seed)
    of = numbers(draws)
    mirrored = np.where((of["flip"] < 0)[:, None, None, None], pixels[:, :, ::-1], pixels)
    assert np.array_equal(changed(pixels, draws, flip=True), mirrored)
    assert np.array_equal(draws.flipped(Augmentation(flip=True)).numpy(), of["flip"] < 0)
    assert not draws.flipped(Augmentation(flip=False)).numpy().any()
    ways = zip(of["right"] * 0.2, of["down"] * 0.2, 1 + of["zoom"] * 0.3, of["rotation"] * 40, strict=True)
    expected = [moved(picture, *way) for picture, way in zip(mirrored, ways, strict=True)]
    found = changed(pixels, draws, flip=True, shift=0.2, zoom=0.3, rotation=40)
    np.testing.assert_allclose(found, expected, atol=0.02)


@pytest.mark.parametrize("seed", range(3))
def test_colours_change_as_it_is_said_in_numpy(seed: int) -> None:
    pixels, draws = pictures(), drawn(seed)
    of = {name: values[:, None, None, None] for name, values in numbers(draws).items()}
    grey = (pixels @ np.array([0.2989, 0.5870, 0.1140], np.float32))[..., None]
    saturated = grey + (pixels - grey) * (1 + of["saturation"] * 0.5)
    mean = saturated.mean(axis=(1, 2, 3), keepdims=True)
    contrasted = mean + (saturated - mean) * (1 + of["contrast"] * 0.4)
    expected = np.clip(contrasted + 255 * 0.3 * of["brightness"], 0, 255)
    found = changed(pixels, draws, saturation=0.5, contrast=0.4, brightness=0.3)
    np.testing.assert_allclose(found, expected, atol=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_a_picture_is_blurred_as_it_is_said_in_numpy(seed: int) -> None:
    pixels, draws = pictures(), drawn(seed)
    deviations = np.maximum(numbers(draws)["blur"], 0) * 2.5
    found = changed(pixels, draws, blur=2.5)
    for picture, deviation, out in zip(pixels, deviations, found, strict=True):
        np.testing.assert_allclose(out, blurred(picture, deviation), atol=0.01)
        assert np.array_equal(out, picture) == (deviation == 0)


@pytest.mark.parametrize("seed", range(3))
def test_a_rectangle_is_laid_on_a_picture_as_it_is_said_in_numpy(seed: int) -> None:
    pixels, draws = pictures(), drawn(seed)
    of = numbers(draws)
    found = changed(pixels, draws, occlusion=0.6)
    for k, picture in enumerate(pixels):
        center = (of["x"][k] + 1) / 2, (of["y"][k] + 1) / 2
        sides = (of["width"][k] + 1) / 2 * 0.6, (of["height"][k] + 1) / 2 * 0.6
        expected = occluded(picture, *center, *sides) if of["hidden"][k] > 0 else picture
        np.testing.assert_allclose(found[k], expected, atol=1e-3)
        hidden = (found[k] != picture).any(axis=2)
        assert np.array_equal(hidden, (expected != picture).any(axis=2))
        assert hidden.any(axis=0).sum() <= 0.6 * SIDE + 1
        assert hidden.any(axis=1).sum() <= 0.6 * SIDE + 1


@pytest.mark.parametrize("seed", range(3))
def test_a_picture_passes_through_a_jpeg_of_the_drawn_quality(seed: int) -> None:
    from facetpu.nets.tensorflow import tf

    pixels, draws = pictures(side=32), drawn(seed)
    qualities = np.round(100 - np.maximum(numbers(draws)["jpeg"], 0) * 60).astype(int)
    found = changed(pixels, draws, jpeg=40)
    assert ((qualities >= 40) & (qualities <= 100)).all()
    for picture, quality, out in zip(pixels, qualities.tolist(), found, strict=True):
        file = tf.io.encode_jpeg(picture.astype(np.uint8), quality=quality)
        lossy = tf.io.decode_jpeg(file).numpy() if quality < 100 else picture
        assert np.array_equal(out, lossy), quality
    assert qualities.min() < 100  # or this seed shows nothing


def test_blur_jpeg_and_rectangles_change_every_other_picture_one_as_often_as_another() -> None:
    pixels, draws = pictures(400, 16), drawn(0, 400)
    hit = {
        name: (changed(pixels, draws, **{name: amount}) != pixels).any(axis=(1, 2, 3))
        for name, amount in (("blur", 1), ("jpeg", 50), ("occlusion", 0.9))
    }
    for name, each in hit.items():
        assert 0.4 < each.mean() < 0.6, name
    both = hit["blur"] & hit["occlusion"]
    assert 0.15 < both.mean() < 0.35  # each by itself


@pytest.mark.parametrize("side", [32, 47])
def test_all_together_keep_the_shape_the_kind_and_the_range(side: int) -> None:
    from facetpu.training.augmentation import augment

    strong = Augmentation(shift=0.2, zoom=0.2, brightness=0.5, contrast=0.5, saturation=1, **ALL)
    pixels = pictures(8, side)
    one, same = (augment(pixels, strong, drawn(1, 8)).numpy() for _ in range(2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, augment(pixels, strong, drawn(2, 8)))
    assert one.shape == pixels.shape
    assert one.dtype == np.float32
    assert one.min() >= 0
    assert one.max() <= 255
    assert np.array_equal(changed(pixels, drawn(1, 8)), pixels)  # and none changes nothing


def test_some_faces_are_crossed_with_the_one_before() -> None:
    pixels, draws = pictures(), drawn(11)
    found, values = changed(pixels, draws, mix=0.6), numbers(draws)
    across = (np.arange(SIDE) + 0.5) / SIDE - 0.5
    for k, picture in enumerate(pixels):
        if values["mixed"][k] >= 0.2:
            assert np.array_equal(found[k], picture)
            continue
        x, y = np.cos(np.pi * values["direction"][k]), np.sin(np.pi * values["direction"][k])
        away = across[None] * x + across[:, None] * y - values["place"][k] / 4
        width = 0.02 * 50 ** ((values["softness"][k] + 1) / 2)
        share = (1 / (1 + np.exp(-away / width)))[..., None]
        np.testing.assert_allclose(found[k], share * picture + (1 - share) * pixels[k - 1], atol=1e-3)
    assert 0 < np.sum(values["mixed"] < 0.2) < PICTURES


def test_the_batches_of_a_training_are_the_same_on_every_run(tmp_path: Path) -> None:
    """tf.data runs the changes on threads of its own, and the step's number is a tensor there."""
    from facetpu.training.augmentation import augment, draw
    from facetpu.training.records import Batch, Held, hold, read_records, training_batches

    pack(write_crops(tmp_path / "crops", people=3, photos=4), tmp_path / "records", shards=2, validation=0)
    data = read_records(tmp_path / "records")

    def batches(start: int, config: Augmentation, held: Held | None = None) -> list[Batch]:
        settings = TrainConfig(steps=9, batch_size=6, seed=3, augmentation=config)
        return list(training_batches(data, settings, start, held=held).take(3))

    every, late = (batches(start, Augmentation(**ALL)) for start in (0, 1))
    held = batches(0, Augmentation(**ALL), hold(data))
    for one, same in (*zip(every[1:], late, strict=False), *zip(every, held, strict=True)):
        for field in Batch._fields:
            assert np.array_equal(getattr(one, field), getattr(same, field)), field
    assert hold(data, most=12 * data.image_size**2 * 3 - 1) is None  # one byte short
    # A JPEG rounds, and a graph adds up in another order than NumPy or a single op.
    smooth = Augmentation(**{**ALL, "jpeg": 100})
    for step, (batch, before) in enumerate(
        zip(batches(0, smooth), batches(0, Augmentation(**NOTHING)), strict=True)
    ):
        assert np.array_equal(batch.rows, before.rows)
        expected = augment(before.pixels, smooth, draw(6, [3, step]))
        np.testing.assert_allclose(batch.pixels, expected, atol=0.02)
