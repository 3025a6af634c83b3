"""Work spread over processes: results, failures, deaths."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from facetpu import workers
from facetpu.errors import FacetpuError
from facetpu.image import UnreadableImage
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


def die_once(item: tuple[str, int]) -> int:
    mark, number = item
    if number == 7 and not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def too_large(_: int) -> int:
    raise MemoryError


def open_absent(item: int) -> int:
    return len(Path(f"/absent/{item}").read_bytes())


class Awkward(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


def raise_awkward(_: int) -> int:
    raise Awkward("one", "two")


def fail_at_thirty(item: int) -> int:
    if item == 30:
        raise FacetpuError("thirty is not to be had")
    return item


def read_damaged(_: int) -> int:
    raise UnreadableImage(Path("a.jpg"), "is cut off")


def threads(_: int) -> str:
    return os.environ["OPENBLAS_NUM_THREADS"]


def note_and_wait(folder: str) -> None:
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(60)


def test_every_item_is_done_once_after_start() -> None:
    assert sorted(each(add, range(50), 2, start, (100,))) == list(range(100, 150))


def test_no_items_start_no_process() -> None:
    assert list(each(add, [], 2, start, (0,))) == []


def name_it(item: int, reason: str) -> str:
    return f"{item} {reason}"


def test_an_item_that_kills_its_process_twice_is_named_and_the_rest_is_done() -> None:
    results = list(each(die_at_thirty, range(100), 2, start, (0,), name_it))
    assert results[-1] == "30 died of SIGKILL, most likely for want of memory"
    assert sorted(results[:-1]) == [item for item in range(100) if item != 30]


def test_without_a_result_for_it_such_an_item_ends_the_work() -> None:
    with pytest.raises(FacetpuError, match="30 killed the process at work on it, twice: it died of SIGKILL"):
        list(each(die_at_thirty, range(40), 2, start, (0,)))


def test_an_item_whose_process_somebody_killed_is_done_after_all(tmp_path: Path) -> None:
    items = [(str(tmp_path / "killed"), number) for number in range(20)]
    assert sorted(each(die_once, items, 2, start, (0,), name_it)) == list(range(20))


def test_an_item_too_large_for_memory_is_named() -> None:
    (result,) = each(too_large, [5], 1, start, (0,), name_it)
    assert result == "5 ran out of memory"


def test_processes_that_keep_dying_end_the_work_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "PATIENCE", 3)
    with pytest.raises(FacetpuError, match=r"exit code 9, and 2 before it.*fewer --workers"):
        list(each(add, range(9), 2, os._exit, (9,), name_it))


def test_an_error_of_the_operating_system_is_no_death() -> None:
    with pytest.raises(FileNotFoundError):
        list(each(open_absent, range(3), 2, start, (0,), name_it))


def test_an_error_that_no_pipe_can_carry_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="Awkward: one and two"):
        list(each(raise_awkward, range(3), 1, start, (0,), name_it))


def test_a_photo_that_a_task_cannot_read_is_told_in_one_line() -> None:
    with pytest.raises(FacetpuError, match=r"^a\.jpg: is cut off$"):
        list(each(read_damaged, range(3), 1, start, (0,)))


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
