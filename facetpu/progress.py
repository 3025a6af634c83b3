"""Progress of long work: a bar with rate and ETA on a terminal, plain lines in a log."""

from __future__ import annotations

import logging
import sys
import time
from typing import Callable, Iterable, Iterator, TypeVar

log = logging.getLogger(__name__)
Item = TypeVar("Item")

LINE_SECONDS = 15.0  # between two lines in a log


def progress(
    items: Iterable[Item],
    label: str,
    total: int | None = None,
    unit: str = "photo",
    done: int = 0,
    note: Callable[[], str] | None = None,
) -> Iterator[Item]:
    """Yield ``items``, showing how far they are.

    Args:
        items: what to pass through.
        label: the work, in a word.
        total: how many there are in all, those already done included; taken from ``items`` where it
            has a length.
        unit: what one of them is.
        done: how many an earlier run finished.
        note: what else to tell at the moment, if anything.
    """
    if total is None and hasattr(items, "__len__"):
        total = done + len(items)  # type: ignore[arg-type]
    if sys.stderr.isatty() and log.isEnabledFor(logging.INFO):
        try:
            from tqdm import tqdm
        except ImportError:  # the board's install has no tqdm
            pass
        else:
            with tqdm(desc=label, total=total, unit=" " + unit, initial=done, smoothing=0.1) as bar:
                for item in items:
                    yield item
                    if bar.update() and note:
                        bar.set_postfix_str(note(), refresh=False)
            return
    yield from _lines(items, label, total, unit, done, note)


def _lines(
    items: Iterable[Item],
    label: str,
    total: int | None,
    unit: str,
    done: int,
    note: Callable[[], str] | None,
) -> Iterator[Item]:
    start = last = time.monotonic()
    count = done
    for item in items:
        yield item
        count += 1
        now = time.monotonic()
        if now - last >= LINE_SECONDS:
            last = now
            rate = (count - done) / (now - start)
            left = f"/{total}, {_clock((total - count) / rate)} left" if total and rate else ""
            more = note() if note else ""
            log.info("%s: %d%s, %.1f %s/s%s", label, count, left, rate, unit, more and f"; {more}")


def _clock(seconds: float) -> str:
    minutes, second = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{second:02d}"
