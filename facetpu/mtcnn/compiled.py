"""The compiled pieces beside this file, where a C compiler was at hand when facetpu was installed."""

from __future__ import annotations

from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path


def find_library(name: str) -> Path | None:
    """The shared library that ``name``.c was compiled to for this Python; None where there is none."""
    candidates = (Path(__file__).with_name(name + suffix) for suffix in EXTENSION_SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)
