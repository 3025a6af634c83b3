"""What the Ray engine costs against processes of this machine, and how it scales from one node to two.

    scripts/benchmark_ray.py --photos lfw [--count 2000] [--rounds 2]

A cluster of two nodes of one core each is started on this machine. Then the engines take turns at
``facetpu align`` of the same photos: two local processes and two nodes, and in every second round one
process and one node too. The watch starts with the twentieth result, so that neither's start counts.
Seconds are of the clock, and of CPU of all processes below this one, Ray's own servers included: a machine
that does other things too has its say on the first.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.cluster_utils import Cluster

from facetpu.artefacts import files_under
from facetpu.engines import Engine
from facetpu.engines.local import Processes
from facetpu.engines.ray import RayEngine
from facetpu.stages.align import align

os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  # a busy machine starves them at Ray's own 15
NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 << 20}
WARM_UP = 20  # results before the watch starts: every worker has started, and its batches are small yet
STEP = 50  # results between two looks at the watch
ALONE = ("1 process", "Ray, 1 node")
TICK = os.sysconf("SC_CLK_TCK")


class Turn(NamedTuple):
    """What a turn took, for each photo."""

    clock: float
    cpu: float


class Timed:
    """An engine with a watch on it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.turn = Turn(0, 0)

    def each(self, *work: Any) -> Iterator[Any]:
        """The engine's results; sets ``turn``."""
        answers = self._engine.each(*work)
        yield from itertools.islice(answers, WARM_UP)
        clock, cpu = time.perf_counter(), cpu_seconds()
        for count, answer in enumerate(answers, 1):
            yield answer
            if count % STEP == 0:  # When all results are there, the workers are gone, and their CPU time.
                self.turn = Turn((time.perf_counter() - clock) / count, (cpu_seconds() - cpu) / count)

    def status(self) -> str:
        """Nothing."""
        return ""


def cpu_seconds() -> float:
    """CPU seconds of this process and of all that it started, alive and dead."""
    parents, seconds = {}, {}
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            try:
                fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended meanwhile
                continue
            parents[int(entry.name)] = int(fields[1])
            seconds[int(entry.name)] = sum(map(int, fields[11:15])) / TICK
    ours = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in ours and pid not in ours}:
        ours |= more
    return sum(seconds[pid] for pid in ours)


def link_some(photos: list[Path], count: int, to: Path) -> None:
    """Link every so manieth of ``photos`` to the folder ``to``, a person's in a folder of theirs."""
    for photo in photos[:: len(photos) // count][:count]:
        (to / photo.parent.name).mkdir(parents=True, exist_ok=True)
        os.symlink(photo.resolve(), to / photo.parent.name / photo.name)


def take_turn(engine: Engine, photos: Path, folder: Path) -> Turn:
    timed = Timed(engine)
    align(photos, folder / "crops", engine=timed)
    shutil.rmtree(folder / "crops")
    return timed.turn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--count", type=int, default=2000, help="photos a turn")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    photos = [path for path in files_under(options.photos) if path.suffix == ".jpg"]
    if not WARM_UP + STEP <= options.count <= len(photos):
        parser.error(
            f"--count is {options.count}; give {WARM_UP + STEP} or more, and no more than the {len(photos)} "
            f"photos (.jpg) in {options.photos}"
        )
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    contenders: dict[str, Engine] = {
        "2 processes": Processes(2),
        "Ray, 2 nodes": RayEngine.connect(cluster.address),
        "1 process": Processes(1),
        "Ray, 1 node": RayEngine(1),
    }
    turns: dict[str, list[Turn]] = {name: [] for name in contenders}
    with tempfile.TemporaryDirectory() as folder:
        link_some(photos, options.count, Path(folder) / "photos")
        for number in range(options.rounds):
            for name, engine in contenders.items():
                if number % 2 and name in ALONE:
                    continue
                turn = take_turn(engine, Path(folder) / "photos", Path(folder))
                turns[name].append(turn)
                clock, cpu = 1000 * turn.clock, 1000 * turn.cpu
                print(f"round {number + 1}, {name}: {clock:.1f} ms, {cpu:.1f} ms of CPU", flush=True)
    for name, rows in turns.items():
        clock, cpu = (1000 * statistics.median(times) for times in zip(*rows, strict=True))
        print(f"{name:14} {1000 / clock:6.1f} photos/s, a photo {clock:6.1f} ms, {cpu:6.1f} ms of CPU")
    for ours, other, label in (
        ("Ray, 2 nodes", "2 processes", "Ray over processes, 2 cores"),
        ("Ray, 1 node", "1 process", "Ray over processes, 1 core"),
        ("Ray, 1 node", "Ray, 2 nodes", "speed of 2 nodes over 1"),
    ):
        rounds = turns[other][::2] if ours in ALONE and other not in ALONE else turns[other]
        pairs = list(zip(turns[ours], rounds, strict=True))
        clock, cpu = (statistics.median(a[i] / b[i] for a, b in pairs) for i in (0, 1))
        print(f"{label:28} {clock:.3f} by the clock, {cpu:.3f} by CPU (medians over rounds)")
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
