"""Pictures from a camera, or from a video as if it were one."""

from __future__ import annotations

import time
from typing import Iterator, NamedTuple

import numpy as np

from ..errors import FacetpuError


class Picture(NamedTuple):
    """uint8 [H, W, 3] RGB, and the seconds since the camera was opened."""

    seconds: float
    image: np.ndarray


def camera_pictures(source: int | str) -> Iterator[Picture]:
    """Picture after picture, as fast as they are asked for, until the stream ends.

    Args:
        source: the number of a camera, or the path of a video.

    Raises:
        FacetpuError: it cannot be opened, or gives no picture at all.
        ImportError: OpenCV is not installed.
    """
    import cv2

    # OpenCV logs every way that it tried to open a camera; the error below says all. 5 moved the function.
    (getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel)(0)
    stream = cv2.VideoCapture(source)
    name = f"camera {source}" if isinstance(source, int) else source
    try:
        if not stream.isOpened():
            raise FacetpuError(f"{name}: cannot be opened; see that it is plugged in and that you may use it")
        start, pictures = time.monotonic(), 0
        while True:
            taken, image = stream.read()
            if not taken:
                break
            pictures += 1
            yield Picture(time.monotonic() - start, np.ascontiguousarray(image[:, :, ::-1]))
        if not pictures:
            raise FacetpuError(f"{name}: gives no picture; see that no other program uses it")
    finally:
        stream.release()
