"""The engines of one machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

from .. import workers

Item = TypeVar("Item")
Result = TypeVar("Result")


class Processes(NamedTuple):
    """Processes of this machine.

    Attributes:
        workers: how many; one a core unless given.
    """

    workers: int | None = None

    def each(
        self,
        task: Callable[[Item], Result],
        items: Iterable[Item],
        start: Callable[..., None],
        arguments: tuple[Any, ...],
        crashed: Callable[[Item, str], Result] | None = None,
    ) -> Iterator[Result]:
        """See :func:`facetpu.workers.each`."""
        return workers.each(task, items, self.workers, start, arguments, crashed)

    def status(self) -> str:
        """Nothing."""
        return ""


class ThisProcess:
    """This very process, for what threads and libraries spread over the cores themselves."""

    def each(
        self,
        task: Callable[[Item], Result],
        items: Iterable[Item],
        start: Callable[..., None],
        arguments: tuple[Any, ...],
        crashed: Callable[[Item, str], Result] | None = None,
    ) -> Iterator[Result]:
        """The results one after another, in the order of ``items``."""
        start(*arguments)
        yield from map(task, items)

    def status(self) -> str:
        """Nothing."""
        return ""
