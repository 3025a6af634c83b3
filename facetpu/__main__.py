"""``python -m facetpu``: the command line, for an interpreter whose scripts are not on PATH."""

from .cli import main

main(prog_name="facetpu")
