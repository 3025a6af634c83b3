"""The Ray engine on a real cluster of two nodes, both on this machine."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed: make test-ray")

from crops import write_crops  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402
from ray_cluster import add_node, wait_for_crops, write_photos  # noqa: E402
from test_align import tree  # noqa: E402
from test_workers import add, die_at_thirty, die_once, fail_at_thirty, name_it, start, too_large  # noqa: E402

from facetpu.alignment.journal import Journal  # noqa: E402
from facetpu.artefacts import new_folder, read_manifest, write_bytes, write_manifest, write_text  # noqa: E402
from facetpu.engines import choose_engine, cluster  # noqa: E402
from facetpu.engines.ray import RayEngine  # noqa: E402
from facetpu.errors import FacetpuError  # noqa: E402
from facetpu.image import read_image  # noqa: E402
from facetpu.options import as_document  # noqa: E402
from facetpu.stages.align import Alignment, align  # noqa: E402
from facetpu.stages.pack import pack  # noqa: E402
from facetpu.storage import listed, place  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def s3() -> Iterator[bool]:
    """Whether an S3 server runs on this machine, which processes started after this find by themselves."""
    try:
        import s3fs  # noqa: F401 - is what opens its buckets
        import upath  # noqa: F401
        from moto.server import ThreadedMotoServer
    except ImportError:
        yield False
        return
    served = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    served.start()
    host, port = served.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield True
    served.stop()


@pytest.fixture(scope="module")
def bucket(s3: bool, photos: Path) -> Any:
    """A bucket with 300 photos in it."""
    if not s3:
        pytest.skip("no S3 server here: make test-ray")
    bucket = place("s3://bucket")
    bucket.fs.mkdir("bucket")
    bucket.fs.put(str(photos), "bucket/photos", recursive=True)
    return bucket


@pytest.fixture(scope="module")
def nodes(s3: bool) -> Iterator[Cluster]:
    """A cluster of two nodes of a core each, which this process is connected to."""
    cluster = Cluster()
    add_node(cluster, include_dashboard=False)
    add_node(cluster)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def engine(nodes: Cluster) -> RayEngine:
    if not nodes.worker_nodes:  # a test has taken it away
        add_node(nodes)
    return RayEngine.connect(nodes.address)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("ray") / "photos")


def sleep(item: float) -> str:
    time.sleep(item)
    return ray.get_runtime_context().get_node_id()


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


def test_the_only_item_is_not_lost_with_its_process(engine: RayEngine) -> None:
    expected = ["30 died of SIGKILL, most likely for want of memory"]
    assert list(engine.each(die_at_thirty, [30], start, (0,), name_it)) == expected


def test_an_item_whose_process_somebody_killed_is_done_after_all(engine: RayEngine, tmp_path: Path) -> None:
    items = [(str(tmp_path / "killed"), number) for number in range(20)]
    assert sorted(engine.each(die_once, items, start, (0,), name_it)) == list(range(20))


def test_an_item_too_large_for_memory_is_named(engine: RayEngine) -> None:
    assert list(engine.each(too_large, [5], start, (0,), name_it)) == ["5 ran out of memory"]


def begin_slowly(folder: str) -> None:
    """Wait until two workers are at it, and then some."""
    (Path(folder) / str(os.getpid())).touch()
    while len(os.listdir(folder)) < 2:
        time.sleep(0.05)
    time.sleep(5)


def test_workers_that_a_lost_node_takes_as_they_begin_do_not_end_the_work(
    nodes: Cluster, engine: RayEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facetpu.engines.ray.PATIENCE", 1)

    def wait_and_kill() -> None:
        while len(os.listdir(tmp_path)) < 2:
            time.sleep(0.05)
        nodes.remove_node(*nodes.worker_nodes, allow_graceful=False)

    killer = threading.Thread(target=wait_and_kill)
    killer.start()
    assert sorted(engine.each(add, range(20), begin_slowly, (str(tmp_path),))) == list(range(20))
    killer.join()


def test_a_node_without_cores_is_none_to_train_on(nodes: Cluster, engine: RayEngine) -> None:
    known, before = set(nodes.worker_nodes), len(cluster.node_names())
    add_node(nodes, num_cpus=0)
    assert (len(cluster.node_names()), cluster.nodes_with_cores()) == (before + 1, before)
    nodes.remove_node(*nodes.worker_nodes - known)


def test_what_a_task_raises_is_raised_here_with_the_nodes_name(engine: RayEngine) -> None:
    with pytest.raises(FacetpuError, match=r"^node [\d.]+/\w{6}: thirty is not to be had$"):
        list(engine.each(fail_at_thirty, range(100), start, (0,)))


def test_a_lost_node_costs_nothing_but_time(nodes: Cluster, engine: RayEngine) -> None:
    seen = []
    for node in engine.each(sleep, [0.1] * 200, start, (0,)):
        seen.append(node)
        if len(set(seen)) == 2 and nodes.worker_nodes:
            nodes.remove_node(*nodes.worker_nodes)
    assert len(seen) == 200
    assert len(set(seen)) == 2
    assert not nodes.worker_nodes


def test_a_node_that_joins_is_given_work(nodes: Cluster, engine: RayEngine) -> None:
    nodes.remove_node(*nodes.worker_nodes)
    seen = []
    for node in engine.each(sleep, joining(seen), start, (0,)):
        seen.append(node)
        if len(seen) == 20:
            add_node(nodes)
    assert len(set(seen)) == 2


def joining(seen: list[str]) -> Iterator[float]:
    """Work until two nodes have done some of it."""
    deadline = time.monotonic() + 120
    while len(set(seen)) < 2 and time.monotonic() < deadline:
        yield 0.1


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
    add_node(nodes)
    packed = photos.with_name("packed")
    pack(local, packed, shards=12)
    again = photos.with_name("packed by ray")
    pack(ours, again, shards=12, engine=engine)
    assert tree(again) == tree(packed)


def _kill_node_half_way(nodes: Cluster, out: Path) -> threading.Thread:
    """Take the second node away when 150 crops of ``out`` are there."""
    (node,) = nodes.worker_nodes

    def wait_and_kill() -> None:
        wait_for_crops(out, 150)
        nodes.remove_node(node, allow_graceful=False)

    thread = threading.Thread(target=wait_and_kill)
    thread.start()
    return thread


def test_a_run_on_a_bucket_goes_on_on_another_machine_with_the_same_bytes(
    bucket: Any, engine: RayEngine, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = note_until(100, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        align(bucket / "photos", bucket / "crops", engine=engine)
    stop.undo()
    with pytest.raises(FacetpuError, match=r"crops: is not complete; run the command that makes it again"):
        pack(bucket / "crops", bucket / "records")
    result = align(bucket / "photos", bucket / "crops", engine=engine)
    assert result.photos == 300
    local = photos.with_name("of the bucket")
    bucket.fs.get("bucket/photos", str(local), recursive=True)
    crops = photos.with_name("crops of the bucket")
    align(local, crops, workers=2)
    assert {**remote_tree(bucket / "crops"), "manifest.json": b""} == {**tree(crops), "manifest.json": b""}
    pack(bucket / "crops", bucket / "records", shards=3, engine=engine)
    pack(crops, photos.with_name("records of it"), shards=3)
    ours, theirs = remote_tree(bucket / "records"), tree(photos.with_name("records of it"))
    assert {**ours, "manifest.json": b""} == {**theirs, "manifest.json": b""}
    with pytest.raises(FacetpuError, match=r"records: exists; choose another name, or pass --overwrite"):
        pack(bucket / "crops", bucket / "records", shards=4)


def note_until(count: int, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Have the run stopped by Ctrl-C after so many photos."""
    note = Journal.note

    def interrupted(journal: Journal, photo: str, record: dict[str, Any]) -> None:
        note(journal, photo, record)
        if journal.count(done=True) == count:
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "note", interrupted)
    return monkeypatch


