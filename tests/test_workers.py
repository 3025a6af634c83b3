"""Work spread over processes: results, failures, deaths."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from facetpu.errors import FacetpuError
from facetpu.workers import each

offset = 0


def start(value: int) -> None:
    global offset
    offset = value


def add(item: int) -> int:
    return item + offset


def die_at_thirty(item: int) -> int:
    if item == 30:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def fail_at_thirty(item: int) -> int:
    if item == 30:
        raise FacetpuError("thirty is not to be had")
    return item


def threads(_: int) -> str:
    return os.environ["OPENBLAS_NUM_THREADS"]


def note_and_wait(folder: str) -> None:
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(60)


def test_every_item_is_done_once_after_start() -> None:
    assert sorted(each(add, range(50), 2, start, (100,))) == list(range(100, 150))


def test_no_items_start_no_process() -> None:
    assert list(each(add, [], 2, start, (0,))) == []


def test_a_dead_worker_ends_the_run_with_advice() -> None:
    with pytest.raises(FacetpuError, match=r"a worker died.*fewer --workers"):
        list(each(die_at_thirty, range(100), 2, start, (0,)))


def test_what_a_task_raises_is_raised_here() -> None:
    with pytest.raises(FacetpuError, match="thirty is not to be had"):
        list(each(fail_at_thirty, range(100), 1, start, (0,)))


def test_workers_compute_with_one_thread_and_the_caller_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    assert list(each(threads, range(3), 1, start, (0,))) == ["1"] * 3
    assert "OPENBLAS_NUM_THREADS" not in os.environ


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{process}/stat")
    return not (stat.exists() and stat.read_text().split(") ")[1].startswith("Z"))


@pytest.mark.skipif(os.name != "posix", reason="kills processes")
def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    code = (
        "import sys; from facetpu.workers import each; from test_workers import note_and_wait, start\n"
        "list(each(note_and_wait, [sys.argv[1]] * 16, 2, start, (0,)))"
    )
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], env={**os.environ, "PYTHONPATH": path}
    )
    try:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        parent.kill()
        parent.wait()
    workers = [int(path.name) for path in tmp_path.iterdir()]
    while any(alive(worker) for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)
