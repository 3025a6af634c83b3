"""The workers of a training over several machines, as the variable TF_CONFIG tells each of them."""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple

import numpy as np

from ..config import Devices
from ..errors import FacetpuError

VARIABLE = "TF_CONFIG"
EXAMPLE = '{"cluster": {"worker": ["host-a:2222", "host-b:2222"]}, "task": {"type": "worker", "index": 0}}'


class Share(NamedTuple):
    """The part of each batch that a worker has: ``index`` of ``count`` equal ones."""

    index: int = 0
    count: int = 1

    def places(self, size: int, more: int = 0) -> np.ndarray:
        """Which places it has of a batch of ``size``, a multiple of ``count``, and ``more`` before them."""
        each = size // self.count
        return np.arange(self.index * each - more, (self.index + 1) * each) % size


WHOLE = Share()


class Cluster(NamedTuple):
    """Several workers, each a process on a machine of its own, and which of them this is."""

    workers: list[str]  # host:port; the first is the chief
    index: int


def read_cluster(devices: Devices) -> Cluster | None:
    """The cluster that TF_CONFIG describes, where ``devices`` asks for one; None where it does not.

    Raises:
        FacetpuError: TF_CONFIG is not set, is no JSON, lacks something, or has another number of workers.
    """
    if devices.strategy != "multi_worker":
        return None
    text = os.environ.get(VARIABLE)
    if not text:
        raise FacetpuError(f"{VARIABLE} is not set; give each worker its own, as {EXAMPLE}")
    try:
        settings = json.loads(text)
    except ValueError as error:
        raise FacetpuError(f"{VARIABLE} is no JSON: {error}; write it as {EXAMPLE}") from None
    cluster = _cluster(settings)
    if devices.workers not in (None, len(cluster.workers)):
        raise FacetpuError(
            f"{VARIABLE} names {len(cluster.workers)} workers and devices.workers is {devices.workers}; "
            "make them equal"
        )
    return cluster


def _cluster(settings: Any) -> Cluster:
    """The cluster of what TF_CONFIG holds; a ``chief`` beside the workers comes before them."""
    try:
        jobs = {job: list(settings["cluster"].get(job, [])) for job in ("chief", "worker")}
        job, index = settings["task"]["type"], int(settings["task"]["index"])
        workers = [str(address) for address in jobs["chief"] + jobs["worker"]]
        known = 0 <= index < len(jobs[job])
    except (AttributeError, KeyError, TypeError, ValueError):
        raise FacetpuError(f"{VARIABLE} is incomplete; write it as {EXAMPLE}") from None
    if not known:
        raise FacetpuError(
            f"{VARIABLE}: the task is {job} {index}, and the cluster has {len(jobs[job])} of that type; "
            "count from 0"
        )
    for address in workers:
        if not address.rpartition(":")[2].isdigit():
            raise FacetpuError(f"{VARIABLE}: {address!r} is no host:port; write it as {EXAMPLE}")
    return Cluster(workers, index + (len(jobs["chief"]) if job == "worker" else 0))
