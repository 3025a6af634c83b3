"""Draw the pictures of the README from a finished demo: scripts/readme_pictures.py DEMO [OUT]."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from facetpu.board.identify import identify
from facetpu.contact_sheet import Cell, Section, contact_sheet
from facetpu.demo import draw_answers, judge
from facetpu.people import people_under
from facetpu.portraits import draw_people, render

# Of the first people of seed 0, in the order of the picture.
SITTERS = (33, 36, 26, 14, 20, 8, 12, 13, 7, 16, 9, 28, 30, 23, 21, 5, 1, 10, 6, 38, 4, 39, 34, 11)
SIDE, COLUMNS, QUALITY = 150, 8, 86
TESTS, STRANGERS = 3, 2  # portraits shown of each enrolled person, and of each stranger


def main(demo: Path, out: Path) -> None:
    """Write ``people.jpg`` and ``identified.jpg`` to ``out``."""
    out.mkdir(exist_ok=True)
    people = list(draw_people(1 + max(SITTERS)).items())
    portraits = [
        Cell(render(person, np.random.default_rng([0, person.seed]), 2 * SIDE).image, name)
        for name, person in (people[index] for index in SITTERS)
    ]
    _write(out / "people.jpg", contact_sheet([Section("", portraits)], COLUMNS, SIDE))

    known = set(people_under(demo / "photos" / "enrolled"))
    tests = people_under(demo / "photos" / "tests")
    photos = [p for name, some in tests.items() for p in some[: TESTS if name in known else STRANGERS]]
    answers = [judge(photo, known) for photo in identify(demo / "known", photos).photos]
    _write(out / "identified.jpg", draw_answers(demo / "photos" / "enrolled", answers))


def _write(path: Path, sheet: np.ndarray) -> None:
    Image.fromarray(sheet).save(path, quality=QUALITY, optimize=True)
    print(f"{path}: {path.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else ".readme"))
