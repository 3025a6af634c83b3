"""What evaluating costs over the bare interpreter: facetpu evaluate against invoke alone, in one process.

    scripts/benchmark_evaluation.py MODEL CROPS PAIRS [--rounds 3]

The floor is the model run on the same crops, which are in memory already, by as many interpreters of one
thread as evaluate uses, one a core; evaluate opens the model, reads the crops' files, embeds them and
computes every figure. The two alternate. Wall time is what a user waits; the time of the processor does
not mind what else the machine does.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from facetpu.board.folder import ModelFolder
from facetpu.evaluation.pairs import read_pairs
from facetpu.image import read_image
from facetpu.runtime import interpreter
from facetpu.stages.evaluate import evaluate
from facetpu.workers import cores


def bare(model: bytes, crops: np.ndarray) -> Callable[[], None]:
    """Every crop through an interpreter, and nothing else."""
    interpreters = [interpreter(model, 1, None) for _ in range(cores())]
    for one in interpreters:
        one.allocate_tensors()
    parts = np.array_split(crops, len(interpreters))

    def invoke(one: object, part: np.ndarray) -> None:
        entry, end = one.get_input_details()[0]["index"], one.get_output_details()[0]["index"]
        for crop in part:
            one.set_tensor(entry, crop[None])
            one.invoke()
            one.get_tensor(end)

    def run() -> None:
        with ThreadPoolExecutor(len(interpreters)) as pool:
            list(pool.map(invoke, interpreters, parts))

    return run


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the wall clock and of the processor."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="an int8 .tflite, or a folder that holds one")
    parser.add_argument("crops", type=Path)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    path = ModelFolder.find(arguments.model).embedding_model()
    drawn = read_pairs(arguments.pairs, arguments.crops)
    crops = np.stack([read_image(arguments.crops / crop) for crop in drawn.crops])
    floor = bare(path.read_bytes(), crops)
    print(f"{len(drawn.same):,} pairs of {len(crops):,} crops, {cores()} cores")
    print("            wall: floor  evaluate  ratio   processor: floor  evaluate  ratio")
    walls, processors = [], []
    for number in range(arguments.rounds):
        bare_wall, bare_cpu = timed(floor)
        wall, cpu = timed(lambda: evaluate(path, arguments.crops, arguments.pairs))
        walls.append(wall / bare_wall)
        processors.append(cpu / bare_cpu)
        print(
            f"round {number + 1}   {bare_wall:10.2f} s {wall:8.2f} s {walls[-1]:6.3f}"
            f"   {bare_cpu:15.2f} s {cpu:8.2f} s {processors[-1]:6.3f}"
        )
    print(f"median ratio: wall {statistics.median(walls):.3f}, processor {statistics.median(processors):.3f}")


if __name__ == "__main__":
    main()