def remote_tree(folder: Any) -> dict[str, bytes]:
    start = len(folder.path) + 1
    return {name[start:]: folder.fs.cat_file(name) for name in folder.fs.find(folder.path)}


# Bad input


def test_a_cluster_that_is_not_there_is_told_at_once() -> None:
    with pytest.raises(FacetpuError, match=r"^ray://127.0.0.1:1: no Ray cluster answers \(connec"):
        choose_engine("ray", "ray://127.0.0.1:1")
    with pytest.raises(FacetpuError, match="--address is of a Ray cluster; give --engine ray too"):
        choose_engine("local", "auto")


def test_versions_that_differ_are_named(
    nodes: Cluster, engine: RayEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "versions", lambda: {"numpy": "1.2.3"})
    with pytest.raises(
        FacetpuError, match=r"^node .*: has ai-edge-litert .*, and this machine none; install"
    ):
        list(engine.each(add, range(3), start, (0,)))


def test_another_version_of_ray_is_refused(nodes: Cluster, tmp_path: Path) -> None:
    code = (
        "import ray, sys; ray.__version__ = '2.1.0'\n"
        "from facetpu.engines import choose_engine\n"
        "choose_engine('ray', sys.argv[1])"
    )
    done = subprocess.run([sys.executable, "-c", code, nodes.address], capture_output=True, text=True)
    assert "Version mismatch" in done.stderr.splitlines()[-1]
    assert done.stderr.splitlines()[-1].startswith("facetpu.errors.FacetpuError: ")


