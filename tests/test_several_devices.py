"""Training on several devices and several workers: that it does what one device does."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from crops import write_crops

from facetpu.cli import main
from facetpu.config import Devices, TrainConfig, read_config
from facetpu.errors import FacetpuError
from facetpu.history import read_history
from facetpu.stages.pack import pack
from facetpu.training.cluster import Share, read_share

SCRIPT = Path(__file__).with_name("train_on_devices.py")
TINY: dict[str, Any] = {
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
    "live": {"loss": {"weight": 0}, "teacher": {"live": True}, "augmentation": {"mix": 0.5}},
    "rounded": {"network": {**TINY["network"], "quantization_aware": True}},
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
    trained = str(records / "softmax-one")
    if "teacher" in config:
        config["teacher"] = {**config["teacher"], "model": trained}
    if name == "rounded":
        config["warm_start"] = trained
    kind = "unlabelled" if name == "distilled" else "records"
    strategy = devices if isinstance(devices, str) else devices["strategy"]
    return {"config": config, "records": str(records / kind), "run": str(records / f"{name}-{strategy}")}


def start(
    trainings: list[dict[str, Any]], cpus: int = 1, summary_every: int = 1, **environment: str
) -> subprocess.Popen[str]:
    """A process that does ``trainings`` one after another."""
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), json.dumps(trainings), str(cpus), str(summary_every)],
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[1]), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_workers(trainings: list[dict[str, Any]], summary_every: int = 1) -> list[subprocess.Popen[str]]:
    """Two workers that do ``trainings`` together."""
    sockets = [socket.create_server(("localhost", 0)) for _ in range(2)]
    addresses = [f"localhost:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    places = [{"type": "worker", "index": index} for index in range(2)]
    return [
        start(
            trainings,
            summary_every=summary_every,
            TF_CONFIG=json.dumps({"cluster": {"worker": addresses}, "task": place}),
        )
        for place in places
    ]


def assert_same_curve(one: Path, several: Path) -> None:
    """Loss and validation of each step agree but for the rounding of sums in another order."""
    rows, others = read_history(one), read_history(several)
    assert [row["step"] for row in rows] == [row["step"] for row in others]
    assert rows
    for name in ("loss", "validation_auc", "validation_accuracy"):
        curves = [[row[name] for row in curve if name in row] for curve in (rows, others)]
        np.testing.assert_allclose(curves[0], curves[1], rtol=1e-4, err_msg=name)


def finish(processes: list[subprocess.Popen[str]]) -> list[str]:
    """What each printed; all are to end well."""
    told = [process.communicate(timeout=900) for process in processes]
    for process, (_, errors) in zip(processes, told, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return [out for out, _ in told]


def test_slims_scopes_are_each_threads_own() -> None:
    """Replicas are threads that wait for each other in the middle of a network."""
    from facetpu.nets.tensorflow import slim

    inside, left = threading.Barrier(2), threading.Event()

    def first() -> bool:
        with slim.arg_scope([slim.conv2d], normalizer_fn=len):
            inside.wait(10)
        found = slim.current_arg_scope()
        left.set()
        return found == {}

    def second() -> bool:
        with slim.arg_scope([slim.conv2d], normalizer_fn=len):
            inside.wait(10)
            left.wait(10)
        return slim.current_arg_scope() == {}

    with ThreadPoolExecutor(2) as pool:
        assert all(future.result() for future in [pool.submit(first), pool.submit(second)])


@pytest.fixture(scope="module")
def on_one(records: Path) -> Path:
    """The folder of runs of every training on one device, and on two devices of this process."""
    kinds = [training(name, records, devices) for name in TRAININGS for devices in ("one", "mirrored")]
    finish([start(kinds, cpus=2)])
    return records


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAININGS)
def test_two_devices_train_as_one_with_the_whole_batch(on_one: Path, name: str) -> None:
    assert_same_curve(on_one / f"{name}-one", on_one / f"{name}-mirrored")


@pytest.fixture(scope="module")
def by_workers(on_one: Path) -> list[str]:
    """What two workers told of every training."""
    devices = {"strategy": "multi_worker", "workers": 2}
    return finish(start_workers([training(name, on_one, devices) for name in TRAININGS]))


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAININGS)
def test_two_workers_train_as_one_with_the_whole_batch(
    on_one: Path, by_workers: list[str], name: str
) -> None:
    assert_same_curve(on_one / f"{name}-one", on_one / f"{name}-multi_worker")
    chief, other = ([line for line in told.splitlines() if f"/{name}-" in line] for told in by_workers)
    assert [line.split(",")[:2] for line in chief] == [line.split(",") for line in other]


def checkpoint(run: Path) -> dict[str, np.ndarray]:
    from facetpu.nets.tensorflow import tf

    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(run / "checkpoints")))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def wait_for_checkpoint(run: Path, processes: list[subprocess.Popen[str]]) -> None:
    while not (run / "checkpoints" / "checkpoint").is_file():
        assert [process.poll() for process in processes] == [None] * len(processes)
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("dying", [0, 1], ids=["the chief", "another"])
def test_a_worker_that_dies_ends_the_others_and_resume_goes_on_to_the_same_bits(
    records: Path, tmp_path: Path, dying: int
) -> None:
    long = training("softmax", records, "multi_worker", steps=300)
    killed, whole = ({**long, "run": str(tmp_path / name)} for name in ("killed", "whole"))
    workers = start_workers([killed])
    wait_for_checkpoint(tmp_path / "killed", workers)
    workers[dying].send_signal(signal.SIGKILL)
    left = workers[1 - dying]
    _, errors = left.communicate(timeout=900)
    assert left.returncode == 1
    (line,) = [text for text in errors.splitlines() if text.startswith("Error: ")]
    assert line.startswith(f"Error: worker {1 - dying} of 2: another worker is gone")
    assert line.endswith("; mend what it tells of, and start all of them again with --resume")
    finish(start_workers([{**killed, "resume": True}]))
    finish(start_workers([whole]))
    one, other = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "killed")
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.mark.slow
def test_an_error_of_the_chief_ends_the_others(records: Path, tmp_path: Path) -> None:
    wild = training("softmax", records, "multi_worker", optimizer={"learning_rate": 1e30, "warmup": 0})
    told = [
        process.communicate(timeout=900)[1]
        for process in start_workers([{**wild, "run": str(tmp_path / "run")}])
    ]
    assert "Error: " in told[0]
    assert "the loss is" in told[0]
    assert "Error: worker 1 of 2: " in told[1]


CLUSTER = {"worker": ["first:2222", "second:2222"]}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "TF_CONFIG is not set; give each worker its own, as {"),
        ("{", "TF_CONFIG is no JSON: Expecting property name enclosed in double quotes"),
        ("[]", "TF_CONFIG is incomplete; write it as {"),
        ('{"cluster": {"worker": ["first:2222"]}}', "TF_CONFIG is incomplete; write it as {"),
        (
            json.dumps({"cluster": CLUSTER, "task": {"type": "worker", "index": 2}}),
            "TF_CONFIG: the task is worker 2, and the cluster has 2 of that type; count from 0",
        ),
        (
            json.dumps({"cluster": {"worker": ["first"]}, "task": {"type": "worker", "index": 0}}),
            "TF_CONFIG: 'first' is no host:port",
        ),
        (
            json.dumps({"cluster": {"chief": ["a:1"], **CLUSTER}, "task": {"type": "worker", "index": 1}}),
            "TF_CONFIG names 3 workers and devices.workers is 2; make them equal",
        ),
    ],
)
def test_an_unfit_cluster_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, text: str | None, told: str
) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(FacetpuError) as error:
        read_share(Devices(strategy="multi_worker", workers=2))
    assert str(error.value).startswith(told)


def test_a_cluster_is_not_for_one_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", "{}")
    with pytest.raises(FacetpuError, match="TF_CONFIG is set and devices is mirrored; unset it, or choose"):
        read_share(Devices(strategy="mirrored"))
    assert read_share(Devices()) == Share(0, 1)


def test_a_chief_is_the_first_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = {"chief": ["a:1"], **CLUSTER}
    for job, index, worker in (("chief", 0, 0), ("worker", 0, 1), ("worker", 1, 2)):
        monkeypatch.setenv(
            "TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": job, "index": index}})
        )
        assert read_share(Devices(strategy="multi_worker")) == Share(worker, 3)


def test_a_batch_that_cannot_be_shared_is_told_before_any_worker_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from facetpu.training.devices import open_crew

    cluster = {"cluster": CLUSTER, "task": {"type": "worker", "index": 1}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    config = TrainConfig.model_validate({"devices": "multi_worker", "batch_size": 5, "steps": 1})
    with pytest.raises(
        FacetpuError, match=r"batch_size is 5, to be shared by 2 workers; make it a multiple of 2"
    ):
        open_crew(config)


def test_workers_are_of_multi_worker(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("devices: {strategy: mirrored, workers: 2}\nsteps: 1\n")
    with pytest.raises(FacetpuError, match=r"devices: mirrored has no workers; leave it out"):
        read_config(tmp_path / "config.yaml")


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"sampling": {"by": "people"}}, {"augmentation": {"mix": 0.5}}])
def test_the_shares_of_a_batch_are_the_batch(records: Path, changes: dict[str, Any]) -> None:
    from facetpu.training.records import read_records, training_batches
    from facetpu.training.sampling import read_index, sampler

    if "augmentation" in changes:
        changes = {**changes, "teacher": {"model": "teacher", "live": True}}
    config = TrainConfig.model_validate({**TINY, **changes})
    data = read_records(records / "records")
    choose = sampler(read_index(data.train).labels, config.sampling, config.batch_size, config.seed)

    def batches(share: Share) -> list[Any]:
        return list(training_batches(data, config, 3, choose, share=share).take(2).as_numpy_iterator())

    for whole, *parts in zip(*(batches(Share(*one)) for one in ((0, 1), (0, 2), (1, 2))), strict=True):
        for name in whole._fields:
            together = np.concatenate([getattr(part, name) for part in parts])
            np.testing.assert_allclose(together, getattr(whole, name), atol=1e-3, err_msg=name)


def test_training_on_ray_needs_ray(records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    (tmp_path / "config.yaml").write_text("devices: multi_worker\nsteps: 1\n")
    places = [str(path) for path in (tmp_path / "config.yaml", records / "records", tmp_path / "run")]
    told = CliRunner().invoke(main, ["train", *places, "--engine", "ray"]).stderr
    assert told == "Error: ray is not installed: run pip install 'facetpu[ray]'\n"
