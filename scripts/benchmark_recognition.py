"""What facetpu adds to the bare interpreter call when it recognises, and how soon the shell has an answer.

python scripts/benchmark_recognition.py KNOWN PHOTO [--rounds 200] [--starts 10]

KNOWN is an imprinted folder, PHOTO a photo with a face. Both measurements stand beside their floor in the
same run: a crop's way to a name beside TFLite's set_tensor, invoke and get_tensor of the same base on one
thread, in turns; ``facetpu identify KNOWN PHOTO`` beside a Python that imports what it cannot do without
and opens the same models.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from facetpu.board.embed import Embedder
from facetpu.board.folder import BASE, ModelFolder
from facetpu.board.gallery import Gallery, empty_gallery, normalised
from facetpu.board.match import Matcher
from facetpu.board.recogniser import read_known
from facetpu.runtime import interpreter

GALLERIES = {100: 0.3, 10_000: 2.0}  # people, and the most milliseconds a face that we allow ourselves
FIRST_ANSWER = 1.0  # the most seconds
FLOOR = """
import sys, numpy, click, PIL.Image, flatbuffers
from ai_edge_litert.interpreter import Interpreter
PIL.Image.open(sys.argv[1]).load()
for path in sys.argv[2:]:
    Interpreter(path).allocate_tensors()
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("known", type=Path)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--starts", type=int, default=10)
    arguments = parser.parse_args()
    print("| crop to name | bare call, ms | facetpu, ms | added, ms | allowed, ms | |")
    print("|---|---|---|---|---|---|")
    for people, allowed in GALLERIES.items():
        bare, named = crop_to_name(arguments.known, people, arguments.rounds)
        added = statistics.median(np.subtract(named, bare))
        row = [f"{people:,} people", *(f"{statistics.median(times):.3f}" for times in (bare, named))]
        print("| " + " | ".join([*row, f"{added:.3f}", f"{allowed}", verdict(added, allowed)]) + " |")
    floor, answer = first_answer(arguments.known, arguments.photo, arguments.starts)
    print(
        f"\nfirst answer from the shell: {statistics.median(answer):.2f} s (least {min(answer):.2f}), ",
        end="",
    )
    print(f"floor {statistics.median(floor):.2f} s (least {min(floor):.2f}), ", end="")
    print(f"ratio {min(answer) / min(floor):.2f}; {verdict(min(answer), FIRST_ANSWER)}")


def crop_to_name(known: Path, people: int, rounds: int) -> tuple[list[float], list[float]]:
    """Milliseconds of a bare call and of a crop's way to its name, ``rounds`` of each in turns."""
    embedder = Embedder(known / BASE, threads=1)
    match = Matcher(gallery_of(known, people, embedder.dim))
    crops = np.random.default_rng(0).integers(0, 256, [rounds, embedder.size, embedder.size, 3], np.uint8)
    bare = bare_call(known / BASE)

    def named(crop: np.ndarray) -> Any:
        return match(embedder.embed(crop[None]))

    times: tuple[list[float], list[float]] = ([], [])
    for number, crop in enumerate(crops):
        pair = [(bare, times[0]), (named, times[1])]
        for function, taken in pair if number % 2 else reversed(pair):
            start = time.perf_counter()
            function(crop)
            taken.append(1000 * (time.perf_counter() - start))
    return times


def bare_call(base: Path) -> Callable[[np.ndarray], Any]:
    """TFLite alone: a crop in, the base's output out."""
    model = interpreter(base, threads=1)
    model.allocate_tensors()
    source, target = model.get_input_details()[0]["index"], model.get_output_details()[0]["index"]

    def call(crop: np.ndarray) -> Any:
        model.set_tensor(source, crop[None])
        model.invoke()
        return model.get_tensor(target)

    return call


def gallery_of(known: Path, people: int, dim: int) -> Gallery:
    """A gallery of that many people who look like nobody, otherwise as ``known`` has it."""
    embeddings = normalised(np.random.default_rng(1).normal(size=(people, dim)))
    gallery = read_known(ModelFolder.find(known))
    return empty_gallery(dim, gallery.base, gallery.alignment)._replace(
        people=[f"person {number}" for number in range(people)],
        person=np.arange(people, dtype=np.int32),
        embeddings=embeddings,
        imprints=embeddings,
        photos=[f"{number:064x}" for number in range(people)],
        prints=[0] * people,
    )


def first_answer(known: Path, photo: Path, starts: int) -> tuple[list[float], list[float]]:
    """Seconds of the floor and of ``facetpu identify``, each a new process, in turns."""
    models = sorted(map(str, known.rglob("*.tflite")))
    commands = (
        [sys.executable, "-c", FLOOR, photo, *models],
        [sys.executable, "-m", "facetpu", "identify", known, photo],
    )
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(starts + 1):
        for command, taken in zip(commands, times, strict=True):
            start = time.perf_counter()
            subprocess.run(list(map(os.fspath, command)), check=True, capture_output=True)
            taken.append(time.perf_counter() - start)
    return times[0][1:], times[1][1:]  # the first of each warms the disk's cache


def verdict(measured: float, allowed: float) -> str:
    return "met" if measured <= allowed else "NOT MET"


if __name__ == "__main__":
    main()
