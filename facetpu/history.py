"""What a training measured as it went: a line a measurement in ``history.csv``, read for its report."""

from __future__ import annotations

from pathlib import Path

from .artefacts import write_text
from .errors import FacetpuError

NAME = "history.csv"
# Of the whole run: the step it was measured at and the seconds of training up to it.
COLUMNS = (
    "step", "seconds", "loss", "learning_rate", "images_per_second",
    "validation_accuracy", "validation_auc", "validation_tar",
)  # fmt: skip


class History:
    """The measurements of a run, on disk as they come."""

    def __init__(self, run: Path) -> None:
        self.path = run / NAME
        self.rows = read_history(run)

    def cut(self, step: int) -> None:
        """Forget what a killed run measured after ``step``, which it is taken up from."""
        self.rows = [row for row in self.rows if row["step"] <= step]
        lines = [",".join(COLUMNS), *(_line(row) for row in self.rows)]
        write_text(self.path, "\n".join(lines) + "\n", overwrite=True)

    @property
    def seconds(self) -> float:
        """Training time up to the last measurement."""
        return self.rows[-1]["seconds"] if self.rows else 0.0

    def add(self, **figures: float) -> None:
        """Write the measurement ``figures``, ``step`` and ``seconds`` among them."""
        if not self.rows:
            self.cut(0)
        self.rows.append(figures)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(figures) + "\n")

    def curve(self, name: str) -> list[tuple[float, float, float]]:
        """(step, seconds, value) wherever ``name`` was measured."""
        return [(row["step"], row["seconds"], row[name]) for row in self.rows if name in row]


def read_history(run: Path) -> list[dict[str, float]]:
    """The measurements in ``run``, none where there are none; a half-written last line is left out.

    Raises:
        FacetpuError: a line is no measurement.
    """
    path = run / NAME
    if not path.is_file():
        return []
    *lines, _ = path.read_text(encoding="utf-8", errors="replace").split("\n")  # the rest a kill cut off
    rows = []
    for number, line in enumerate(lines[1:], 2):
        try:
            values = zip(COLUMNS, line.split(","), strict=True)
            row = {name: float(value) for name, value in values if value}
            rows.append({"step": row["step"], "seconds": row["seconds"], **row})
        except (KeyError, ValueError):
            raise FacetpuError(
                f"{path}: line {number} is no measurement of a training; delete that line"
            ) from None
    return rows


def _line(figures: dict[str, float]) -> str:
    # In full: a resumed training ranks its validations by what it reads here.
    numbers = {name: repr(float(value)).removesuffix(".0") for name, value in figures.items()}
    return ",".join(numbers.get(name, "") for name in COLUMNS)
