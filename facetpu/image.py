"""Photos and crops: the one definition of how they are read, aligned and resized, on host and board alike.

Photos are decoded by Pillow and crops cut by Pillow and NumPy everywhere, so a crop's pixels do not depend
on whether OpenCV is installed. OpenCV, where present, speeds ``resize_area`` and ``write_png`` up.

Left and right are as seen in the image. Coordinates are (x, y) in pixels, x to the right.
"""

from __future__ import annotations

import functools
import io
import math
import warnings
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from .errors import FacetpuError
from .png import encode_photo
from .storage import is_remote, read_bytes

try:
    import cv2
except ImportError:  # The board's plain install.
    cv2 = None  # type: ignore[assignment]

# What PHOTO_SUFFIXES promise, and nothing that Pillow would start another program for.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
BACKGROUND = (255, 255, 255)  # behind transparent pixels: cut-outs are made to stand on a white page

# The five landmarks of an aligned 112 x 112 face, from InsightFace: eyes, nose, corners of the mouth.
ARCFACE_SIZE = 112
ARCFACE_LANDMARKS = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
)
TEMPLATES = ("arcface", "box")

_ORIENTATION = 0x0112  # the EXIF tag
_BLOCK = 32  # output pixels a weight matrix of resize_area covers: larger ones are mostly zeros


class UnreadableImage(FacetpuError):
    """A photo that cannot be read whole.

    Attributes:
        reason: why, without the path.
    """

    def __init__(self, path: Path, reason: str) -> None:
        """Say of ``path`` that it cannot be read, for ``reason``."""
        super().__init__(f"{path}: {reason}")
        self.reason = reason


class Face(NamedTuple):
    """A face in a photo.

    Attributes:
        box: x1, y1, x2, y2 in pixels of the photo; it may reach beyond the photo.
        score: the detector's probability that it is a face, 0 to 1.
        landmarks: float [5, 2]: left eye, right eye, nose, left and right corner of the mouth.
    """

    box: tuple[float, float, float, float]
    score: float
    landmarks: np.ndarray


def read_image(path: Path) -> np.ndarray:
    """The photo as uint8 [H, W, 3] RGB, upright as its EXIF orientation says.

    The file's content counts, not its name. Grey becomes three equal channels, 16 bits a channel
    keep the upper 8, transparent pixels are laid over white, and an animation gives its first frame.

    Raises:
        UnreadableImage: the file is missing, empty, no image, cut off, damaged, or has more pixels than
            Pillow's guard against decompression bombs lets through (89 million).
        FacetpuError, OSError: it is in a bucket that does not give it.
    """
    if is_remote(path):
        return decode_image(io.BytesIO(read_bytes(path)), path)
    path = Path(path)
    try:
        if not path.is_file():
            raise UnreadableImage(path, "no such file" if not path.exists() else "is no file")
        with open(str(path), "rb") as file:
            return decode_image(file, path)
    except OSError as error:
        raise _undecodable(path, error) from None


def decode_image(file: BinaryIO, path: Path, largest: int | None = None) -> np.ndarray:
    """The photo in an open ``file`` as ``read_image`` gives it.

    Args:
        file: to read from.
        path: what messages call it.
        largest: pixels that it may have; as many as Pillow lets through unless given.

    Raises:
        UnreadableImage: see ``read_image``.
    """
    try:
        if not file.read(1):
            raise UnreadableImage(path, "is empty")
        file.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=FORMATS) as image:
                if largest is not None and image.width * image.height > largest:
                    raise UnreadableImage(path, f"has more than {largest:,} pixels")
                image.load()
                return _upright(_pixels(image, path), _orientation(image))
    except (UnreadableImage, MemoryError):
        raise
    except UnidentifiedImageError:
        raise UnreadableImage(path, "is no image in a format facetpu reads, whatever its name") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnreadableImage(path, f"has more than {Image.MAX_IMAGE_PIXELS:,} pixels") from None
    except Exception as error:  # Decoders meet damaged bytes with errors of every kind.
        raise _undecodable(path, error) from None


def write_png(path: Path, image: np.ndarray) -> None:
    """Write uint8 [H, W, 3] RGB as a PNG; the caller sees to it that it appears whole."""
    if cv2 is None:
        Image.fromarray(image).save(str(path), format="PNG", compress_level=1)
        return
    # The same pixels at half of Pillow's time, which goes to a choice of filters row by row.
    done, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not done:
        raise FacetpuError(f"{path}: OpenCV cannot write it as a PNG")
    Path(path).write_bytes(data.tobytes())


def write_crop(path: Path, image: np.ndarray) -> None:
    """Write a crop as a PNG, or for a path that ends in .jpg as a JPEG of quality 95 with full colour."""
    if path.suffix == ".jpg":
        Image.fromarray(image).save(str(path), format="JPEG", quality=95, subsampling=0)
    else:
        path.write_bytes(encode_photo(image))


