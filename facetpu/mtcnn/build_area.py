"""The build backend: setuptools', and the one compiled piece, which facetpu also runs without.

``pyproject.toml`` cannot name a C extension to every setuptools that serves Python 3.7 to 3.13, and the
usual way round it is a ``setup.py``. What is compiled is told in ``areas.py``.
"""

from __future__ import annotations

import functools

import setuptools
from setuptools.build_meta import *  # noqa: F403  (the hooks that pip calls)

_AREA = setuptools.Extension(
    "facetpu.mtcnn._area",
    ["facetpu/mtcnn/_area.c"],
    # Not to fuse multiplications and additions: every machine gives the same bits.
    extra_compile_args=["-O3", "-std=c99", "-ffp-contract=off"],
    libraries=["m"],
    optional=True,  # where there is no compiler, pip installs the rest
)

# The hooks call this for a project without a setup.py.
setuptools.setup = functools.partial(setuptools.setup, ext_modules=[_AREA])
