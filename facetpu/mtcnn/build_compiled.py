"""The build backend: setuptools', and the two compiled pieces, which facetpu also runs without.

``pyproject.toml`` cannot name a C extension to every setuptools that serves Python 3.7 to 3.13, and the
usual way round it is a ``setup.py``. What is compiled is told in ``areas.py`` and ``networks.py``.
"""

from __future__ import annotations

import functools

import setuptools
from setuptools.build_meta import *  # noqa: F403  (the hooks that pip calls)


def _extension(name: str, contract: str) -> setuptools.Extension:
    """``name``.c; ``contract`` says whether a multiplication and an addition may become one operation."""
    return setuptools.Extension(
        f"facetpu.mtcnn.{name}",
        [f"facetpu/mtcnn/{name}.c"],
        extra_compile_args=["-O3", "-std=c99", f"-ffp-contract={contract}"],
        libraries=["m"],
        optional=True,  # where there is no compiler, pip installs the rest
    )


# Areas have the same bits on every machine; networks have those of TFLite nowhere, and want the speed.
_PIECES = [_extension("_area", "off"), _extension("_networks", "fast")]

# The hooks call this for a project without a setup.py.
setuptools.setup = functools.partial(setuptools.setup, ext_modules=_PIECES)
