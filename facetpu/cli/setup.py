"""The commands to begin with: is everything there, does it work?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..options import FOLDER, common, overwrite


@click.command()
@common
def doctor() -> Any:
    """Show what is installed, which runtime, TPU and compiler there are, and how to get what is missing.

    Example: facetpu doctor
    """
    from ..doctor import doctor

    return doctor()


@click.command()
@click.argument("out", type=FOLDER, default="demo")
@click.option(
    "--people", default=360, show_default=True, type=click.IntRange(20), help="People to render and train on."
)
@click.option("--seed", default=0, show_default=True, help="Seed of the people and of the training.")
@common
@overwrite
def demo(out: Path, people: int, seed: int, overwrite: bool) -> Any:
    """Run the whole chain on rendered people, none of them real, in OUT.

    Example: facetpu demo
    """
    from ..demo import demo

    return demo(out, people=people, seed=seed, overwrite=overwrite)
