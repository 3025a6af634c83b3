"""The enrolment report: every photo that was given, as a contact sheet with what was said of it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ..artefacts import new_file
from ..contact_sheet import GREEN, GREY, RED, Cell, Section, contact_sheet
from ..image import ARCFACE_SIZE, UnreadableImage, read_image, resize, write_png
from .intake import Candidate

COLUMNS, SIDE = 6, 150


def write_sheet(path: Path, candidates: list[Candidate], accept_all: bool, overwrite: bool) -> None:
    """Write the sheet of ``candidates`` as a PNG that its owner alone may read, since it shows faces.

    Raises:
        FacetpuError: ``path`` exists and ``overwrite`` is false.
    """
    sections = []
    for name in dict.fromkeys(candidate.name for candidate in candidates):
        own = [candidate for candidate in candidates if candidate.name == name]
        taken = sum(_is_taken(candidate, accept_all) for candidate in own)
        heading = f"{name}: {taken} of {len(own)} taken"
        sections.append(Section(heading, [_cell(candidate, accept_all) for candidate in own]))
    with new_file(path, overwrite, mode=0o600) as temporary:
        os.close(os.open(str(temporary), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        write_png(temporary, contact_sheet(sections, COLUMNS, SIDE))


def _is_taken(candidate: Candidate, accept_all: bool) -> bool:
    return candidate.look is not None and (accept_all or not candidate.faults)


def _cell(candidate: Candidate, accept_all: bool) -> Cell:
    caption = candidate.faults[0].kind if candidate.faults else Path(candidate.photo).name
    taken = _is_taken(candidate, accept_all)
    return Cell(_picture(candidate), caption, RED if not taken else GREY if candidate.faults else GREEN)


def _picture(candidate: Candidate) -> np.ndarray:
    """The crop or, where there is none, the photo made small; grey where it cannot be read."""
    if candidate.look is not None and candidate.look.crop is not None:
        return candidate.look.crop
    try:
        image = read_image(candidate.path)
    except UnreadableImage:
        return np.full((ARCFACE_SIZE, ARCFACE_SIZE, 3), 200, np.uint8)
    scale = ARCFACE_SIZE / min(image.shape[:2])
    height, width = (max(ARCFACE_SIZE, round(edge * scale)) for edge in image.shape[:2])
    return resize(image, height, width)