def align_face(image: np.ndarray, face: Face, template: str, size: int, margin: int = 44) -> np.ndarray:
    """The crop of ``face``: uint8 [size, size, 3].

    Args:
        image: uint8 [H, W, 3] RGB.
        face: where it is.
        template: ``arcface`` brings the five landmarks to their reference points; ``box`` cuts out the
            box with a margin.
        size: side of the crop in pixels.
        margin: pixels of the photo added to the box's width and height (template ``box``).

    Raises:
        FacetpuError: there is no such template.
    """
    if template == "arcface":
        return _warp(image, arcface_transform(face.landmarks, size), size)
    if template == "box":
        x1, y1, x2, y2 = margin_box(face.box, margin, image.shape)
        return resize(image[y1:y2, x1:x2], size, size)
    raise FacetpuError(f"{template!r} is no template; choose one of {', '.join(TEMPLATES)}")


def arcface_transform(landmarks: np.ndarray, size: int) -> np.ndarray:
    """The similarity transform float64 [2, 3] that brings ``landmarks`` nearest to the reference points.

    The least squares over rotation, uniform scale and shift, never a reflection. With points as complex
    numbers it is ``q = a p + b``, a linear regression.

    Args:
        landmarks: [5, 2] in pixels of the photo.
        size: side of the crop, which the reference points are scaled to.
    """
    p = np.asarray(landmarks, np.float64) @ (1, 1j)
    q = ARCFACE_LANDMARKS @ (1, 1j) * (size / ARCFACE_SIZE)
    centred = p - p.mean()
    a = np.vdot(centred, q) / np.vdot(centred, centred)
    b = q.mean() - a * p.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def margin_box(
    box: tuple[float, float, float, float], margin: int, shape: tuple[int, ...]
) -> tuple[int, int, int, int]:
    """``box`` with half of ``margin`` on each side, clipped to a photo of ``shape``: x1, y1, x2, y2.

    As the aligner of davidsandberg/facenet cuts it, and never empty.
    """
    height, width = shape[:2]
    x1 = min(int(max(box[0] - margin / 2, 0)), width - 1)
    y1 = min(int(max(box[1] - margin / 2, 0)), height - 1)
    x2 = max(int(min(box[2] + margin / 2, width)), x1 + 1)
    y2 = max(int(min(box[3] + margin / 2, height)), y1 + 1)
    return x1, y1, x2, y2


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 [H, W, 3] to uint8 [height, width, 3], bilinear and free of aliasing."""
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def resize_area(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Each output pixel is the mean of the area that it covers, as OpenCV's INTER_AREA has it.

    Args:
        image: uint8 or float32 [H, W, 3].
        height: of the output.
        width: of the output.

    Returns:
        [height, width, 3] of the same type. With and without OpenCV it is the same but for the rounding
        of ties: a level of 255 in less than one value of a thousand, 1e-4 for float32.
    """
    if cv2 is not None:
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    # INTER_AREA turns to a linear interpolation of its own on both axes once one of them grows.
    weights = _area_weights if height <= image.shape[0] and width <= image.shape[1] else _growing_weights
    columns = weights(image.shape[1], width)
    result = np.empty((height, width, 3), image.dtype)
    for out, source, matrix in weights(image.shape[0], height):
        rows = matrix @ np.ascontiguousarray(image[source].transpose(2, 0, 1), np.float32)
        planes = np.empty((3, len(matrix), width), np.float32)
        for across, source_across, matrix_across in columns:
            planes[:, :, across] = rows[:, :, source_across] @ matrix_across.T
        if image.dtype == np.uint8:
            planes = np.floor(planes + np.float32(0.5))
        result[out] = planes.transpose(1, 2, 0)
    return result


def one_thread() -> None:
    """Have OpenCV compute with one thread: for processes of which there is one a core."""
    if cv2 is not None:
        cv2.setNumThreads(1)


def _undecodable(path: Path, error: Exception) -> UnreadableImage:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return UnreadableImage(path, f"cannot be decoded: {' '.join(reason.lower().split())}")


