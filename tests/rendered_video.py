"""Video files of rendered people: there is no camera here, and no video of anybody."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

RATE = 10
SIZE = (320, 240)
Scene = list[tuple[np.ndarray, int, int]]  # portraits uint8 [h, w, 3] RGB, each with its left and top


def write_video(path: Path, scenes: Iterable[Scene], rate: float = RATE) -> Path:
    """A video with one frame a scene."""
    codec = {".avi": "MJPG", ".mp4": "mp4v"}[path.suffix]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), rate, SIZE)
    assert writer.isOpened()
    for scene in scenes:
        writer.write(np.ascontiguousarray(drawn(scene)[:, :, ::-1]))
    writer.release()
    return path


def drawn(scene: Scene) -> np.ndarray:
    """uint8 [H, W, 3] RGB: the portraits on a grey wall, cut off at its edges."""
    frame = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
    for portrait, left, top in scene:
        x1, y1 = max(left, 0), max(top, 0)
        x2, y2 = min(left + portrait.shape[1], SIZE[0]), min(top + portrait.shape[0], SIZE[1])
        if x1 < x2 and y1 < y2:
            frame[y1:y2, x1:x2] = portrait[y1 - top : y2 - top, x1 - left : x2 - left]
    return frame
