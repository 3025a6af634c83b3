"""Draws boxes and names on a photo or frame, and shows it in a window."""

from __future__ import annotations

import os
import sys
from typing import Any, Sequence

import numpy as np
from PIL import Image, ImageDraw

from ..errors import FacetpuError
from ..lettering import fitted, load_font
from .faces import KnownFace

KNOWN, STRANGER = (46, 160, 67), (207, 34, 46)
TITLE = "facetpu"
_ESCAPE = 27


def draw_faces(
    image: np.ndarray,
    faces: Sequence[KnownFace],
    labels: Sequence[str] | None = None,
    unit: int | None = None,
) -> np.ndarray:
    """A copy of ``image`` (uint8 [H, W, 3]) with a box and a name on each face.

    Args:
        image: the photo.
        faces: those on it.
        labels: what to write on each instead of its name and cosine.
        unit: width of the lines in pixels, and a seventh of the letters' height; by the photo unless given.
    """
    canvas = Image.fromarray(image)
    pen = ImageDraw.Draw(canvas)
    unit = unit or max(2, round(min(canvas.size) / 250))
    font = load_font(7 * unit)
    for face, label in zip(faces, labels or [str(face) for face in faces]):
        colour = KNOWN if face.name else STRANGER
        x1, _, _, y2 = face.box
        pen.rectangle(tuple(face.box), outline=colour, width=unit)
        text = fitted(label, font, canvas.width - 2 * unit)
        ink_left, ink_top, ink_right, ink_bottom = font.getbbox(text)
        width, height = ink_right - ink_left + 2 * unit, ink_bottom - ink_top + 2 * unit
        # Below the box, or as far down as the photo goes.
        left, top = max(0, min(x1, canvas.width - width)), max(0, min(y2, canvas.height - height))
        pen.rectangle((left, top, left + width, top + height), fill=colour)
        pen.text((left + unit - ink_left, top + unit - ink_top), text, fill=(255, 255, 255), font=font)
    return np.asarray(canvas)


class Window:
    """A window of this machine's display, by OpenCV."""

    def __init__(self) -> None:
        """See that there can be one.

        Raises:
            FacetpuError: there is no display, or OpenCV was built without windows.
            ImportError: OpenCV is not installed.
        """
        import cv2

        if sys.platform.startswith("linux") and not (
            os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        ):
            raise FacetpuError("there is no display here; leave --show out, and use --draw")
        self._cv2: Any = cv2
        try:
            cv2.namedWindow(TITLE)
        except cv2.error:
            raise FacetpuError(
                "this OpenCV has no windows; install opencv-python, or leave --show out"
            ) from None

    def show(self, image: np.ndarray) -> bool:
        """Show ``image`` (uint8 [H, W, 3] RGB); false once the user has pressed q or Escape."""
        self._cv2.imshow(TITLE, np.ascontiguousarray(image[:, :, ::-1]))
        return self._cv2.waitKey(1) & 0xFF not in (ord("q"), _ESCAPE)

    def close(self) -> None:
        """Take the window away."""
        self._cv2.destroyWindow(TITLE)
