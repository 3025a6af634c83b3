"""What a training runs on: one device, all those of this machine, or several machines.

Every worker, a process, holds all variables; its devices share them. Each device takes an equal share of
the step's batch, in the batch's order, and the gradients are added up over all of them, so that a step
does what one device would do with the whole batch, but for rounding. The chief, worker 0, alone reads and
writes the run's folder, and what it decides it tells the others.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..config import TrainConfig
from ..errors import FacetpuError
from ..nets.replicas import place_here, summed
from ..nets.tensorflow import tf
from .cluster import VARIABLE, Share, read_share

log = logging.getLogger(__name__)

# What the death of a worker does to the sums that the others wait for.
LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.FailedPreconditionError,
)


class WorkerLost(FacetpuError):
    """Another worker died, or ended with an error that it tells itself."""


class Crew:
    """The devices that a strategy of ``tf.distribute`` trains on, and this worker's place among them."""

    def __init__(self, strategy: Any, share: Share) -> None:
        self.strategy = strategy
        self.share = share

    @property
    def chief(self) -> bool:
        """Whether this worker is the one that writes the run."""
        return self.share.worker == 0

    @property
    def count(self) -> int:
        """Devices over all workers."""
        return int(self.strategy.num_replicas_in_sync)

    @property
    def count_here(self) -> int:
        """Devices of this worker."""
        return self.count // self.share.workers

    def run(self, compute: Callable[..., Any], *rows: Any) -> Any:
        """Call ``compute`` on every device with its part of this worker's ``rows``; in a ``tf.function``.

        Returns:
            What it gave on the first device here: it is to give the same on all.
        """
        if self.count == 1:
            return compute(*rows)

        def on_a_device() -> Any:
            return compute(*(tf.split(part, self.count_here)[place_here()] for part in rows))

        results = self.strategy.run(on_a_device)
        return tf.nest.map_structure(
            lambda value: self.strategy.experimental_local_results(value)[0], results
        )

    def tell(self, value: Any) -> Any:
        """The chief's ``value`` in every worker; all call this at the same point.

        Args:
            value: numbers, or a list of such; of another worker than the chief only their shape and type
                count.
        """
        if self.share.workers == 1:
            return value

        def told() -> Any:
            speaks = self.chief and place_here() == 0
            return [summed(part if speaks else tf.zeros_like(part)) for part in parts]

        parts = [tf.constant(part) for part in (value if isinstance(value, list) else [value])]
        with self.together():
            heard = [part.numpy() for part in tf.function(lambda: self.run(told), autograph=False)()]
        return heard if isinstance(value, list) else heard[0]

    def tell_rows(self, rows: np.ndarray | None, width: int) -> np.ndarray:
        """The chief's ``rows``, int64 ``[n, width]``, in every worker; only the chief knows how many."""
        own = np.zeros([0, width], np.int64) if rows is None else rows
        count = int(self.tell(np.array(len(own))))
        return np.asarray(self.tell(own if self.chief else np.zeros([count, width], np.int64)))

    def agree(self, variables: Sequence[Any]) -> None:
        """Give the ``variables`` of every worker the chief's values."""
        values = self.tell([variable.read_value() for variable in variables])
        if not self.chief:
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)

    @contextlib.contextmanager
    def chief_first(self) -> Iterator[None]:
        """Where the chief goes through first, and the others when it is done."""
        if not self.chief:
            self.tell(np.array(0))
        yield
        if self.chief:
            self.tell(np.array(0))

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Where workers wait for each other, say so when one is gone.

        Raises:
            WorkerLost: a worker died, or ended with an error of its own.
        """
        if self.share.workers == 1:
            yield
            return
        try:
            yield
        except LOST as error:
            raise WorkerLost(
                f"worker {self.share.worker} of {self.share.workers}: another worker is gone, or unreachable "
                f"({_reason(error)}); mend what it tells of, and start all of them again with --resume"
            ) from None


def _reason(error: Any) -> str:
    """The first line of TensorFlow's ``error``, or its kind where it has nothing to say."""
    return str(error.message).strip().split("\n")[0] or type(error).__name__


def open_crew(config: TrainConfig) -> Crew:
    """The devices that ``config`` asks for, and which its batches are shared by.

    Several workers wait here for each other. It has to come before TensorFlow computes anything.

    Raises:
        FacetpuError: the batch cannot be shared equally, or TF_CONFIG is unfit.
    """
    share = read_share(config.devices)
    _check_shared(config.batch_size, share.workers, "workers")
    crew = Crew(_strategy(config.devices.strategy), share)
    _check_shared(config.batch_size, crew.count, "devices")
    if crew.count > 1:
        log.info("training on %d devices, %d of them here", crew.count, crew.count_here)
    return crew


@functools.cache  # a second one in a process would take the first's sums for its own
def _strategy(name: str) -> Any:
    if name == "multi_worker":
        try:
            return _by_collectives(tf.distribute.MultiWorkerMirroredStrategy())
        except tf.errors.OpError as error:
            raise FacetpuError(
                f"{VARIABLE}: the workers do not find together: {_reason(error)}; check the addresses, "
                "and that nothing else has this worker's port"
            ) from None
    if name == "mirrored":
        kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
        names = [device.name for device in tf.config.list_logical_devices(kind)]
        return _by_collectives(tf.distribute.MultiWorkerMirroredStrategy._from_local_devices(names))
    return tf.distribute.get_strategy()


def _by_collectives(strategy: Any) -> Any:
    """``strategy``, told to sum by collective ops alone.

    Left to itself it builds the graphs of a machine's replicas by turns, from sum to sum, and in a deep
    network takes one replica's sums for others of the next. So does MirroredStrategy, which cannot be told.
    """
    strategy.extended._use_merge_call = lambda: False
    return strategy


def _check_shared(batch_size: int, count: int, what: str) -> None:
    if batch_size % count:
        raise FacetpuError(
            f"batch_size is {batch_size}, to be shared by {count} {what}; make it a multiple of {count}"
        )
