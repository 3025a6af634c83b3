"""How good a picture of a face is, by its aligned crop and landmarks; and whether two are one picture.

The limits were set on the aligned crops of real photos, 7,701 of Labeled Faces in the Wild (LFW) and
2,964 of the Pins set, and on copies of them that were blurred, darkened or saved again. What each limit
calls bad among the real crops is said beside it: much of it truly is.
"""

from __future__ import annotations

import numpy as np

from .image import resize

BLURRED = 0.38  # 0.2% of the real crops lie below; 70% of copies blurred by a sigma of 1.5 px, 99% by 2 px
DARK = 35.0  # 0.05% below; 97% of copies at a fifth of their brightness
BRIGHT = 210.0  # 0.02% above; 90% of copies at three times their brightness
FLAT = 15.0  # 0.03% below; 98% of copies at a fifth of their contrast
TURNED = 1.0  # 0.3% of LFW and 2.5% of Pins beyond it, which are half or full profiles
SAME_PICTURE = 52  # no pair of two people of 34 million but one, a photo that LFW has twice; 99% of copies

_SIDE = 112  # pixels of a crop's side at which all is measured
_FACE = (slice(28, 104), slice(18, 94))  # rows and columns of it that are face, not hair or background
_MEAN = 9  # pixels of the mean that sharpness is measured with
_TRANSFORM = 32  # a side, of the small picture that a fingerprint is made of
_SIGNS = 16  # a side, of the lowest frequencies of it that count


def sharpness(crop: np.ndarray) -> float:
    """How sharp a face is: the share of the change from pixel to pixel that a mean of 9 pixels removes.

    A blurred picture loses little by being blurred again. The less sharp of the two directions counts:
    a face smeared sideways is not sharp. Source: 1 minus the measure of Crete et al., "The Blur Effect:
    Perception and Estimation with a New No-Reference Perceptual Blur Metric", 2007.

    Args:
        crop: uint8 [size, size, 3], RGB, aligned.

    Returns:
        0 to 1; 0 where nothing changes. Below ``BLURRED`` a face is blurred, or was tiny.
    """
    grey = _face(crop)
    return min(_sharpness_of_rows(grey), _sharpness_of_rows(grey.T))


def brightness(crop: np.ndarray) -> float:
    """The mean level of a face, 0 to 255; it is too dark below ``DARK``, too bright above ``BRIGHT``.

    Args:
        crop: uint8 [size, size, 3], RGB, aligned.
    """
    return float(_face(crop).mean())


def contrast(crop: np.ndarray) -> float:
    """The standard deviation of the levels of a face, 0 to 128; below ``FLAT`` little can be seen.

    Args:
        crop: uint8 [size, size, 3], RGB, aligned.
    """
    return float(_face(crop).std())


def turn(landmarks: np.ndarray) -> float:
    """How far a head is turned sideways: 0 from the front, positive to the right of the image.

    The distance of the nose from the line through the middles of eyes and mouth, in units of half the
    mean distance of eyes and of corners of the mouth. At ``TURNED`` the nose is before an eye.

    Args:
        landmarks: float [5, 2]: left eye, right eye, nose, left and right corner of the mouth.
    """
    left_eye, right_eye, nose, mouth_left, mouth_right = np.asarray(landmarks, np.float64)
    eyes, mouth = (left_eye + right_eye) / 2, (mouth_left + mouth_right) / 2
    down, across = mouth - eyes, (right_eye - left_eye + mouth_right - mouth_left) / 4
    beside = down[1] * (nose - eyes)[0] - down[0] * (nose - eyes)[1]
    half_width = np.hypot(*across)
    return float(beside / max(np.hypot(*down) * half_width, 1e-9))


def fingerprint(crop: np.ndarray) -> int:
    """256 bits that stay much the same when a photo is scaled, saved again, brighter or cut a bit otherwise.

    The signs, about their median, of the 16 x 16 lowest frequencies of the crop's cosine transform, the
    constant ones left out.

    Args:
        crop: uint8 [size, size, 3], RGB, aligned.
    """
    small = _grey(resize(crop, _TRANSFORM, _TRANSFORM))
    places = np.arange(_TRANSFORM)
    waves = np.cos(np.pi * (2 * places + 1) * places[1 : _SIGNS + 1, None] / (2 * _TRANSFORM))
    frequencies = waves @ small @ waves.T
    bits = np.packbits((frequencies > np.median(frequencies)).ravel())
    return int.from_bytes(bits.tobytes(), "big")


def distance(one: int, other: int) -> int:
    """Bits, 0 to 256, in which two fingerprints differ; up to ``SAME_PICTURE`` they are of one picture."""
    return bin(one ^ other).count("1")


def fingerprint_bits(prints: list[int]) -> np.ndarray:
    """float32 [n, 256] of -1 and 1: fingerprints in the form in which many are compared at once.

    The product of two rows is 256 less twice their ``distance``.
    """
    stored = b"".join(number.to_bytes(_SIGNS * _SIGNS // 8, "big") for number in prints)
    bits = np.unpackbits(np.frombuffer(stored, np.uint8)).reshape(len(prints), _SIGNS * _SIGNS)
    return bits.astype(np.float32) * 2 - 1


def _face(crop: np.ndarray) -> np.ndarray:
    return _grey(resize(crop, _SIDE, _SIDE)[_FACE])


def _grey(crop: np.ndarray) -> np.ndarray:
    """float32 [H, W]: the luma of a crop, by ITU-R BT.601."""
    return crop.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def _sharpness_of_rows(grey: np.ndarray) -> float:
    """The share of the change along each row that its running mean lacks."""
    edge = _MEAN // 2
    sums = np.cumsum(np.pad(grey, ((0, 0), (edge + 1, edge)), mode="edge"), axis=1, dtype=np.float64)
    mean = (sums[:, _MEAN:] - sums[:, :-_MEAN]) / _MEAN
    change = np.abs(np.diff(grey, axis=1))
    removed = np.maximum(change - np.abs(np.diff(mean, axis=1)), 0)
    return float(removed.sum() / max(change.sum(), 1e-9))
