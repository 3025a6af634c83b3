"""Work on many items in processes, one a core: the one place that decides how it is spread.

Every process takes its next item when it has done one, so none waits for a slow one. It is known which
item a process was at when it died: that item is tried again, alone, once all others are done, for it may
have been another that took the memory, or somebody's ``kill``. Dying twice, it is to blame.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections import deque
from multiprocessing.connection import wait as wait_for
from typing import Any, Callable, Iterable, Iterator, TypeVar

from .errors import FacetpuError

log = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")
Died = Callable[[Any, int], None]  # what to do about an item and the exit code of the process it killed

AHEAD = 2  # items given to a process: the one it is at, and the next, so that it need not wait
PATIENCE = 50  # processes that may die without one result between them
GRACE = 10.0  # seconds that a process has to end when there is no more to do

_OUT_OF_MEMORY = 77  # exit code of a process whose task raised MemoryError
_READY, _DONE, _FAILED = range(3)

_is_worker = False


def each(
    task: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int | None,
    start: Callable[..., None],
    arguments: tuple[Any, ...],
    crashed: Callable[[Item, str], Result] | None = None,
) -> Iterator[Result]:
    """The result of ``task`` for each of ``items``, in whatever order they are done.

    The processes are spawned, on every system, so what they are given must be importable and picklable,
    and a script that calls this does so under ``if __name__ == "__main__"``. They compute with one
    thread each, leave Ctrl-C to the caller, and end with it even when it is killed.

    Args:
        task: what to do with one item.
        items: the items; few are taken ahead of their turn, so there may be any number.
        workers: how many processes; one a core unless given.
        start: called once in each process.
        arguments: what ``start`` is called with.
        crashed: gives the result for an item that kills its process, and for the reason why; without
            it such an item ends the work.

    Raises:
        FacetpuError: processes keep dying, or one died of an item and there is no ``crashed``. What
            ``task`` raises is raised here.
    """
    suspects: list[Item] = []
    reasons: list[str] = []
    team = _Team(task, start, arguments)
    with _one_thread_each():
        yield from team.work(items, workers or cores(), AHEAD, lambda item, _: suspects.append(item))
        for suspect in suspects:
            yield from team.work([suspect], 1, 1, lambda _, code: reasons.append(_reason(code)))
            if reasons:
                team.deaths = 0
                if crashed is None:
                    raise FacetpuError(
                        f"{suspect!r} killed the process at work on it, twice: it {reasons.pop()}"
                    )
                yield crashed(suspect, reasons.pop())


def cores() -> int:
    """The cores that this process may use; one in a worker."""
    if _is_worker:
        return 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def become_worker() -> None:
    """Have this process be one of those that there are one a core of."""
    global _is_worker
    _is_worker = True


class _Team:
    """Starts processes for one kind of work, and gives them items."""

    def __init__(
        self, task: Callable[..., Any], start: Callable[..., None], arguments: tuple[Any, ...]
    ) -> None:
        self._work = (task, start, arguments)
        self.deaths = 0  # since the last result

    def work(self, items: Iterable[Any], workers: int, ahead: int, died: Died) -> Iterator[Any]:
        """Give ``items`` to ``workers`` processes, ``ahead`` at once to each, and yield their results."""
        source, back = iter(items), deque[Any]()
        team: list[_Worker] = []
        try:
            while True:
                self._feed(team, workers, ahead, source, back)
                busy = [worker for worker in team if worker.items]
                if not busy:
                    return
                ready = wait_for([worker.pipe for worker in busy])
                for worker in (worker for worker in busy if worker.pipe in ready):
                    answer = worker.answer()
                    if answer is None:
                        team.remove(worker)
                        self._bury(worker, back, died)
                    elif answer[0] == _DONE:
                        self.deaths = 0
                        yield answer[1]
        finally:
            for worker in team:
                worker.pipe.close()  # the word to end
            for worker in team:
                worker.end()

    def _feed(
        self, team: list[_Worker], workers: int, ahead: int, source: Iterator[Any], back: deque[Any]
    ) -> None:
        """Fill the processes up, one item each before any gets a second; start those that are wanting."""
        for depth in range(1, ahead + 1):
            for place in range(workers):
                if place < len(team) and len(team[place].items) >= depth:
                    continue
                item = back.popleft() if back else next(source, _NOTHING)
                if item is _NOTHING:
                    return
                if place >= len(team):
                    team.append(_Worker(*self._work))
                team[place].give(item)

    def _bury(self, worker: _Worker, back: deque[Any], died: Died) -> None:
        """Take back what a dead process had still to do; the item that it was at is a matter for ``died``."""
        worker.pipe.close()
        code = worker.end()
        self.deaths += 1
        if self.deaths >= PATIENCE:
            raise FacetpuError(
                f"a process {_reason(code)}, and {PATIENCE - 1} before it, most likely for want of memory; "
                "run the same command again with fewer --workers to go on from there"
            )
        if worker.started:
            died(worker.items.popleft(), code)
        back.extendleft(reversed(worker.items))


class _Worker:
    """A process, the pipe to it, and the items it has, in its order."""

    def __init__(
        self, task: Callable[..., Any], start: Callable[..., None], arguments: tuple[Any, ...]
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.items: deque[Any] = deque()
        self.started = False
        self._process = context.Process(target=_serve, args=(theirs, task, start, arguments), daemon=True)
        self._process.start()
        theirs.close()

    def give(self, item: Any) -> None:
        self.items.append(item)
        with contextlib.suppress(OSError):  # It is dead, which the next look at its pipe will show.
            self.pipe.send(item)

    def answer(self) -> tuple[int, Any] | None:
        """What it sent: ``_DONE`` and a result, or ``_READY``; None if it is dead.

        What its task or its start raised is raised here.
        """
        try:
            kind, value = self.pipe.recv()
        except (EOFError, OSError):
            return None
        if kind == _FAILED:
            error, text = value
            log.debug("in a worker: %s", text)
            raise error
        if kind == _READY:
            self.started = True
        else:
            self.items.popleft()
        return kind, value

    def end(self) -> int:
        """Wait for its end, then see to it; its exit code, negative for a signal."""
        self._process.join(GRACE)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        return self._process.exitcode or 0


_NOTHING = object()


def _reason(code: int) -> str:
    """What became of a process with this exit code: after "the process", and in the past tense."""
    if code == _OUT_OF_MEMORY:
        return "ran out of memory"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"died of {name}" + (", most likely for want of memory" if name == "SIGKILL" else "")


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Tell the processes started meanwhile, before they import NumPy, to compute with one thread."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(
    pipe: Any, task: Callable[..., Any], start: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    """A process's life: answer item after item until the pipe is closed."""
    become_worker()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # Nobody waits for the answer.
        try:
            start(*arguments)
            pipe.send((_READY, None))
            while True:
                try:
                    item = pipe.recv()
                except (EOFError, OSError):  # There is no more to do.
                    return
                pipe.send((_DONE, task(item)))
        except MemoryError:
            os._exit(_OUT_OF_MEMORY)
        except Exception as error:
            pipe.send((_FAILED, (portable(error), traceback.format_exc())))


def portable(error: Exception) -> Exception:
    """``error``, or what tells of it, if it cannot be carried to another process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # Whatever its class does when it is built anew.
        if isinstance(error, FacetpuError):
            return FacetpuError(str(error))
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _end_with_parent() -> None:
    """A killed parent cannot tell its processes, and they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)
