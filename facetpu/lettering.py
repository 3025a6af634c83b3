"""Text on pictures: a font that has the letters of people's names."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Iterator

from PIL import ImageFont

# What Linux, macOS and Windows have: Pillow's own font lacks all but the letters of English.
FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "Arial.ttf", "arial.ttf")


def load_font(size: int) -> Any:
    """A sans-serif font, ``size`` pixels high; the system's, else matplotlib's, else Pillow's own."""
    for name in (*FONTS, *_of_matplotlib()):
        try:
            return ImageFont.truetype(str(name), size)
        except OSError:
            continue
    return ImageFont.load_default()


def fitted(text: str, font: Any, width: float) -> str:
    """``text`` as ``font`` can draw it within ``width`` pixels, cut with an ellipsis where it is longer."""
    if not isinstance(font, ImageFont.FreeTypeFont):
        text = text.encode("latin-1", "replace").decode("latin-1")
    if _width(text, font) <= width:
        return text
    while text and _width(text + "...", font) > width:
        text = text[:-1]
    return text + "..."


def _width(text: str, font: Any) -> float:
    return float(font.getbbox(text)[2]) if text else 0.0


def _of_matplotlib() -> Iterator[Path]:
    """The font that comes with matplotlib, where that is installed; it is not imported for it."""
    spec = importlib.util.find_spec("matplotlib")
    for folder in (spec and spec.submodule_search_locations) or ():
        yield Path(folder) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
