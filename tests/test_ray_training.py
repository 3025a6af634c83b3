"""Training on a Ray cluster of two nodes, both on this machine."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'facetpu[ray]'")

from crops import write_crops  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402
from ray_cluster import add_node  # noqa: E402
from test_several_devices import assert_same_curve, finish, start_workers  # noqa: E402

from facetpu.config import TrainConfig  # noqa: E402
from facetpu.errors import FacetpuError  # noqa: E402
from facetpu.stages.pack import pack  # noqa: E402

pytestmark = pytest.mark.slow

SMALL: dict[str, Any] = {
    "network": {"depth_multiplier": 0.25, "image_size": 32, "embedding_dim": 8},
    "batch_size": 8,
    "steps": 22,
    "checkpoint_every": 5,
    "validate_every": 8,
    "optimizer": {"learning_rate": 0.001},  # at a high one rounding grows from step to step
}
WORKERS = {"strategy": "multi_worker", "workers": 2}


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ray training")
    write_crops(folder / "crops", people=4, photos=10)
    pack(folder / "crops", folder / "records", shards=2, validation=0.2)
    return folder / "records"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a cluster of two nodes of a core each."""
    cluster = Cluster()
    add_node(cluster, include_dashboard=False)
    add_node(cluster)
    yield cluster.address
    ray.shutdown()
    cluster.shutdown()


def train(records: Path, run: Path, address: str, resume: bool = False, **changes: Any) -> Any:
    from facetpu.ray_training import train_on_ray

    config = TrainConfig.model_validate({**SMALL, "devices": WORKERS, **changes})
    return train_on_ray(config, records, run, resume=resume, address=address)


def test_two_nodes_train_as_two_processes_and_a_rerun_does_nothing(
    records: Path, tmp_path: Path, address: str
) -> None:
    run = tmp_path / "ray"
    found = train(records, run, address)
    assert (found.run, found.steps) == (run, 22)
    config = {**SMALL, "devices": WORKERS}
    finish(start_workers([{"config": config, "records": str(records), "run": str(tmp_path / "here")}], 20))
    assert_same_curve(tmp_path / "here", run)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".ray")) == []
    again = train(records, run, address)
    assert again == found._replace(images_per_second=None)


def test_a_worker_that_is_killed_is_told_and_resume_goes_on(
    records: Path, tmp_path: Path, address: str
) -> None:
    import psutil

    run = tmp_path / "run"

    def kill() -> None:
        while not (run / "checkpoints" / "checkpoint").is_file():
            ended.wait(0.05)
        workers = [one for one in psutil.process_iter(["cmdline"]) if _trains(one)]
        max(workers, key=lambda one: one.pid).kill()

    ended = threading.Event()
    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with pytest.raises(FacetpuError, match=r"^worker \d died .*; run the same command with --resume"):
        train(records, run, address, steps=300)
    killer.join()
    assert train(records, run, address, resume=True, steps=300).steps == 300


def _trains(process: Any) -> bool:
    return any("RayTrainWorker" in part for part in process.info["cmdline"] or ())


def test_what_a_worker_says_last_is_heard_with_its_level(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    from facetpu import ray_training

    ray_training.connect(address)
    caplog.set_level(logging.WARNING, logger="facetpu")

    def work() -> None:
        with ray_training._heard() as (line, _):
            for level, text in ((logging.INFO, "step 100"), (logging.WARNING, "a teacher is slow")):
                ray_training._Line(line).handle(logging.LogRecord("", level, "", 0, text, None, None))
            raise FacetpuError("a worker died")

    with pytest.raises(FacetpuError):
        work()
    assert caplog.messages == ["a teacher is slow"]


def test_what_is_unfit_is_told_in_one_line(records: Path, tmp_path: Path, address: str) -> None:
    with pytest.raises(FacetpuError, match=r"--engine ray trains with several workers, and devices is one"):
        train(records, tmp_path / "run", address, devices="one")
    with pytest.raises(FacetpuError, match=r"devices.workers is 3 and the Ray cluster has 2 cores"):
        train(records, tmp_path / "run", address, devices={**WORKERS, "workers": 3})
    with pytest.raises(FacetpuError, match=r"^batch_size is 7, to be shared by 2 workers"):
        train(records, tmp_path / "run", address, batch_size=7)
