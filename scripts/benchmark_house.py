"""How many frames a second a house looks at, and how much memory it takes, by how many people watch.

python scripts/benchmark_house.py KNOWN VIDEO [--watchers 0 1 8] [--seconds 10] [--rounds 3]

KNOWN is an imprinted folder (a copy of it is used), VIDEO stands in for a camera. The numbers of watchers
take turns, so that a machine that is busy for a while is so for all; each is told as a ratio to nobody
watching. A watcher takes every picture as soon as there is one, as a browser with the live stream does.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path

from facetpu.serve.answers import Settings
from facetpu.serve.house import House


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("known", type=Path)
    parser.add_argument("video", type=Path)
    parser.add_argument("--watchers", type=int, nargs="+", default=[0, 1, 8])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    looked: dict[int, list[float]] = {watchers: [] for watchers in arguments.watchers}
    shown: dict[int, list[float]] = {watchers: [] for watchers in arguments.watchers}
    with tempfile.TemporaryDirectory() as folder:
        known = Path(shutil.copytree(arguments.known, Path(folder) / "known"))
        with House(known, [str(arguments.video)], None, Settings()) as house:
            assert house.picture("0", -1, 30) is not None, "the video shows nothing"
            first = peak_megabytes()
            for _ in range(arguments.rounds):
                for watchers in arguments.watchers:
                    frames, pictures = watched(house, watchers, arguments.seconds)
                    looked[watchers].append(frames)
                    shown[watchers].append(pictures)
            last = peak_megabytes()
    alone = statistics.median(looked[arguments.watchers[0]])
    print("| watchers | frames a second | ratio | pictures a second, each |")
    print("|---|---|---|---|")
    for watchers in arguments.watchers:
        rate, pictures = statistics.median(looked[watchers]), statistics.median(shown[watchers])
        print(f"| {watchers} | {rate:.1f} | {rate / alone:.2f} | {pictures:.1f} |")
    print(f"\nmost memory: {first:.0f} MB at first, {last:.0f} MB at last")


def watched(house: House, watchers: int, seconds: float) -> tuple[float, float]:
    """Frames looked at a second, and pictures that each of ``watchers`` gets a second."""
    over = threading.Event()
    counts = [0] * watchers

    def watch(index: int) -> None:
        number = -1
        while not over.is_set():
            picture = house.picture("0", number, 1.0)
            if picture is not None:
                number = picture.number
                counts[index] += 1

    threads = [threading.Thread(target=watch, args=(index,)) for index in range(watchers)]
    for thread in threads:
        thread.start()
    time.sleep(seconds)  # the rate that a camera's state tells is that of its last five
    rate = house.cameras()[0].frames_per_second
    over.set()
    for thread in threads:
        thread.join()
    return rate, sum(counts) / max(watchers, 1) / seconds


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
