"""The commands on a live Ray cluster, as a user gives them, through its client and after its losses."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed: make test-ray")

from ray.cluster_utils import Cluster  # noqa: E402
from ray_cluster import add_node, wait_for_crops, write_photos  # noqa: E402
from small_export import write_export  # noqa: E402
from test_align import tree  # noqa: E402

from facetpu.stages.align import align  # noqa: E402
from facetpu.stages.pack import pack  # noqa: E402

pytestmark = pytest.mark.slow

SHARDS = 60


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("ray commands") / "photos")


@pytest.fixture(scope="module")
def crops(photos: Path) -> Path:
    """What the local engine makes of the photos."""
    folder = photos.with_name("crops")
    align(photos, folder, workers=2)
    return folder


@pytest.fixture(scope="module")
def client_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def nodes(client_port: int) -> Iterator[Cluster]:
    """Two nodes of a core each, whose head takes clients from elsewhere too."""
    cluster = Cluster()
    add_node(cluster, include_dashboard=False, ray_client_server_port=client_port)
    add_node(cluster)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(params=["HOST:PORT", "ray://HOST:PORT"])
def address(request: pytest.FixtureRequest, nodes: Cluster, client_port: int) -> str:
    """Of the cluster: as a machine of it has it, and as any other."""
    return nodes.address if request.param == "HOST:PORT" else f"ray://127.0.0.1:{client_port}"


def facetpu(*arguments: str | Path, first: str = "") -> subprocess.Popen[str]:
    """The command at work, in a process that does ``first`` before."""
    return subprocess.Popen(
        [sys.executable, "-c", f"{first}\nfrom facetpu.cli import main; main()", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answer(*arguments: str | Path) -> str:
    """What the command prints, which ends well."""
    run = facetpu(*arguments)
    printed, told = run.communicate(timeout=600)
    assert run.returncode == 0, told
    return printed


def test_photos_become_records_of_the_same_bytes(
    photos: Path, crops: Path, address: str, tmp_path: Path
) -> None:
    on_ray = ("--engine", "ray", "--address", address)
    found = json.loads(answer("align", photos, tmp_path / "crops", *on_ray, "--json"))
    assert (found["photos"], found["unreadable"]) == (300, 1)
    assert tree(tmp_path / "crops") == tree(crops)
    answer("pack", tmp_path / "crops", tmp_path / "records", *on_ray)
    pack(crops, tmp_path / "local")
    assert tree(tmp_path / "records") == tree(tmp_path / "local")


def test_embeddings_and_figures_are_the_local_engines(crops: Path, address: str, tmp_path: Path) -> None:
    model = write_export(tmp_path / "model")
    on_ray = ("--engine", "ray", "--address", address)
    answer("embed", model, crops, tmp_path / "ray.npz", *on_ray)
    answer("embed", model, crops, tmp_path / "local.npz")
    assert (tmp_path / "ray.npz").read_bytes() == (tmp_path / "local.npz").read_bytes()
    figures = json.loads(answer("evaluate", model, crops, "--identify", "2", *on_ray, "--json"))
    assert figures == json.loads(answer("evaluate", model, crops, "--identify", "2", "--json"))


def test_aligning_after_the_head_was_lost_redoes_only_what_was_in_flight(
    nodes: Cluster, photos: Path, tmp_path: Path
) -> None:
    many, out = tmp_path / "many", tmp_path / "crops"
    for person in photos.iterdir():
        for copy in range(5):  # so many that most are left when the head is found to be lost
            shutil.copytree(person, many / f"{person.name}-{copy}", copy_function=os.link)
    lost = Cluster()
    add_node(lost, include_dashboard=False)
    impatient = "import facetpu.engines.ray as engine; engine.HEAD_SECONDS = 5"
    run = facetpu("align", many, out, "--engine", "ray", "--address", lost.address, first=impatient)
    wait_for_crops(out, 30)
    lost.head_node.kill_gcs_server()
    _, told = run.communicate(timeout=300)
    lost.shutdown()
    assert run.returncode == 1
    assert told.splitlines()[-1] == (
        "Error: the cluster's head is gone; start it and run the same command again to go on"
    )
    partial = tmp_path / ".crops.partial"
    before = {crop.relative_to(partial): crop.stat().st_mtime_ns for crop in partial.glob("*/*.png")}
    assert len(before) >= 30
    answer("align", many, out, "--engine", "ray", "--address", nodes.address)
    align(many, tmp_path / "local", workers=2)
    assert tree(out) == tree(tmp_path / "local")
    redone = [name for name, time in before.items() if (out / name).stat().st_mtime_ns != time]
    assert len(redone) < len(before) / 2


def test_packing_while_a_node_is_lost_gives_the_same_records(
    nodes: Cluster, crops: Path, tmp_path: Path
) -> None:
    records = tmp_path / "records"
    run = facetpu(
        *("pack", crops, records, "--shards", str(SHARDS), "--engine", "ray", "--address", nodes.address)
    )
    (node,) = nodes.worker_nodes

    def kill() -> None:
        while len(list((tmp_path / ".records.partial").glob("*.tfrecord"))) < 3:
            if ended.wait(0.002):
                return
        nodes.remove_node(node, allow_graceful=False)

    ended = threading.Event()
    killer = threading.Thread(target=kill)
    killer.start()
    _, told = run.communicate(timeout=600)
    ended.set()
    killer.join()
    assert run.returncode == 0, told
    assert not nodes.worker_nodes, "all was packed before the node could be taken away"
    pack(crops, tmp_path / "local", shards=SHARDS)
    assert tree(records) == tree(tmp_path / "local")