@contextlib.contextmanager
def node_in_namespace(nodes: Cluster, mount: str) -> Iterator[None]:
    """Another node, with mounts of its own, as another machine has them; the second node is gone."""
    if os.geteuid() or not shutil.which("unshare"):
        pytest.skip("only root can give a node its own mounts")
    for node in list(nodes.worker_nodes):
        nodes.remove_node(node)
    ray_start = (
        f"{sys.executable} -m ray.scripts.scripts start --address {nodes.address} --num-cpus 1 "
        "--object-store-memory 80000000 --block"
    )
    before = len(cluster.node_names())
    process = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", f"{mount} && exec {ray_start}"], start_new_session=True
    )
    try:
        deadline = time.monotonic() + 120
        while len(cluster.node_names()) == before:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(1)
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def test_photos_that_one_node_cannot_see_are_told_with_its_name(
    nodes: Cluster, engine: RayEngine, photos: Path
) -> None:
    with (
        node_in_namespace(nodes, f"mount -t tmpfs none {photos.parent}"),
        pytest.raises(FacetpuError, match=r"^node .*: .*photos: is not there; put it on a disk that all"),
    ):
        align(photos, photos.with_name("unseen"), engine=engine)


def test_a_disk_that_is_full_on_one_node_is_told_with_its_name(
    nodes: Cluster, engine: RayEngine, photos: Path, tmp_path: Path
) -> None:
    disk, small = tmp_path / "disk", tmp_path / "small"
    disk.mkdir()
    small.mkdir()
    # What this node writes goes to a file system of 128 KB that is full; it sees what others write.
    mount = (
        f"mount -t tmpfs -o size=128k none {small} && mkdir {small}/upper {small}/work && "
        f"mount -t overlay -o lowerdir={disk},upperdir={small}/upper,workdir={small}/work none {disk} && "
        f"(head -c 1000000 /dev/zero > {small}/ballast; true)"
    )
    full = r"^node .*: .*crops.partial.*: no space left on device; free some space and run the same"
    with node_in_namespace(nodes, mount), pytest.raises(FacetpuError, match=full):
        align(photos, disk / "crops", engine=engine)
    assert align(photos, disk / "crops", workers=1).photos == 300  # with what was done before


@pytest.fixture
def remote() -> Iterator[Any]:
    """A folder at a URL, which opens it in the memory of this process."""
    pytest.importorskip("upath", reason="universal-pathlib is not installed: make test-ray")
    folder = place("memory://remote")
    folder.mkdir()
    yield folder
    folder.fs.rm(folder.path, recursive=True)


