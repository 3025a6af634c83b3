"""Config + records -> run on a Ray cluster: Ray Train starts the workers, and tells each of its place.

What a worker then does is :func:`facetpu.stages.train.train`, as where TF_CONFIG was set by hand. The
records and the place of the run have to lie where every node sees them, under the same path.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError
from ray.train import RunConfig, ScalingConfig, TrainingFailedError, get_context
from ray.train.tensorflow import TensorflowTrainer
from ray.util.queue import Queue

from .config import TrainConfig, read_config
from .engines.cluster import connect, cores, head_answers, nodes_with_cores
from .errors import FacetpuError
from .stages.train import TrainResult, train
from .training.devices import WorkerLost

log = logging.getLogger(__name__)


def train_on_ray(
    config: Path | TrainConfig,
    records: Path,
    run: Path,
    resume: bool = False,
    overwrite: bool = False,
    address: str | None = None,
) -> TrainResult:
    """Train as :func:`facetpu.stages.train.train` does, with a worker on each of several nodes.

    Args:
        config: a YAML file, or the settings themselves; ``devices.workers`` is how many workers, one on each
            node that has cores unless given.
        records: a folder of ``facetpu pack`` that every node sees.
        run: the folder to write, in a place that every node sees.
        resume: go on from the newest checkpoint in ``run``, where there is one.
        overwrite: replace ``run``.
        address: of the cluster, see :func:`facetpu.engines.cluster.connect`.

    Raises:
        FacetpuError: there is no such cluster, it is too small, a worker died, or what ``train`` raises.
    """
    settings = config if isinstance(config, TrainConfig) else read_config(config)
    if settings.devices.strategy != "multi_worker":
        raise FacetpuError(
            f"--engine ray trains with several workers, and devices is {settings.devices.strategy}; "
            "set it to multi_worker in the config"
        )
    connect(address)
    workers = settings.devices.workers or nodes_with_cores() or 1
    if workers > cores():
        raise FacetpuError(
            f"devices.workers is {workers} and the Ray cluster has {cores()} cores; lower it, or add nodes"
        )
    run = Path(run).resolve()
    storage = run.with_name(
        f".{run.name}.ray"
    )  # where Ray makes sure that all nodes see the place of the run
    with _heard() as (line, told):
        trainer = TensorflowTrainer(
            _work,
            train_loop_config={
                "config": _anywhere(settings).model_dump(),
                "folders": (Path(records).resolve(), run),
                "options": (resume, overwrite),
                "line": line,
            },
            scaling_config=ScalingConfig(
                num_workers=workers,
                use_gpu=ray.cluster_resources().get("GPU", 0) >= workers,
                placement_strategy="SPREAD",
            ),
            run_config=RunConfig(name="facetpu", storage_path=str(storage)),
        )
        try:
            trainer.fit()
        except TrainingFailedError as error:
            raise _in_one_line(error) from None
        finally:
            shutil.rmtree(storage, ignore_errors=True)
    return TrainResult(run, *told[0])


def _work(asked: dict[str, Any]) -> None:
    """What each worker does, in a process of its own; the chief's words go to whoever started it."""
    chief = get_context().get_world_rank() == 0
    logger = logging.getLogger("facetpu")
    logger.setLevel(logging.INFO)
    handler = _Line(asked["line"])
    if chief:
        logger.addHandler(handler)
    try:
        result = train(TrainConfig.model_validate(asked["config"]), *asked["folders"], *asked["options"])
    finally:
        logger.removeHandler(handler)
    if chief:
        asked["line"].put(tuple(result)[1:])


class _Said(NamedTuple):
    """A worker's message."""

    level: int
    text: str


class _Line(logging.Handler):
    """Sends every message down a queue."""

    def __init__(self, line: Queue) -> None:
        super().__init__()
        self._line = line

    def emit(self, record: logging.LogRecord) -> None:
        """Send ``record``'s level and text."""
        self._line.put(_Said(record.levelno, record.getMessage()))


@contextlib.contextmanager
def _heard() -> Iterator[tuple[Queue, list[tuple[Any, ...]]]]:
    """A queue whose messages are logged here as they come, and what else comes of it, by the block's end."""
    line, told = Queue(actor_options={"num_cpus": 0}), list[tuple[Any, ...]]()

    def listen() -> None:
        with contextlib.suppress(RayError):  # the cluster is gone, which the block tells of
            while (word := line.get()) is not None:
                if isinstance(word, _Said):
                    log.log(word.level, "%s", word.text)
                else:
                    told.append(word)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield line, told
    finally:
        if head_answers():  # Without it this would wait for ever.
            with contextlib.suppress(RayError):
                line.put(None)
                listener.join()
            line.shutdown()


def _anywhere(settings: TrainConfig) -> TrainConfig:
    """``settings`` whose paths mean the same in whatever folder a worker runs."""
    changes: dict[str, Any] = {}
    if settings.warm_start is not None:
        changes["warm_start"] = str(Path(settings.warm_start).resolve())
    if settings.teacher is not None:
        model = str(Path(settings.teacher.model).resolve())
        changes["teacher"] = settings.teacher.model_copy(update={"model": model})
    return settings.model_copy(update=changes)


def _in_one_line(error: TrainingFailedError) -> FacetpuError:
    """What ended a training: the first worker's error that does not merely tell that another was gone."""
    failures = getattr(error, "worker_failures", {})
    causes = [getattr(failures[rank], "_base_exc", failures[rank]) for rank in sorted(failures)]
    own = [cause for cause in causes if isinstance(cause, FacetpuError) and not isinstance(cause, WorkerLost)]
    if own:
        return own[0]
    for rank, cause in zip(sorted(failures), causes, strict=True):
        if not isinstance(cause, WorkerLost):
            reason = str(cause).strip().split("\n")[0]
            return FacetpuError(
                f"worker {rank} died ({type(cause).__name__}: {reason}); "
                "run the same command with --resume to go on from the last checkpoint"
            )
    return FacetpuError(" ".join(str(causes[0] if causes else error).split()))
