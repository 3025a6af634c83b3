"""More than one device: the same training as on one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crops import write_crops

from facetpu.config import TrainConfig
from facetpu.errors import FacetpuError
from facetpu.stages.pack import pack


def start(records: Path, run: Path, kind: str, **environment: str) -> Any:
    """A worker with a batch of 16 over all workers, begun."""
    command = [sys.executable, str(Path(__file__).with_name("distributed_worker.py"))]
    root = str(Path(__file__).parents[1])
    return subprocess.Popen(
        [*command, str(records), str(run), "16", kind],
        env={**os.environ, "PYTHONPATH": root, "CUDA_VISIBLE_DEVICES": "", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(workers: list[Any]) -> None:
    for worker in workers:
        out, _ = worker.communicate(timeout=300)
        assert worker.returncode == 0, out


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def held(run: Path) -> dict[str, np.ndarray]:
    from facetpu.nets.tensorflow import tf

    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(run / "checkpoints")))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


@pytest.mark.slow
def test_two_devices_and_two_workers_train_as_one_with_the_doubled_batch(tmp_path: Path) -> None:
    pack(write_crops(tmp_path / "crops", people=4, photos=10), tmp_path / "records", shards=2)
    records = tmp_path / "records"
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    tasks = [json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}) for index in (0, 1)]
    finish([start(records, tmp_path / "one", "none"), start(records, tmp_path / "mirrored", "mirrored")])
    finish([start(records, tmp_path / "workers", "multi_worker", TF_CONFIG=task) for task in tasks])
    one = held(tmp_path / "one")
    for kind in ("mirrored", "workers"):
        other = held(tmp_path / kind)
        assert other.keys() == one.keys()
        assert other["average_loss"] == pytest.approx(one["average_loss"], rel=1e-4)
        for name, value in one.items():
            close = 1e-3 * max(1e-3, np.abs(value).max())
            np.testing.assert_allclose(other[name], value, atol=close, err_msg=f"{kind}: {name}")


def test_a_cluster_without_its_description_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from facetpu.devices import find

    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(FacetpuError, match="multi_worker needs TF_CONFIG"):
        find(TrainConfig(steps=1, distribute="multi_worker"))
