"""The Ray engine on a real cluster of two nodes, both on this machine."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'facetpu[ray]'")

from ray.cluster_utils import Cluster  # noqa: E402
from test_align import save, tree  # noqa: E402
from test_workers import (  # noqa: E402
    add,
    die_at_thirty,
    die_once,
    fail_at_thirty,
    name_it,
    start,
    threads,
    too_large,
)

from facetpu.engines import choose_engine, cluster  # noqa: E402
from facetpu.engines.ray import RayEngine  # noqa: E402
from facetpu.errors import FacetpuError  # noqa: E402
from facetpu.portraits import draw_people, render  # noqa: E402
from facetpu.stages.align import align  # noqa: E402
from facetpu.stages.pack import pack  # noqa: E402

pytestmark = pytest.mark.slow

NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 << 20}
ROOT = Path(__file__).parents[1]
# The nodes must find this very facetpu, and the tasks of these tests.
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    """A cluster of two nodes of a core each, which this process is connected to."""
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def engine(nodes: Cluster) -> RayEngine:
    while len(nodes.worker_nodes) < 1:  # a test has taken one away
        nodes.add_node(**NODE)
        nodes.wait_for_nodes()
    return RayEngine.connect(nodes.address)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 photos of six people, of whom one has no face now and then."""
    folder = tmp_path_factory.mktemp("ray") / "photos"
    for name, person in draw_people(6, seed=5).items():
        drawn = [render(person, np.random.default_rng(number), 128).image for number in range(10)]
        for number in range(50):
            # Ten portraits, each in five lights: rendering takes longer than finding the face.
            light = np.clip(drawn[number % 10] * (0.8 + 0.1 * (number // 10)), 0, 255).astype(np.uint8)
            save(folder / name / f"{number:02d}.jpg", light)
    (folder / name / "00.jpg").write_bytes(b"no photo")
    return folder


def sleep(item: float) -> str:
    time.sleep(item)
    return ray.get_runtime_context().get_node_id()


def kill_node(nodes: Cluster, after: float) -> threading.Thread:
    """Take the second node away in so many seconds."""
    (node,) = nodes.worker_nodes
    timer = threading.Timer(after, nodes.remove_node, (node,), {"allow_graceful": False})
    timer.start()
    return timer


def test_every_item_is_done_once_after_start_on_both_nodes(engine: RayEngine) -> None:
    assert sorted(engine.each(add, range(500), start, (100,))) == list(range(100, 600))
    assert len(set(engine.each(sleep, [0.05] * 100, start, (0,)))) == 2
    assert "slowest of 2 nodes" in engine.status()
    assert list(engine.each(add, [], start, (0,))) == []


def test_no_more_workers_than_asked_for(nodes: Cluster, engine: RayEngine) -> None:
    assert len(set(RayEngine(workers=1).each(sleep, [0.05] * 40, start, (0,)))) == 1


def test_workers_compute_with_one_thread(engine: RayEngine) -> None:
    assert set(engine.each(omp, range(8), start, (0,))) == {"1"}


def omp(_: int) -> str:
    return os.environ["OMP_NUM_THREADS"]


def test_an_item_that_kills_its_process_is_named_as_the_local_engine_names_it(engine: RayEngine) -> None:
    results = list(engine.each(die_at_thirty, range(100), start, (0,), name_it))
    assert results[-1] == "30 died of SIGKILL, most likely for want of memory"
    assert sorted(results[:-1]) == [item for item in range(100) if item != 30]


def test_an_item_whose_process_somebody_killed_is_done_after_all(engine: RayEngine, tmp_path: Path) -> None:
    items = [(str(tmp_path / "killed"), number) for number in range(20)]
    assert sorted(engine.each(die_once, items, start, (0,), name_it)) == list(range(20))


def test_an_item_too_large_for_memory_is_named(engine: RayEngine) -> None:
    assert list(engine.each(too_large, [5], start, (0,), name_it)) == ["5 ran out of memory"]


def test_what_a_task_raises_is_raised_here_with_the_nodes_name(engine: RayEngine) -> None:
    with pytest.raises(FacetpuError, match=r"^node [\d.]+/\w{6}: thirty is not to be had$"):
        list(engine.each(fail_at_thirty, range(100), start, (0,)))


def test_a_lost_node_costs_nothing_but_time(nodes: Cluster, engine: RayEngine) -> None:
    killer = kill_node(nodes, 6)
    results = list(engine.each(sleep, [0.1] * 150, start, (0,)))
    killer.join()
    assert len(results) == 150
    assert len(set(results)) == 2


def test_a_node_that_joins_is_given_work(nodes: Cluster, engine: RayEngine) -> None:
    killer = kill_node(nodes, 0)
    killer.join()
    timer = threading.Timer(2, nodes.add_node, (), NODE)
    timer.start()
    assert len(set(engine.each(sleep, [0.1] * 250, start, (0,)))) == 2
    timer.join()


def test_aligning_and_packing_while_a_node_is_lost_gives_the_local_engines_bytes(
    nodes: Cluster, engine: RayEngine, photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="facetpu")
    local, ours = photos.with_name("local"), photos.with_name("ray")
    align(photos, local, workers=2)
    killer = _kill_node_half_way(nodes, ours)
    result = align(photos, ours, engine=engine)
    killer.join()
    assert len(nodes.worker_nodes) == 0
    assert (result.photos, result.unreadable) == (300, 1)
    assert result.aligned > 250
    assert tree(ours) == tree(local)
    nodes.add_node(**NODE)
    nodes.wait_for_nodes()
    packed = photos.with_name("packed")
    pack(local, packed, shards=12)
    again = photos.with_name("packed by ray")
    pack(ours, again, shards=12, engine=engine)
    assert tree(again) == tree(packed)


def _kill_node_half_way(nodes: Cluster, out: Path) -> threading.Thread:
    """Take the second node away when 150 crops of ``out`` are there."""
    (node,) = nodes.worker_nodes

    def wait_and_kill() -> None:
        partial = out.with_name(f".{out.name}.partial")
        while len(list(partial.glob("*/*.png"))) < 150:
            time.sleep(0.02)
        nodes.remove_node(node, allow_graceful=False)

    thread = threading.Thread(target=wait_and_kill)
    thread.start()
    return thread
