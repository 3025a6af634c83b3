"""Faces in a grid with captions: one picture that shows what a stage did."""

from __future__ import annotations

from typing import Any, NamedTuple, Sequence

import numpy as np
from PIL import Image, ImageDraw

from .lettering import fitted, load_font

Colour = tuple  # of three numbers, 0 to 255

PAPER, INK, GREY = (250, 249, 247), (38, 40, 44), (120, 124, 130)
GREEN, RED, BLUE = (46, 160, 67), (207, 34, 46), (70, 110, 160)


class Cell(NamedTuple):
    """A picture of the sheet.

    Attributes:
        image: uint8 [H, W, 3] RGB; shown as a square, cut about its middle.
        caption: a line below it.
        colour: of the caption and of the box.
        box: x1, y1, x2, y2 in pixels of ``image``, drawn on it.
    """

    image: np.ndarray
    caption: str = ""
    colour: Colour = INK
    box: Sequence[float] | None = None


class Section(NamedTuple):
    """Cells under a heading."""

    heading: str
    cells: Sequence[Cell]


def contact_sheet(sections: Sequence[Section], columns: int, side: int = 112) -> np.ndarray:
    """Lay out ``sections`` one below the other.

    Args:
        sections: what to show.
        columns: cells in a row.
        side: of a cell's picture in pixels.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    gap = max(4, side // 12)
    caption_font, heading_font = load_font(max(9, side // 9)), load_font(max(12, side // 6))
    line = _height(caption_font) + gap
    headline = _height(heading_font) + 3 * gap
    rows = [-(-len(section.cells) // columns) for section in sections]
    width = gap + columns * (side + gap)
    height = gap + sum(headline * bool(s.heading) + n * (side + line) for s, n in zip(sections, rows))
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    top = gap
    for section, count in zip(sections, rows):
        if section.heading:
            pen.text(
                (gap, top + gap), fitted(section.heading, heading_font, width), fill=INK, font=heading_font
            )
            top += headline
        for index, cell in enumerate(section.cells):
            row, column = divmod(index, columns)
            left, upper = gap + column * (side + gap), top + row * (side + line)
            sheet.paste(_picture(cell, side), (left, upper), _rounded(side))
            text = fitted(cell.caption, caption_font, side)
            pen.text((left, upper + side + gap // 3), text, fill=cell.colour, font=caption_font)
        top += count * (side + line)
    return np.asarray(sheet)


def _picture(cell: Cell, side: int) -> Image.Image:
    """The cell's picture as a square of ``side`` pixels, with its box."""
    image = Image.fromarray(cell.image)
    scale = side / min(image.size)
    image = image.resize([max(side, round(edge * scale)) for edge in image.size], Image.Resampling.LANCZOS)
    left, top = ((edge - side) // 2 for edge in image.size)
    image = image.crop((left, top, left + side, top + side))
    if cell.box is not None:
        x1, y1, x2, y2 = (edge * scale - shift for edge, shift in zip(cell.box, (left, top) * 2))
        thickness = max(2, side // 56)
        ImageDraw.Draw(image).rounded_rectangle(
            (x1, y1, x2, y2), radius=3 * thickness, outline=cell.colour, width=thickness
        )
    return image


def _rounded(side: int) -> Image.Image:
    """A square mask with round corners, smooth at its edge."""
    mask = Image.new("L", (4 * side, 4 * side))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, 4 * side - 1, 4 * side - 1), radius=side // 3, fill=255)
    return mask.resize((side, side), Image.Resampling.LANCZOS)


def _height(font: Any) -> int:
    """Pixels from the top of the tallest letter to the foot of the deepest."""
    return int(font.getbbox("Åg")[3])
