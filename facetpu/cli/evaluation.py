"""The command that measures a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..options import FILE, FOLDER, common, overwrite


@click.command()
@click.argument("model", type=FILE)
@click.argument("crops", type=FOLDER)
@click.option(
    "--pairs", type=FILE, help="Pairs file of the LFW protocol; pairs drawn from CROPS unless given."
)
@click.option("--out", type=FOLDER, help="Folder for the figures and the picture of the curves.")
@common
@overwrite
def evaluate(model: Path, crops: Path, overwrite: bool, **settings: Any) -> Any:
    """Measure how well MODEL, a run, a frozen graph or a .tflite, tells the people in CROPS apart.

    Example: facetpu evaluate model lfw_crops --pairs pairs.txt
    """
    from ..stages.evaluate import evaluate

    return evaluate(model, crops, overwrite=overwrite, **settings)
