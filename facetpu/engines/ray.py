"""Work on very many items on all cores of a Ray cluster.

Every core has an actor that starts once and is given batches of about a second of work, two ahead so that
it never waits. Nodes may come and go: what a lost actor had is given to another. A batch whose process
died while its node lives may hold an item that is to blame. So its items are tried one by one, and one at
which a process dies again is tried in a process of its own by :mod:`facetpu.workers`, which tells why.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import ray
from ray.exceptions import RayError

from ..errors import FacetpuError, os_error
from ..workers import AHEAD, PATIENCE
from . import cluster
from .actor import Answer, Crash, Greeting, Worker

log = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")

BATCH_SECONDS = 1.0  # of work in a batch
MOST = 1024  # items in a batch, however fast they are
GROWTH = 4  # at most, from one batch to the next
LOOK_SECONDS = 2.0  # between two looks at what nodes there are
PATIENT_SECONDS = 30.0  # without any worker, after which the user is told
HEAD_SECONDS = 30.0  # that a head has to come back, if it keeps its state in Redis


class RayEngine:
    """Runs a stage's work on a Ray cluster."""

    def __init__(self, workers: int | None = None) -> None:
        """Use the cluster that this process is connected to, with at most so many ``workers``."""
        self._workers = workers
        self._team: _Team | None = None

    @classmethod
    def connect(cls, address: str | None = None, workers: int | None = None) -> RayEngine:
        """Connect to a cluster, see :func:`facetpu.engines.cluster.connect`."""
        cluster.connect(address)
        return cls(workers)

    def each(
        self,
        task: Callable[[Item], Result],
        items: Iterable[Item],
        start: Callable[..., None],
        arguments: tuple[Any, ...],
        crashed: Callable[[Item, str], Result] | None = None,
    ) -> Iterator[Result]:
        """The result of ``task`` for each of ``items``, in whatever order they are done.

        What they are given must be importable and picklable.

        Args:
            task: what to do with one item.
            items: the items; few are taken ahead of their turn, so there may be any number.
            start: called once in each worker.
            arguments: what ``start`` is called with.
            crashed: gives the result for an item that kills every process at work on it, and for the
                reason why; without it such an item ends the work.

        Raises:
            FacetpuError: a node cannot do the work, with its name; processes keep dying, or died of an
                item and there is no ``crashed``.
        """
        self._team = team = _Team((task, start, arguments), self._workers)
        try:
            for result in team.work(items):
                if not isinstance(result, _Blamed):
                    yield result
                elif crashed is not None:
                    yield crashed(result.item, result.reason)
                else:
                    raise FacetpuError(
                        f"{result.item!r} killed the process at work on it, twice: it {result.reason}"
                    )
        finally:
            if cluster.head_answers():  # Without it this would wait for ever; a lost cluster ends its actors.
                team.dismiss()

    def status(self) -> str:
        """Which of several nodes is the slowest, and how slow."""
        return self._team.slowest() if self._team else ""


class _Blamed(NamedTuple):
    """In the place of a result: what killed every process at work on it, and why the last one died."""

    item: Any
    reason: str


class _Hand:
    """This side of an actor.

    Attributes:
        node: the id of the node that it runs on; empty until it has begun.
        calls: what it has been asked and has not answered, in order; no items for the call to begin.
        size: items that take it ``BATCH_SECONDS``.
    """

    def __init__(self, work: tuple[Any, ...]) -> None:
        kind = ray.remote(num_cpus=1, max_restarts=0, scheduling_strategy="SPREAD")(Worker)
        self._actor = kind.remote(*work)
        self.node = ""
        self.size = 1
        self.calls: dict[Any, list[Any]] = {self._actor.begin.remote(): []}

    def give(self, batch: list[Any], alone: bool) -> None:
        """Ask it to do ``batch``, or the only item of it in a process of its own."""
        actor = self._actor
        call = actor.alone.remote(batch[0]) if alone else actor.work.remote(batch)
        self.calls[call] = batch

    def note(self, items: int, seconds: float) -> None:
        """Learn how many items it can do in a batch."""
        fitting = int(items * BATCH_SECONDS / max(seconds, 1e-6))
        self.size = max(1, min(fitting, GROWTH * items, MOST))

    def dismiss(self) -> None:
        """End it, whatever it is at; if it is at nothing, in peace, so that it clears up."""
        if self.calls:
            ray.kill(self._actor)
        else:
            self._actor.__ray_terminate__.remote()


