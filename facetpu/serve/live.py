"""What a camera shows now, with boxes and names: a JPEG a frame, made once, and only when somebody asks."""

from __future__ import annotations

import io
import threading

import numpy as np
from PIL import Image

from ..board.draw import draw_faces
from ..board.faces import KnownFace
from ..image import resize
from .answers import Picture

LARGEST = 1280  # pixels of the longer side of a live picture
QUALITY = 80
LETTERS = 130  # a seventh of the names' height is this share of the picture's: to be read on a phone


class Live:
    """The newest frame of one camera that was looked at.

    It is drawn and encoded by the thread of whoever asks first, so that who recognises never waits for
    who watches.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._encoding = threading.Lock()
        self._shown: tuple[int, np.ndarray, list[KnownFace]] | None = None
        self._picture: Picture | None = None
        self._over = False

    def show(self, number: int, image: np.ndarray, faces: list[KnownFace]) -> None:
        """Put a frame in the place of the last: its number, its pixels and the faces on it."""
        with self._changed:
            self._shown = number, image, faces
            self._changed.notify_all()

    def picture(self, after: int, timeout: float) -> Picture | None:
        """The newest frame with a larger number than ``after``; None when there is none in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._over or self._is_later(after), timeout)
            if not self._is_later(after):
                return None
        with self._encoding:
            with self._changed:
                shown = self._shown
            if shown is None:
                return None
            if self._picture is None or self._picture.number != shown[0]:
                self._picture = Picture(shown[0], _drawn(*shown[1:]))
            return self._picture

    def _is_later(self, after: int) -> bool:
        return self._shown is not None and self._shown[0] > after

    def end(self) -> None:
        """There will be no more frames: nobody is to wait for one any longer."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def clear(self) -> None:
        """Show nothing, as from a lost camera, or when somebody in it was erased."""
        with self._encoding, self._changed:
            self._shown = self._picture = None


def _drawn(image: np.ndarray, faces: list[KnownFace]) -> bytes:
    if faces:
        names = [face.name or "stranger" for face in faces]
        image = draw_faces(image, faces, names, unit=max(2, round(min(image.shape[:2]) / LETTERS)))
    return jpeg(image, LARGEST, QUALITY)


def jpeg(image: np.ndarray, largest: int, quality: int) -> bytes:
    """``image`` (uint8 [H, W, 3] RGB) as a JPEG whose longer side has ``largest`` pixels at most."""
    height, width = image.shape[:2]
    share = largest / max(height, width)
    if share < 1:
        image = resize(image, max(1, round(height * share)), max(1, round(width * share)))
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="JPEG", quality=quality)
    return stream.getvalue()
