"""How long each step of recognising takes, picture by picture."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from typing import Iterable, Iterator, NamedTuple, TypeVar

import numpy as np

Item = TypeVar("Item")
STEPS = ("read", "detect", "align", "base", "head")
_PICTURES = 1000  # the last ones that a profile is of: a camera never ends


class Step(NamedTuple):
    """One step's milliseconds a picture, and its share of the whole time in percent."""

    step: str
    median_ms: float
    p95_ms: float
    share: float


class Profile(NamedTuple):
    """The steps' times over ``pictures`` pictures with ``faces`` faces.

    ``read`` decodes a photo or waits for a frame, ``detect`` finds its faces, ``align`` cuts the crops,
    ``base`` gives the embeddings, ``head`` compares them with everybody known; ``latency`` is the sum of
    all but ``read``.
    """

    pictures: int
    faces: int
    steps: list[Step]

    def __str__(self) -> str:
        rows = [f"{'step':<8}{'median ms':>12}{'p95 ms':>12}{'share':>8}"]
        rows += [
            f"{step.step:<8}{step.median_ms:>12.2f}{step.p95_ms:>12.2f}{step.share:>7.1f}%"
            for step in self.steps
        ]
        return "\n".join([*rows, f"{self.pictures} pictures, {self.faces} faces"])


class Stopwatch:
    """Measures steps; a picture's steps are those between two calls of ``picture``."""

    def __init__(self) -> None:
        self._pictures: deque[dict[str, float]] = deque(maxlen=_PICTURES)
        self._faces: deque[int] = deque(maxlen=_PICTURES)
        self.picture()

    def clear(self) -> None:
        """Forget what was measured."""
        self._pictures.clear()
        self._faces.clear()
        self.picture()

    def picture(self) -> None:
        """Begin a new picture."""
        self._pictures.append({})
        self._faces.append(0)

    def each(self, items: Iterable[Item], step: str) -> Iterator[Item]:
        """A picture an item; the time to get it is that of ``step``."""
        iterator = iter(items)
        while True:
            self.picture()
            with self.time(step):
                item = next(iterator, None)
            if item is None:
                return
            yield item

    def faces(self, count: int) -> None:
        """Count ``count`` faces in this picture."""
        self._faces[-1] += count

    @contextlib.contextmanager
    def time(self, step: str) -> Iterator[None]:
        """Add the block's time to ``step`` of this picture."""
        start = time.perf_counter()
        try:
            yield
        finally:
            steps = self._pictures[-1]
            steps[step] = steps.get(step, 0.0) + time.perf_counter() - start

    def profile(self) -> Profile:
        """The times of the pictures in which faces were looked for, the last thousand of them."""
        looked_at = [steps for steps in self._pictures if "detect" in steps]
        taken = 1000 * np.array([[steps.get(step, 0.0) for step in STEPS] for steps in looked_at])
        taken = taken.reshape(-1, len(STEPS))
        whole = max(float(taken.sum()), 1e-9)
        columns = {step: taken[:, index] for index, step in enumerate(STEPS)}
        columns["latency"] = taken[:, 1:].sum(axis=1)
        return Profile(
            len(looked_at), sum(self._faces), [_step(name, times, whole) for name, times in columns.items()]
        )


def _step(name: str, times: np.ndarray, whole: float) -> Step:
    median, late = np.percentile(times, [50, 95]) if len(times) else (0.0, 0.0)
    share = 100 * float(times.sum()) / whole
    return Step(name, round(float(median), 3), round(float(late), 3), round(share, 1))