def _pixels(image: Any, path: Path) -> np.ndarray:
    """uint8 [H, W, 3] RGB of a loaded Pillow image of any mode."""
    if image.mode.startswith("I"):  # "I;16" in its byte orders; "I" is how older Pillows read 16 bits
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise UnreadableImage(path, "has 32 bits a channel; save it with 8 or 16")
        return np.repeat((values >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise UnreadableImage(path, "has floating-point pixels; save it with 8 or 16 bits a channel")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        page = Image.new("RGBA", image.size, BACKGROUND)
        image = Image.alpha_composite(page, image.convert("RGBA"))
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _orientation(image: Any) -> int:
    """The EXIF orientation that a loaded Pillow image still has, 1 to 8."""
    if image.format == "TIFF":  # Pillow turns these itself; before release 10 it leaves the tag as it was.
        return 1
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # The pixels are whole; damaged metadata can only be taken as none.
        return 1
    return orientation if orientation in range(1, 9) else 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _warp(image: np.ndarray, transform: np.ndarray, size: int) -> np.ndarray:
    """``image`` under ``transform``, bilinear, black beyond its borders: uint8 [size, size, 3]."""
    inverse = np.linalg.inv(np.vstack([transform, (0, 0, 1)]))[:2]
    corners = inverse @ [(0, size, 0, size), (0, 0, size, size), (1, 1, 1, 1)]
    # Bilinear weights span two pixels: what shrinks by more is averaged first.
    step = int(math.hypot(*inverse[:, 0])) or 1
    low = np.floor(corners.min(axis=1)).astype(int) - 2 * step
    high = np.ceil(corners.max(axis=1)).astype(int) + 2 * step
    source = _mean_of_squares(_window(image, low, high), step)
    inverse[:, 2] += 0.5 - low  # Pixel i covers i to i + 1 while the squares are counted.
    inverse /= step
    inverse[:, 2] -= 0.5

    grid = np.arange(size)
    x, y = (row[0] * grid[None] + row[1] * grid[:, None] + row[2] for row in inverse)
    left, top = np.floor(x), np.floor(y)
    right_share, lower_share = (x - left).astype(np.float32), (y - top).astype(np.float32)
    planes = source.reshape(3, -1)
    corner = (top * source.shape[2] + left).astype(np.intp)
    upper = _mix(planes.take(corner, axis=1), planes.take(corner + 1, axis=1), right_share)
    corner += source.shape[2]
    lower = _mix(planes.take(corner, axis=1), planes.take(corner + 1, axis=1), right_share)
    crop = _mix(upper, lower, lower_share) + np.float32(0.5)
    return np.ascontiguousarray(crop.astype(np.uint8).transpose(1, 2, 0))


def _window(image: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """``image[low[1]:high[1], low[0]:high[0]]`` as uint8 planes [3, h, w], black beyond ``image``."""
    size = np.array(image.shape[1::-1])
    window = np.zeros((3, high[1] - low[1], high[0] - low[0]), np.uint8)
    (x1, y1), (x2, y2) = np.clip(low, 0, size), np.clip(high, 0, size)
    window[:, y1 - low[1] : y2 - low[1], x1 - low[0] : x2 - low[0]] = image[y1:y2, x1:x2].transpose(2, 0, 1)
    return window


def _mean_of_squares(planes: np.ndarray, step: int) -> np.ndarray:
    """float32 means of the squares of ``step`` x ``step`` pixels; what is left over right and below goes."""
    if step == 1:
        return planes.astype(np.float32)
    height, width = planes.shape[1] // step, planes.shape[2] // step
    squares = planes[:, : height * step, : width * step].reshape(3, height, step, width, step)
    return squares.mean(axis=(2, 4), dtype=np.float32)


def _mix(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    return first + (second - first) * share


@functools.lru_cache(maxsize=512)
def _area_weights(source: int, target: int) -> list[tuple[slice, slice, np.ndarray]]:
    """One axis of a shrinking resize: slices of output and input, and the matrix from one to the other."""
    scale = source / target
    blocks = []
    for start in range(0, target, _BLOCK):
        stop = min(start + _BLOCK, target)
        low = np.arange(start, stop) * scale
        high = low + scale
        pixels = np.arange(int(low[0]), min(math.ceil(high[-1]), source))
        covered = np.minimum(high[:, None], pixels + 1) - np.maximum(low[:, None], pixels)
        matrix = (np.maximum(covered, 0) / scale).astype(np.float32)
        blocks.append((slice(start, stop), slice(pixels[0], pixels[-1] + 1), matrix))
    return blocks


@functools.lru_cache(maxsize=512)
def _growing_weights(source: int, target: int) -> list[tuple[slice, slice, np.ndarray]]:
    """One axis of INTER_AREA's linear interpolation, in the form of ``_area_weights``."""
    out = np.arange(target)
    growth = target / source
    left = np.minimum(np.floor(out * (1 / growth)).astype(int), source - 1)  # rounds as OpenCV does
    share = (out + 1) - (left + 1) * growth
    share = np.where((share <= 0) | (left == source - 1), 0, share - np.floor(share))
    matrix = np.zeros((target, source), np.float32)
    matrix[out, left] = 1 - share
    matrix[out, np.minimum(left + 1, source - 1)] += share
    return [(slice(0, target), slice(0, source), matrix)]
