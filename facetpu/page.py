"""Reports as one HTML file each: pictures, style and all, nothing fetched from anywhere.

The templates are in ``templates/``; ``base.html`` is the house style and documents its blocks.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from . import __version__, artefacts


def write_page(path: Path, template: str, overwrite: bool = False, **values: Any) -> None:
    """Fill ``template`` and write it to ``path``, whole or not at all.

    Args:
        path: of the .html file.
        template: name of a file in ``templates/`` that extends ``base.html``.
        overwrite: replace ``path`` where it exists.
        **values: what the template shows; a value that it names and that is not given is an error.
    """
    artefacts.write_text(path, render(template, **values), overwrite=overwrite)


def render(template: str, **values: Any) -> str:
    """``template`` filled with ``values`` as the text of an HTML page; text in them is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    house = Environment(
        loader=PackageLoader("facetpu"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    house.filters["picture"] = picture
    return house.get_template(template).render(version=__version__, **values)


def picture(image: np.ndarray | Path | bytes, quality: int = 85) -> str:
    """The value of an ``src`` that holds the picture itself.

    Args:
        image: uint8 [H, W, 3] RGB, stored as JPEG; or a PNG or JPEG file, or its bytes, as it is.
        quality: of the JPEG, 1 to 95.
    """
    if isinstance(image, np.ndarray):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        image = file.getvalue()
    elif isinstance(image, Path):
        image = image.read_bytes()
    kind = "png" if image.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode('ascii')}"
