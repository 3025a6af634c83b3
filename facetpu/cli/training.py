"""The command that trains a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..options import FILE, FOLDER, common, overwrite


@click.command()
@click.argument("config", type=FILE)
@click.argument("records", type=FOLDER)
@click.argument("run", type=FOLDER)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in RUN.")
@common
@overwrite
def train(config: Path, records: Path, run: Path, resume: bool, overwrite: bool) -> Any:
    """Train the network of CONFIG on RECORDS into RUN.

    Example: facetpu train configs/small-cpu.yaml records run
    """
    from ..stages.train import train

    return train(config, records, run, resume=resume, overwrite=overwrite)
