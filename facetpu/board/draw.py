"""Draws boxes and names on a photo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from .identify import KnownFace

KNOWN, STRANGER = (46, 160, 67), (207, 34, 46)
# What Linux, macOS and Windows have: Pillow's own font lacks all but Latin letters.
FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "Arial.ttf", "arial.ttf")


def draw_faces(image: np.ndarray, faces: list[KnownFace]) -> np.ndarray:
    """A copy of ``image`` (uint8 [H, W, 3]) with a box and a name on each face."""
    canvas = Image.fromarray(image)
    pen = ImageDraw.Draw(canvas)
    unit = max(2, round(min(canvas.size) / 250))
    font = _font(7 * unit)
    for face in faces:
        colour = KNOWN if face.name else STRANGER
        x1, y1, x2, y2 = face.box
        pen.rectangle((x1, y1, x2, y2), outline=colour, width=unit)
        text, (ink_left, ink_top, ink_right, ink_bottom) = _fitted(str(face), font)
        width, height = ink_right - ink_left, ink_bottom - ink_top
        # Below the box, or as far down as the photo goes.
        top = max(0, min(y2, canvas.height - height - 2 * unit))
        left = max(0, min(x1, canvas.width - width - 2 * unit))
        pen.rectangle((left, top, left + width + 2 * unit, top + height + 2 * unit), fill=colour)
        pen.text((left + unit - ink_left, top + unit - ink_top), text, fill=(255, 255, 255), font=font)
    return np.asarray(canvas)


def _font(size: int) -> Any:
    for name in FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default()


def _fitted(text: str, font: Any) -> tuple[str, tuple[int, int, int, int]]:
    """``text`` as ``font`` can draw it, and the box of its ink: left, top, right, bottom."""
    if isinstance(font, ImageFont.FreeTypeFont):
        left, top, right, bottom = font.getbbox(text)
        return text, (int(left), int(top), int(right), int(bottom))
    text = text.encode("latin-1", "replace").decode("latin-1")
    return text, (0, 0, *font.getmask(text).size)
