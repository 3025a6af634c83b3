"""The workers of a training over several machines, as the variable TF_CONFIG tells each of its place."""

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
    """Which of several workers this is, each a process, mostly on a machine of its own; 0 is the chief."""

    worker: int = 0
    workers: int = 1

    def places(self, size: int, more: int = 0) -> np.ndarray:
        """Which places it has of a batch of ``size``, a multiple of ``workers``, and ``more`` before them."""
        each = size // self.workers
        return np.arange(self.worker * each - more, (self.worker + 1) * each) % size


WHOLE = Share()


def read_share(devices: Devices) -> Share:
    """This worker's share by TF_CONFIG, where ``devices`` asks for several workers.

    Raises:
        FacetpuError: TF_CONFIG is not set, or where it has no meaning, is no JSON, lacks something, or has
            another number of workers.
    """
    text = os.environ.get(VARIABLE)
    if devices.strategy == "mirrored" and text:
        raise FacetpuError(f"{VARIABLE} is set and devices is mirrored; unset it, or choose multi_worker")
    if devices.strategy != "multi_worker":
        return WHOLE
    if not text:
        raise FacetpuError(f"{VARIABLE} is not set; give each worker its own, as {EXAMPLE}")
    try:
        settings = json.loads(text)
    except ValueError as error:
        raise FacetpuError(f"{VARIABLE} is no JSON: {error}; write it as {EXAMPLE}") from None
    share = _share(settings)
    if devices.workers not in (None, share.workers):
        raise FacetpuError(
            f"{VARIABLE} names {share.workers} workers and devices.workers is {devices.workers}; "
            "make them equal"
        )
    return share


def _share(settings: Any) -> Share:
    """The share of what TF_CONFIG holds; a ``chief`` beside the workers comes before them."""
    try:
        jobs = {job: [str(name) for name in settings["cluster"].get(job, [])] for job in ("chief", "worker")}
        job, index = settings["task"]["type"], int(settings["task"]["index"])
        own = jobs[job]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise FacetpuError(f"{VARIABLE} is incomplete; write it as {EXAMPLE}") from None
    if not 0 <= index < len(own):
        raise FacetpuError(
            f"{VARIABLE}: the task is {job} {index}, and the cluster has {len(own)} of that type; "
            "count from 0"
        )
    workers = jobs["chief"] + jobs["worker"]
    for address in workers:
        if not address.rpartition(":")[2].isdigit():
            raise FacetpuError(f"{VARIABLE}: {address!r} is no host:port; write it as {EXAMPLE}")
    return Share(index + (len(jobs["chief"]) if job == "worker" else 0), len(workers))
