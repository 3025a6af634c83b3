"""Nodes of a real Ray cluster on this machine, and photos for them to align."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from ray.cluster_utils import Cluster
from test_align import save

from facetpu.portraits import draw_people, render

NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 << 20}
ATTEMPTS = 6
ROOT = Path(__file__).parents[1]
# The nodes must find this very facetpu, and the tasks of these tests.
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  # a busy machine starves them at Ray's own 15


def add_node(cluster: Cluster, **more: Any) -> None:
    """Start a node; Ray gives one 30 seconds, which a busy machine may not have."""
    for attempt in range(ATTEMPTS):
        known = {*cluster.worker_nodes, cluster.head_node}
        try:
            cluster.add_node(**{**NODE, **more})
        except Exception:
            for node in {*cluster.worker_nodes, cluster.head_node} - known:
                cluster.remove_node(node, allow_graceful=False)
            if attempt == ATTEMPTS - 1:
                raise
        else:
            cluster.wait_for_nodes(timeout=120)
            return


def write_photos(folder: Path) -> Path:
    """300 photos of six people, of whom one has no face now and then."""
    for name, person in draw_people(6, seed=5).items():
        drawn = [render(person, np.random.default_rng(number), 128).image for number in range(10)]
        for number in range(50):
            # Ten portraits, each in five lights: rendering takes longer than finding the face.
            light = np.clip(drawn[number % 10] * (0.8 + 0.1 * (number // 10)), 0, 255).astype(np.uint8)
            save(folder / name / f"{number:02d}.jpg", light)
    (folder / name / "00.jpg").write_bytes(b"no photo")
    return folder


def wait_for_crops(out: Path, count: int) -> None:
    """Wait until so many crops of ``out``, which is being made, are there."""
    while len(list(out.with_name(f".{out.name}.partial").glob("*/*.png"))) < count:
        time.sleep(0.05)
