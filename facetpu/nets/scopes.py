"""Which variables a list of scopes means: how a base is frozen and its last blocks are trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from ..errors import FacetpuError


def in_scopes(name: str, scopes: Sequence[str] | None) -> bool:
    """Whether the variable or scope ``name`` is one of ``scopes`` or lies in one.

    Args:
        name: as ``MobilenetV1/Conv2d_13_pointwise/weights``.
        scopes: shell patterns, as ``MobilenetV1/Conv2d_13*`` or ``Embedding``; None means everything.
    """
    if scopes is None:
        return True
    return any(fnmatchcase(name, scope) or fnmatchcase(name, f"{scope}/*") for scope in scopes)


def check_scopes(names: Iterable[str], scopes: Sequence[str] | None) -> None:
    """Refuse a scope that no variable lies in.

    Raises:
        FacetpuError: there is such a scope.
    """
    names = list(names)
    for scope in scopes or ():
        if not any(in_scopes(name, [scope]) for name in names):
            roots = sorted({name.split("/")[0] for name in names})
            raise FacetpuError(
                f"network.trainable_scopes: no variable lies in {scope}; scopes begin with "
                f"{', '.join(roots)}, and {names[0]} is a variable"
            )
