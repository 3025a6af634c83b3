"""Work on many items in processes, one a core: the one place that decides how it is spread."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for
from typing import Any, Callable, Iterator, Sequence, TypeVar

from .errors import FacetpuError

Item = TypeVar("Item")
Result = TypeVar("Result")

CHUNK = 8  # items a worker takes at once


def each(
    task: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int | None,
    start: Callable[..., None],
    arguments: tuple[Any, ...],
) -> Iterator[Result]:
    """The result of ``task`` for each of ``items``, in whatever order they are done.

    The processes are spawned, on every system, so what they are given must be importable and picklable,
    and a script that calls this does so under ``if __name__ == "__main__"``. They compute with one
    thread each, leave Ctrl-C to the caller, and end with it even when it is killed.

    Args:
        task: what to do with one item.
        items: the items.
        workers: how many processes; one a core unless given.
        start: called once in each process.
        arguments: what ``start`` is called with.

    Raises:
        FacetpuError: a process died. What ``task`` raises is raised here.
    """
    chunks = [items[index : index + CHUNK] for index in range(0, len(items), CHUNK)]
    if not chunks:
        return
    workers = min(workers or cores(), len(chunks))
    with _one_thread_each(), _pool(workers, start, arguments) as pool:
        pending: set[Future[list[Result]]] = set()
        try:
            for chunk in chunks:
                pending.add(pool.submit(_run, task, chunk))
                if len(pending) >= 2 * workers:
                    yield from _first_done(pending)
            while pending:
                yield from _first_done(pending)
        except BrokenProcessPool:
            raise FacetpuError(
                "a worker died, most likely for want of memory; "
                "run the same command again with fewer --workers to go on from there"
            ) from None


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _first_done(pending: set[Future[list[Result]]]) -> Iterator[Result]:
    """Wait for a chunk, take what is done out of ``pending``, and yield its results."""
    done = wait(pending, return_when=FIRST_COMPLETED).done
    pending -= done
    for future in done:
        yield from future.result()


@contextlib.contextmanager
def _pool(
    workers: int, start: Callable[..., None], arguments: tuple[Any, ...]
) -> Iterator[ProcessPoolExecutor]:
    """The processes; they drop what is still waiting when the block ends early."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _start, (start, arguments))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


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


def _start(start: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    start(*arguments)


def _end_with_parent() -> None:
    """A killed parent cannot tell its processes, and they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)


def _run(task: Callable[[Item], Result], chunk: Sequence[Item]) -> list[Result]:
    return [task(item) for item in chunk]
