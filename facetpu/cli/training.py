"""The command that trains a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..options import FILE, FOLDER, common, on_engine, overwrite


@click.command()
@click.argument("config", type=FILE)
@click.argument("records", type=FOLDER)
@click.argument("run", type=FOLDER)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in RUN.")
@on_engine
@common
@overwrite
def train(
    config: Path,
    records: Path,
    run: Path,
    resume: bool,
    engine: str,
    address: str | None,
    overwrite: bool,
) -> Any:
    """Train the network of CONFIG on RECORDS into RUN.

    Example: facetpu train configs/small-cpu.yaml records run
    """
    if engine == "ray":
        from ..ray_training import train_on_ray

        return train_on_ray(config, records, run, resume=resume, overwrite=overwrite, address=address)
    from ..engines import choose_engine
    from ..stages.train import train

    choose_engine(engine, address)
    return train(config, records, run, resume=resume, overwrite=overwrite)
