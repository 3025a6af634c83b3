"""Training on several devices and several workers: that it does what one device does."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crops import write_crops

from facetpu.config import Devices, TrainConfig, read_config
from facetpu.errors import FacetpuError
from facetpu.stages.pack import pack
from facetpu.training.cluster import Share, read_share
from facetpu.training.history import read_history

SCRIPT = Path(__file__).with_name("train_on_devices.py")
TINY = {
    "network": {"name": "tiny", "image_size": 32, "embedding_dim": 8, "batch_norm_decay": 0.8},
    "batch_size": 8,
    "steps": 16,
    "checkpoint_every": 5,
    "validate_every": 8,
}
# Whatever a step adds up, averages or compares over its batch is in one of these.
TRAININGS: dict[str, dict[str, Any]] = {
    "softmax": {"optimizer": {"average": 0.9}},
    "cosface": {
        "loss": {"name": "cosface", "center_weight": 0.1, "margin_ramp": [0, 0.5]},
        "optimizer": {"name": "adam", "learning_rate": 0.003, "clip_norm": 1.0},
        "sampling": {"by": "people"},
    },
    "arcface": {"loss": {"name": "arcface", "scale": 16}, "optimizer": {"clip_norm": 0.5}},
    "triplet": {
        "loss": {"name": "triplet", "center_weight": 0.1},
        "sampling": {"by": "identities"},
        "optimizer": {"learning_rate": 0.01},
    },
    "mined": {"loss": {"name": "triplet_mined", "mine_every": 6}, "batch_size": 12},
    "distilled": {"loss": {"name": "cosface", "weight": 0.5, "scale": 8}, "teacher": {"model": "softmax"}},
}


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("devices")
    write_crops(folder / "crops", people=4, photos=10)
    write_crops(folder / "nobody", people=2, photos=6)
    pack(folder / "crops", folder / "records", shards=2, validation=0.2)
    pack(folder / "crops", folder / "unlabelled", shards=2, validation=0.2, unlabelled=folder / "nobody")
    return folder


def training(name: str, records: Path, devices: Any = "one", **changes: Any) -> dict[str, Any]:
    """One of TRAININGS as ``train_on_devices.py`` takes it; its run is called after it and the devices."""
    config = {**TINY, **TRAININGS[name], "devices": devices, **changes}
    if "teacher" in config:
        config["teacher"] = {**config["teacher"], "model": str(records / "softmax-one")}
    kind = "unlabelled" if name == "distilled" else "records"
    strategy = devices if isinstance(devices, str) else devices["strategy"]
    return {"config": config, "records": str(records / kind), "run": str(records / f"{name}-{strategy}")}


def start(trainings: list[dict[str, Any]], cpus: int = 1, **environment: str) -> subprocess.Popen[str]:
    """A process that does ``trainings`` one after another."""
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), json.dumps(trainings), str(cpus)],
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[1]), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_workers(trainings: list[dict[str, Any]], count: int = 2) -> list[subprocess.Popen[str]]:
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    addresses = [f"localhost:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    cluster = {"worker": addresses}
    return [
        start(trainings, TF_CONFIG=json.dumps({"cluster": cluster, "task": {"type": "worker", "index": k}}))
        for k in range(count)
    ]


def assert_same_curve(one: Path, several: Path) -> None:
    """Loss and validation of each step agree but for the rounding of sums in another order."""
    rows, others = read_history(one), read_history(several)
    assert [row["step"] for row in rows] == [row["step"] for row in others]
    assert len(rows) >= TINY["steps"]
    for name in ("loss", "validation_auc", "validation_accuracy"):
        curves = [[row[name] for row in curve if name in row] for curve in (rows, others)]
        np.testing.assert_allclose(curves[0], curves[1], rtol=1e-4, err_msg=name)
