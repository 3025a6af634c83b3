"""Draws boxes and names on a photo."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from ..lettering import fitted, load_font
from .faces import KnownFace

KNOWN, STRANGER = (46, 160, 67), (207, 34, 46)


def draw_faces(image: np.ndarray, faces: list[KnownFace]) -> np.ndarray:
    """A copy of ``image`` (uint8 [H, W, 3]) with a box and a name on each face."""
    canvas = Image.fromarray(image)
    pen = ImageDraw.Draw(canvas)
    unit = max(2, round(min(canvas.size) / 250))
    font = load_font(7 * unit)
    for face in faces:
        colour = KNOWN if face.name else STRANGER
        x1, _, _, y2 = face.box
        pen.rectangle(tuple(face.box), outline=colour, width=unit)
        text = fitted(str(face), font, canvas.width - 2 * unit)
        ink_left, ink_top, ink_right, ink_bottom = font.getbbox(text)
        width, height = ink_right - ink_left + 2 * unit, ink_bottom - ink_top + 2 * unit
        # Below the box, or as far down as the photo goes.
        left, top = max(0, min(x1, canvas.width - width)), max(0, min(y2, canvas.height - height))
        pen.rectangle((left, top, left + width, top + height), fill=colour)
        pen.text((left + unit - ink_left, top + unit - ink_top), text, fill=(255, 255, 255), font=font)
    return np.asarray(canvas)
