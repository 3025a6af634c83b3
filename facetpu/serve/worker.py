"""The one thread that looks at pictures, and what others ask it to do between two of them."""

from __future__ import annotations

import logging
import queue
import threading
from typing import Any, Callable, TypeVar

from .refusals import Busy

log = logging.getLogger(__name__)

WAITING = 16  # things asked for at once
PATIENCE = 60.0  # seconds that somebody waits for an answer
_IDLE = 0.25  # seconds between two rounds in which nothing happens

T = TypeVar("T")


class _Job:
    """Something to do, and what came of it."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work
        self.done = threading.Event()
        self.answer: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.answer = self.work()
        except BaseException as error:  # it is raised again by the thread that asked
            self.error = error
        finally:
            self.done.set()


class Worker:
    """A thread that does its rounds, and one thing that was asked for after each."""

    def __init__(self, round: Callable[[], None]) -> None:
        """Not begun yet; ``round`` is what to do whenever there is news, and a few times a second."""
        self._round = round
        self._jobs: queue.Queue[_Job] = queue.Queue(WAITING)
        self._news = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="looking", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the round that is being done; what was asked for and not begun is refused."""
        self._over.set()
        self.wake()
        if self._thread.is_alive():
            self._thread.join()

    def wake(self) -> None:
        """There is something to look at."""
        self._news.set()

    def ask(self, work: Callable[[], T]) -> T:
        """What ``work`` gives, done by the worker; as long as that has not begun, by who asks.

        Raises:
            Busy: too much is waiting already, or the worker has ended.
        """
        if self._thread.ident is None:
            return work()
        job = _Job(work)
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            raise Busy(f"{WAITING} things are waiting to be looked at; try again in a moment") from None
        self.wake()
        for _ in range(int(PATIENCE / _IDLE)):
            if job.done.wait(_IDLE):
                break
            if not self._thread.is_alive():
                raise Busy("the house is being closed")
        else:
            raise Busy("it takes too long; try again in a moment")
        if job.error is not None:
            raise job.error
        answer: T = job.answer
        return answer

    def _run(self) -> None:
        while not self._over.is_set():
            self._news.wait(_IDLE)
            self._news.clear()
            self._round()
            try:
                self._jobs.get_nowait().run()
                self.wake()  # there may be more
            except queue.Empty:
                continue
