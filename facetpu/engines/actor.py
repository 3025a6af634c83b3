"""A worker of the cluster: it is started once, and answers batch after batch.

An answer carries what was raised as a value: what Ray makes of an exception is a page of text.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import ray

from .. import workers
from .cluster import versions


class Greeting(NamedTuple):
    """What a worker says of itself when it can begin."""

    node: str  # its id
    versions: dict[str, str]
    failure: Exception | None


class Answer(NamedTuple):
    """What came of a batch.

    Attributes:
        results: of its first items, of all where there is no failure.
        seconds: of work.
        failure: what the next item raised; a MemoryError is the item's, anything else ends the work.
    """

    results: list[Any]
    seconds: float
    failure: Exception | None = None


class Crash(NamedTuple):
    """An item that killed the process that was started for it alone, and why."""

    reason: str


class Worker:
    """What runs on a node, as a Ray actor."""

    def __init__(
        self, task: Callable[[Any], Any], start: Callable[..., None], arguments: tuple[Any, ...]
    ) -> None:
        self._work = (task, start, arguments)

    def begin(self) -> Greeting:
        """Get ready; the first call."""
        _, start, arguments = self._work
        workers.become_worker()
        # TensorFlow, which is imported later if at all, would take all cores of the node.
        os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1")
        failure = None
        try:
            start(*arguments)
        except Exception as error:
            failure = workers.portable(error)
        return Greeting(ray.get_runtime_context().get_node_id(), versions(), failure)

    def work(self, items: Sequence[Any]) -> Answer:
        """Do ``items`` in their order, up to the first that fails."""
        task = self._work[0]
        results: list[Any] = []
        begun = time.perf_counter()
        failure = None
        try:
            for item in items:
                results.append(task(item))
        except Exception as error:
            failure = workers.portable(error)
        return Answer(results, time.perf_counter() - begun, failure)

    def alone(self, item: Any) -> Answer:
        """Do one item in a process of its own; the result is a :class:`Crash` if it kills that one, twice."""
        task, start, arguments = self._work
        begun = time.perf_counter()
        results: list[Any] = []
        failure = None
        try:
            results += workers.each(task, [item], 1, start, arguments, lambda _, reason: Crash(reason))
        except Exception as error:
            failure = workers.portable(error)
        return Answer(results, time.perf_counter() - begun, failure)
