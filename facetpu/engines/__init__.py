"""Where work on very many items is done: in this process, in processes of this machine, or on a cluster.

A stage says what is to be done with one item, and takes the results in whatever order they come. It does
not know which engine runs it, and what it writes does not depend on that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Engine(Protocol):
    """Runs a stage's work."""

    def each(
        self,
        task: Callable[[Item], Result],
        items: Iterable[Item],
        start: Callable[..., None],
        arguments: tuple[Any, ...],
        crashed: Callable[[Item, str], Result] | None = None,
    ) -> Iterator[Result]:
        """The result of ``task`` for each of ``items``, as :func:`facetpu.workers.each` gives them."""

    def status(self) -> str:
        """What progress should tell besides rate and time left; mostly nothing."""


def choose_engine(name: str, address: str | None = None, workers: int | None = None) -> Engine | None:
    """The engine that the command line names; None leaves the choice to the stage, on this machine.

    Args:
        name: ``local`` or ``ray``.
        address: of the Ray cluster, see :func:`facetpu.engines.cluster.connect`.
        workers: at most so many processes.

    Raises:
        FacetpuError: an address without Ray, or a cluster that is not there or of other versions.
    """
    from ..errors import FacetpuError

    if name == "local":
        if address:
            raise FacetpuError("--address is of a Ray cluster; give --engine ray too, or leave it out")
        return None
    from .ray import RayEngine

    return RayEngine.connect(address, workers)
