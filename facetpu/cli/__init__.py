"""The commands. Each parses, imports its stage, calls it and returns the result.

Stages are imported inside the commands: ``facetpu --help`` must not wait for TensorFlow, and the
board has none.
"""

from __future__ import annotations

import click

from .. import __version__
from . import board, evaluation, models, photos, serving, setup, training


class Commands(click.Group):
    """Lists the commands in the order of the pipeline rather than of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names as they were added."""
        return list(self.commands)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="facetpu")
def main() -> None:
    """From a folder of photos to a face recogniser on a Coral Edge TPU."""


for command in (
    *(photos.align, photos.pack, training.train),
    *(models.export, models.freeze, models.quantize, models.split, models.compile_, models.join),
    *(models.inspect, board.imprint, board.identify, board.verify, board.people),
    serving.serve,
    *(evaluation.evaluate, evaluation.classify, evaluation.cluster, evaluation.compare, evaluation.embed),
    *(evaluation.report, setup.doctor, setup.demo),
):
    main.add_command(command)
