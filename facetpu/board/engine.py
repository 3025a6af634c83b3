"""Which imprinting engine writes the rows: facetpu's own, or Google's where it is installed."""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import FacetpuError
from .imprint import ImprintingEngine

ENGINES = ("numpy", "pycoral")

# https://coral.ai/software/#pycoral-api
_ADVICE = (
    "run apt-get install python3-pycoral on the board, or leave --engine out: facetpu's own writes the same"
)


def imprinting_engine(name: str) -> Any:
    """The class called ``name`` of ``ENGINES``; both have ``train`` and ``serialize_model``.

    Raises:
        FacetpuError: Google's is asked for and is not installed, cannot be loaded, or what is installed
            as ``pycoral`` is the unrelated package of that name on PyPI.
    """
    if name == "numpy":
        return ImprintingEngine
    try:
        pycoral = importlib.import_module("pycoral")
    except ImportError:
        raise FacetpuError(f"pycoral is not installed; {_ADVICE}") from None
    try:
        module = importlib.import_module("pycoral.learn.imprinting.engine")
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("pycoral.learn"):
            raise FacetpuError(f"pycoral cannot be loaded: {error}; {_ADVICE}") from None
        where = getattr(pycoral, "__file__", None) or "installed"
        raise FacetpuError(
            f"{where}: this pycoral is not Google's but the package of that name on PyPI; "
            f"uninstall it, then {_ADVICE}"
        ) from None
    except ImportError as error:  # its compiled part lacks libedgetpu, or is for another Python
        raise FacetpuError(f"pycoral cannot be loaded: {error}; {_ADVICE}") from None
    return module.ImprintingEngine
