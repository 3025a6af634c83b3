"""The commands that train a network and freeze it."""

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


@click.command()
@click.argument("run", type=FOLDER)
@click.argument("out", type=FOLDER)
@common
@overwrite
def freeze(run: Path, out: Path, overwrite: bool) -> Any:
    """Freeze the checkpoint of RUN: constants only, the embedding before its L2 norm.

    Example: facetpu freeze run frozen
    """
    from ..stages.freeze import freeze

    return freeze(run, out, overwrite=overwrite)
