"""report: what the stages of a run left behind on one page, to hand on."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..artefacts import check_new
from ..evaluation.run_page import read_section
from ..page import write_page


class Report(NamedTuple):
    """A page."""

    path: Path
    sections: list[str]

    def __str__(self) -> str:
        return f"{self.path}: {', '.join(self.sections)}"


def report(folders: Sequence[Path], out: Path, overwrite: bool = False) -> Report:
    """Write one page of what stands in ``folders``, in the order of the pipeline.

    Args:
        folders: of stages: a run, an export folder, evaluations and so on.
        out: the .html file; it holds its pictures and fetches nothing.
        overwrite: replace ``out``.

    Raises:
        FacetpuError: a folder is of no stage, or damaged.
    """
    check_new(out, overwrite)
    with tempfile.TemporaryDirectory() as scratch:
        found = []
        for number, folder in enumerate(folders):
            own = Path(scratch) / str(number)
            own.mkdir()
            found.append(read_section(folder, own))
        sections = [section for _, section in sorted(found, key=lambda pair: pair[0])]
        write_page(out, "report.html", overwrite, name=folders[0].resolve().name, sections=sections)
    return Report(out, [section.title for section in sections])
