"""One device, several on this host, or several hosts: how a step and its batch are spread over them."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

from .config import TrainConfig
from .errors import FacetpuError
from .nets.tensorflow import tf
from .records import Part


class Devices:
    """What a training runs on.

    Attributes:
        several: whether there is more than one device.
        chief: whether this process writes what the training leaves on disk.
    """

    def __init__(self, strategy: Any = None, chief: bool = True) -> None:
        self._strategy = strategy
        self.several = strategy is not None
        self.chief = chief

    def scope(self) -> Any:
        """Where variables must be made."""
        return self._strategy.scope() if self.several else contextlib.nullcontext()

    def spread(self, make: Callable[[Part], Any], batch_size: int) -> Any:
        """The batches that ``make`` gives for a part, spread over the devices; ``batch_size`` of all."""
        if not self.several:
            return make(Part())
        each = batch_size // self._strategy.num_replicas_in_sync

        def share(context: Any) -> Any:
            part = Part(context.input_pipeline_id, context.num_input_pipelines)
            return make(part).rebatch(each, drop_remainder=True)

        return self._strategy.distribute_datasets_from_function(share)

    def run(self, step: Callable[..., Any], inputs: tuple[Any, ...]) -> Any:
        """The mean of what ``step`` gives on every device."""
        if not self.several:
            return step(*inputs)
        losses = self._strategy.run(step, inputs)
        return self._strategy.reduce(tf.distribute.ReduceOp.MEAN, losses, axis=None)

    def scale(self, gradients: Sequence[Any], clip_norm: float | None) -> list[Any]:
        """A device's gradients ready to be added to the others': clipped as their mean would be.

        Args:
            gradients: of the loss of the device's own photos.
            clip_norm: the longest that all gradients together may be, None for any length.
        """
        if not self.several:
            return list(gradients if clip_norm is None else tf.clip_by_global_norm(gradients, clip_norm)[0])
        replicas = tf.distribute.get_replica_context()
        if clip_norm is not None:
            gradients = replicas.all_reduce(tf.distribute.ReduceOp.MEAN, list(gradients))
            gradients = tf.clip_by_global_norm(gradients, clip_norm)[0]
        return [gradient / replicas.num_replicas_in_sync for gradient in gradients]


def find(config: TrainConfig) -> Devices:
    """The devices that the config asks for.

    Raises:
        FacetpuError: there is no such cluster, or the batch cannot be shared out evenly.
    """
    if config.distribute is None:
        return Devices()
    chief = True
    if config.distribute == "multi_worker":
        chief = _task().get("index", 0) == 0
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    else:
        strategy = tf.distribute.MirroredStrategy(
            [device.name for device in tf.config.list_logical_devices("GPU")]
            or [device.name for device in tf.config.list_logical_devices("CPU")]
        )
    count = strategy.num_replicas_in_sync
    if config.batch_size % count:
        raise FacetpuError(
            f"batch_size: {config.batch_size} is not to be shared by {count} devices; round it"
        )
    return Devices(strategy, chief)


def first(variable: Any) -> Any:
    """The first device's copy of ``variable``; the copies are alike."""
    return variable.values[0] if isinstance(variable, tf.distribute.DistributedValues) else variable


def is_chief(config: TrainConfig) -> bool:
    """Whether this process is the one that writes, or the only one."""
    return config.distribute != "multi_worker" or _task().get("index", 0) == 0


def _task() -> dict[str, Any]:
    """This process's place in the cluster, from TF_CONFIG."""
    try:
        cluster = json.loads(os.environ["TF_CONFIG"])
        return dict(cluster["task"])
    except (KeyError, ValueError, TypeError):
        raise FacetpuError(
            "distribute: multi_worker needs TF_CONFIG, the cluster and this worker's task as JSON; "
            "set it on every host"
        ) from None