class _Team:
    """The actors for one kind of work, and what is left to do of it."""

    def __init__(self, work: tuple[Any, ...], workers: int | None) -> None:
        self._work = work
        self._workers = workers or sys.maxsize
        self._hands: list[_Hand] = []
        self._queue: deque[Any] = deque()  # items next in turn
        self._careful: deque[Any] = deque()  # items that go one by one, for one of them may kill
        self._suspects: deque[Any] = deque()  # items at which a process died when they went alone
        self._deaths = 0  # of processes, since the last result
        self._patience = PATIENCE  # deaths; a large node that is lost takes many that are only beginning
        self._names: dict[str, str] = {}  # of nodes, lost ones too
        self._alive: set[str] = set()  # nodes
        self._speeds: dict[str, tuple[int, float]] = {}  # items and seconds by node
        # When the nodes were looked at, and when last there was a worker, and a head.
        self._looked, self._manned, self._answered = -math.inf, time.monotonic(), time.monotonic()

    def work(self, items: Iterable[Any]) -> Iterator[Any]:
        """The results for ``items``, and a :class:`_Blamed` for each that kills."""
        yield from self._run(iter(items), alone=False)
        while self._suspects:
            # One at a time, as nothing else is being done: others may have taken the memory before.
            yield from self._run(iter([self._suspects.popleft()]), alone=True)

    def dismiss(self) -> None:
        """End all actors."""
        while self._hands:
            self._hands.pop().dismiss()

    def slowest(self) -> str:
        """The slowest node's name and speed a worker, once two nodes have done something."""
        speeds = {node: items / max(seconds, 1e-6) for node, (items, seconds) in self._speeds.items()}
        speeds = {node: speed for node, speed in speeds.items() if node in self._alive}
        if len(speeds) < 2:
            return ""
        node = min(speeds, key=speeds.__getitem__)
        return f"slowest of {len(speeds)} nodes {self._names[node]}, {speeds[node]:.1f}/s a core"

    def _run(self, source: Iterator[Any], alone: bool) -> Iterator[Any]:
        while True:
            self._hire(source)
            self._feed(source, alone)
            if not self._queue and not self._careful and not any(any(h.calls.values()) for h in self._hands):
                return
            calls = {call: hand for hand in self._hands for call in hand.calls}
            if not calls:
                time.sleep(LOOK_SECONDS)
                continue
            ray.wait(list(calls), timeout=LOOK_SECONDS)
            done, _ = ray.wait(list(calls), num_returns=len(calls), timeout=0)
            done_calls = set(done)
            for call, hand in calls.items():  # an actor's own in their order
                if call in done_calls and hand in self._hands:
                    yield from self._take(hand, call, alone)

    def _hire(self, source: Iterator[Any]) -> None:
        """Have an actor for each core there is, and for no more than there is work."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        if not cluster.head_answers():
            if now - self._answered > HEAD_SECONDS:
                raise FacetpuError(
                    "the cluster's head is gone; start it and run the same command again to go on"
                )
            return
        self._answered = now
        names = cluster.node_names()
        self._alive = set(names)
        self._names.update(names)
        wanted = min(cluster.cores(), self._workers)
        self._fill(source, wanted)
        beginning = sum(not hand.node for hand in self._hands)
        left = len(self._queue) + len(self._careful) - beginning
        self._hands += [_Hand(self._work) for _ in range(min(wanted - len(self._hands), left))]
        self._patience = max(self._patience, 2 * len(self._hands))
        for hand in [hand for hand in self._hands if not hand.node][: max(0, len(self._hands) - wanted)]:
            self._hands.remove(hand)  # its core went with its node
            hand.dismiss()
        if any(hand.node for hand in self._hands):
            self._manned = now
        elif now - self._manned > PATIENT_SECONDS:
            self._manned = now
            log.warning(
                "waiting for workers: the cluster has %d cores on %d nodes, and none is free",
                wanted,
                len(names),
            )

    def _fill(self, source: Iterator[Any], count: int) -> None:
        """See to it that ``count`` items are next in turn, if there are so many."""
        self._queue.extend(islice(source, max(0, count - len(self._queue))))

    def _feed(self, source: Iterator[Any], alone: bool) -> None:
        """Give the workers batches, one each before any gets a second."""
        ready = [hand for hand in self._hands if hand.node]
        # Twice as many as fit, so that fewer mean that the end is near, when batches become smaller; and one
        # while nobody is ready, since no item in turn and none given away is how the end is known.
        self._fill(source, max(1, 2 * AHEAD * sum(hand.size for hand in ready)))
        for depth in range(1, 2 if alone else AHEAD + 1):
            for hand in ready:
                if len(hand.calls) < depth and (self._queue or self._careful):
                    hand.give(self._batch(hand.size, AHEAD * len(ready)), alone)

    def _batch(self, size: int, shares: int) -> list[Any]:
        if self._careful:
            return [self._careful.popleft()]
        size = min(size, math.ceil(len(self._queue) / shares))
        return [self._queue.popleft() for _ in range(size)]

    def _take(self, hand: _Hand, call: Any, alone: bool) -> Iterator[Any]:
        """The results of an answer."""
        try:
            answer: Greeting | Answer = ray.get(call)
        except RayError as error:  # It, its node or what it answered is lost.
            yield from self._bury(hand, error, alone)
            return
        batch = hand.calls.pop(call)
        if isinstance(answer, Greeting):
            self._welcome(hand, answer)
            return
        if answer.results:
            self._deaths = 0
        for item, result in zip(batch, answer.results, strict=False):
            yield _Blamed(item, result.reason) if isinstance(result, Crash) else result
        done = len(answer.results)
        if answer.failure is None:
            hand.note(done, answer.seconds)
            items, seconds = self._speeds.get(hand.node, (0, 0.0))
            self._speeds[hand.node] = (items + done, seconds + answer.seconds)
        elif isinstance(answer.failure, MemoryError):
            self._suspects.append(batch[done])
            self._queue.extendleft(reversed(batch[done + 1 :]))
        else:
            raise self._named(hand, answer.failure)

    def _welcome(self, hand: _Hand, greeting: Greeting) -> None:
        """Let a worker begin, unless it cannot or is of another kind than this process.

        Raises:
            FacetpuError: so it is.
        """
        hand.node = greeting.node
        if hand.node not in self._names:
            self._names.update(cluster.node_names())
        cluster.check_versions(self._name(hand), greeting.versions)
        if greeting.failure is not None:
            raise self._named(hand, greeting.failure)

    def _bury(self, hand: _Hand, error: RayError, alone: bool) -> Iterator[_Blamed]:
        """Take back what a lost actor had to do; what it was at is suspect if its node lives."""
        if getattr(error, "actor_init_failed", False):
            raise FacetpuError(
                f"a node cannot load the work ({_last_line(error)}); "
                "install facetpu with all that this machine has on every node"
            )
        log.debug("lost a worker on node %s: %s", self._name(hand), error)
        self._hands.remove(hand)
        hand.dismiss()
        at, *others = [batch for batch in hand.calls.values() if batch] or [[]]
        for batch in reversed(others):
            self._queue.extendleft(reversed(batch))
        self._looked = -math.inf
        if cluster.head_answers():
            self._alive = set(cluster.node_names())
        if hand.node and hand.node not in self._alive:
            log.warning("node %s is lost; what it was at is done by others", self._name(hand))
            self._queue.extendleft(reversed(at))
            return
        self._deaths += 1
        if self._deaths >= self._patience:
            raise FacetpuError(
                f"{self._deaths} workers died one after another, the last so: {_last_line(error)}"
            )
        if alone and at:
            yield _Blamed(at[0], "died with the worker that had started it")
        elif len(at) == 1:
            self._suspects += at
        else:
            self._careful += at

    def _name(self, hand: _Hand) -> str:
        return self._names.get(hand.node, hand.node or "unknown")

    def _named(self, hand: _Hand, failure: Exception) -> Exception:
        """``failure`` with the node's name, where it is something that the user can mend."""
        if isinstance(failure, OSError):
            failure = os_error(failure)
        if isinstance(failure, FacetpuError):
            return FacetpuError(f"node {self._name(hand)}: {failure}")
        return failure


def _last_line(error: Exception) -> str:
    """What Ray's page of text on an error ends with, which is the error itself."""
    return [line.strip() for line in str(error).splitlines() if line.strip()][-1]