def refuse(fs: Any, method: str, below: str, error: BaseException, patch: pytest.MonkeyPatch) -> None:
    """Have ``fs`` raise ``error`` for paths that end so."""
    allowed = getattr(type(fs), method)

    def refusing(self: Any, path: Any, *rest: Any, **more: Any) -> Any:
        if str(path).endswith(below):
            raise error
        return allowed(self, path, *rest, **more)

    patch.setattr(type(fs), method, refusing)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PermissionError("Access Denied"), FacetpuError),
        (TimeoutError("in time"), TimeoutError),
    ],
)
def test_a_folder_in_a_bucket_that_cannot_be_listed_is_not_passed_over(
    remote: Any, error: OSError, expected: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/1.jpg", "b/c/2.jpg", ".hidden/3.jpg", "b/.4.jpg"):
        (remote / name).parent.mkdir(parents=True, exist_ok=True)
        (remote / name).write_bytes(b"photo")
    assert sorted(name for name, _, _ in listed(remote)) == ["a/1.jpg", "b/c/2.jpg"]
    refuse(remote.fs, "ls", "b/c", error, monkeypatch)
    with pytest.raises(expected, match=str(error)):
        list(listed(remote))


def test_marks_of_empty_folders_in_a_bucket_are_no_files(bucket: Any) -> None:
    bucket.fs.pipe({"bucket/marked/": b"", "bucket/marked/empty/": b"", "bucket/marked/a/1.jpg": b"photo"})
    assert [(name, size) for name, size, _ in listed(bucket / "marked")] == [("a/1.jpg", 5)]


def test_a_folder_in_a_bucket_is_not_taken_for_whole_while_it_is_replaced(
    remote: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = remote / "out"
    make(out, 1)
    with monkeypatch.context() as patch:
        refuse(remote.fs, "rm", "", KeyboardInterrupt(), patch)
        with pytest.raises(KeyboardInterrupt):
            make(out, 2, overwrite=True)
    with pytest.raises(FacetpuError, match="out: is not complete; run the command that makes it again"):
        read_manifest(out)
    make(out, 2)
    assert sorted(remote_tree(out)) == ["[2].txt", "manifest.json"]
    assert read_manifest(out)["config"] == {"number": 2}


def make(out: Any, number: int, overwrite: bool = False, stop: bool = False) -> None:
    with new_folder(out, overwrite, {"number": number}):
        write_text(out / f"[{number}].txt", "")
        if stop:
            raise KeyboardInterrupt
        write_manifest(out, "test", {"number": number}, {})


def test_a_folder_in_a_bucket_is_kept_when_its_state_cannot_be_read(
    remote: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = remote / "out"
    with pytest.raises(KeyboardInterrupt):
        make(out, 1, stop=True)
    with monkeypatch.context() as patch:
        refuse(remote.fs, "_open", ".facetpu-run.json", OSError("Slow Down"), patch)
        with pytest.raises(OSError, match="Slow Down"):
            make(out, 1)
    assert sorted(remote_tree(out)) == [".facetpu-run.json", "[1].txt"]


def test_what_may_not_be_read_or_written_in_a_bucket_is_named(
    remote: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(remote.fs, "_open", ".png", PermissionError("Access Denied"), monkeypatch)
    for work in (lambda: read_image(remote / "a.png"), lambda: write_bytes(remote / "a.png", b"")):
        with pytest.raises(FacetpuError, match=r"/a.png: may not be opened from here \(Access Denied\)"):
            work()


def test_an_s3_server_that_is_not_there_is_told(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    type(bucket.fs).clear_instance_cache()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    expected = (
        r"^s3://bucket/photos: cannot be reached \(.*127.0.0.1:1.*\); check the network and AWS_ENDPOINT"
    )
    with pytest.raises(FacetpuError, match=expected):
        align(place("s3://bucket/photos"), place("s3://bucket/crops"))
    type(bucket.fs).clear_instance_cache()


def test_other_peoples_crops_may_be_in_a_bucket(remote: Any, tmp_path: Path) -> None:
    crops, others = (write_crops(tmp_path / name, people=2, photos=3) for name in ("crops", "others"))
    for file in others.rglob("*.png"):
        (remote / file.name).write_bytes(file.read_bytes())
    found = pack(crops, tmp_path / "records", unknown=remote, unlabelled=remote)
    assert (found.people, found.unlabelled) == (3, 3)


def test_a_url_is_text_in_a_document(remote: Any) -> None:
    assert json.loads(as_document(Alignment(remote, 1, 1, 0, 0, 1)))["out"] == str(remote)


def test_a_bucket_without_credentials_is_told(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    type(bucket.fs).clear_instance_cache()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", "/nonexistent")
    with pytest.raises(FacetpuError, match=r"^s3://bucket/photos: may not be opened from here .*AWS_ACCESS"):
        align(place("s3://bucket/photos"), place("s3://bucket/crops"))
    type(bucket.fs).clear_instance_cache()
