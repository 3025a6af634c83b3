"""Whether serve bears up: a looped film of rendered people, four watchers, ten requests a second, for long.

Run: python scripts/soak_serve.py MODEL [--minutes 15]

MODEL is an export folder. The server runs in a process of its own; the film, the watchers and those who ask
share its processors. The frame rate without watchers, in the same run, is what that with them is held to.
Ends with 1 when a request failed, a stream broke, the server logged or did not end well, or when it held more
memory or open files in the last tenth of the run than in the second.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import cv2
import numpy as np

from facetpu.board.enrol import imprint
from facetpu.image import read_image
from facetpu.portraits import write_people

WATCHERS = 4
A_SECOND = 10
SIZE, RATE = (640, 480), 30
# Memory may waver by this much: the allocator's, the page cache's of SQLite.
SLACK_MB, SLACK_SHARE = 8.0, 0.03


class Sample(NamedTuple):
    """The server at a moment: resident memory in MB, open files, threads, frames a second."""

    memory: float
    files: int
    threads: int
    frames: float


class Load:
    """Those who watch and ask, and what became of it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.over = threading.Event()
        self.errors: list[str] = []
        self.pictures = [0] * WATCHERS
        self.milliseconds: list[float] = []

    def ask(self, method: str, path: str, body: object = None) -> bytes:
        """The body of the reply; an error is noted."""
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(link):
            headers = {"X-Facetpu": "1", "Content-Type": "application/json"}
            link.request(method, path, None if body is None else json.dumps(body), headers)
            reply = link.getresponse()
            content = reply.read()
        if reply.status >= 400:
            self.errors.append(f"{method} {path}: {reply.status} {content[:200]!r}")
        return content

    def watch(self, number: int) -> None:
        """Read a stream to the end of the run."""
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        link.request("GET", "/api/cameras/0/stream")
        stream = link.getresponse()
        while not self.over.is_set():
            line = stream.readline()
            if not line:
                self.errors.append(f"watcher {number}: the stream ended")
                return
            if line.startswith(b"Content-Length:"):
                stream.readline()
                stream.read(int(line.split(b":")[1]))
                self.pictures[number] += 1
        stream.close()
        link.close()

    def request(self) -> None:
        """Ask one thing after the other, so many a second; now and then change something."""
        name = json.loads(self.ask("GET", "/api/people"))["people"][0]["name"]
        events = json.loads(self.ask("GET", "/api/events"))["events"]
        paths = ["/", "/static/main.js", "/api/status", "/api/people", "/api/events", "/api/threshold"]
        paths += ["/api/cameras", "/api/cameras/0/picture.jpg", f"/api/events?name={name}&limit=10"]
        paths += [f"/api/events/{event['id']}/crop.jpg" for event in events[:2] if event["crop"]]
        due = time.monotonic()
        number = 0
        while not self.over.is_set():
            began = time.monotonic()
            if number % 600 == 300:
                self.ask("PUT", "/api/threshold", {"false_accepts": 0.01})
            else:
                self.ask("GET", paths[number % len(paths)])
            self.milliseconds.append(1000 * (time.monotonic() - began))
            number += 1
            due = max(due + 1 / A_SECOND, time.monotonic() - 5)
            self.over.wait(max(due - time.monotonic(), 0))

    def noting(self, work: Callable[..., None], *arguments: object) -> threading.Thread:
        """``work`` in a thread; what it raises is an error."""

        def run() -> None:
            try:
                work(*arguments)
            except Exception as error:
                self.errors.append(f"{work.__name__}: {error!r}")

        return threading.Thread(target=run)

    def sample(self, process: int) -> Sample:
        """The server as it is now."""
        status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
        camera = json.loads(self.ask("GET", "/api/cameras"))["cameras"][0]
        memory = int(status["VmRSS"].split()[0]) / 1024
        files = sum(1 for _ in Path(f"/proc/{process}/fd").iterdir())
        return Sample(memory, files, int(status["Threads"]), camera["frames_per_second"])

    def samples(self, process: int, seconds: float) -> list[Sample]:
        """The server every second, for so many."""
        found = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found.append(self.sample(process))
            time.sleep(1)
        return found


def write_film(path: Path, photos: list[Path]) -> Path:
    """Half a minute: each of the people walks past, the wall is empty for a while, two stand together."""
    codec = cv2.VideoWriter_fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path), codec, RATE, SIZE)
    portraits = [read_image(photo) for photo in photos]
    scenes = [[portrait] for portrait in portraits] + [[], portraits[:2]]
    for scene in scenes:
        for step in range(30 * RATE // len(scenes)):
            frame = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
            for number, portrait in enumerate(scene):
                height, width = portrait.shape[:2]
                left = 20 + 300 * number + step % 120
                frame[100 : 100 + height, left : left + width] = portrait
            writer.write(np.ascontiguousarray(frame[:, :, ::-1]))
    writer.release()
    return path


def grown(name: str, early: list[float], late: list[float], slack: float) -> list[str]:
    """What to say where the median is larger late than early, by more than the slack."""
    first, last = statistics.median(early), statistics.median(late)
    return [f"{name} grew from {first:.1f} to {last:.1f}"] if last > first + slack else []


def soak(model: Path, minutes: float, folder: Path) -> list[str]:
    """Run it; print the figures and return what went wrong."""
    write_people(folder / "people", 4, 5, size=200)
    people = sorted((folder / "people").iterdir())
    (folder / "guests").mkdir()
    for guest in people[2:]:
        guest.rename(folder / "guests" / guest.name)
    imprint(model, folder / "people", folder / "house", accept_all=True)
    where = [folder / "people"] * 2 + [folder / "guests"] * 2
    photos = [next(iter(sorted((at / one.name).iterdir()))) for at, one in zip(where, people, strict=True)]
    film = write_film(folder / "film.avi", photos)

    command = [sys.executable, "-m", "facetpu", "serve", str(folder / "house"), "--camera", str(film)]
    command += ["--min-face", "60", "--port", "0", "--json"]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log) as server,
    ):
        assert server.stdout is not None
        load = Load(urlsplit(json.loads(server.stdout.readline())["url"]).port or 0)
        seconds = 60 * minutes
        warm = load.samples(server.pid, max(20.0, seconds / 20))
        alone = load.samples(server.pid, max(20.0, seconds / 20))
        crowd = [load.noting(load.watch, number) for number in range(WATCHERS)] + [load.noting(load.request)]
        for thread in crowd:
            thread.start()
        crowded = load.samples(server.pid, seconds)
        load.over.set()
        for thread in crowd:
            thread.join(60)
        after = load.sample(server.pid)
        server.send_signal(signal.SIGTERM)
        code = server.wait(60)

    tenth = max(len(crowded) // 10, 1)
    early, late = crowded[tenth : 2 * tenth], crowded[-tenth:]
    problems = load.errors[:20] + ([f"{len(load.errors)} errors"] if load.errors else [])
    slack = SLACK_MB + SLACK_SHARE * early[0].memory
    problems += grown("memory, MB,", [one.memory for one in early], [one.memory for one in late], slack)
    problems += grown("open files", [one.files for one in early], [one.files for one in late], 8)
    problems += [f"the server ended with {code}"] if code else []
    said = [line for line in (folder / "log").read_text().splitlines() if not line.startswith("INFO:")]
    problems += [f"the server said: {line}" for line in said[:20]]
    report(load, seconds, {"start": warm[-1], "alone": alone[-1], "after": after}, alone, crowded)
    return problems


def report(
    load: Load, seconds: float, moments: dict[str, Sample], alone: list[Sample], crowded: list[Sample]
) -> None:
    """Print the figures."""
    moments["middle"], moments["end"] = crowded[len(crowded) // 2], crowded[-1]
    for name in ("start", "alone", "middle", "end", "after"):
        one = moments[name]
        print(f"{name:>7}: {one.memory:6.1f} MB, {one.files} files, {one.threads} threads")
    without = statistics.mean(one.frames for one in alone)
    with_them = statistics.mean(one.frames for one in crowded)
    print(f"recognised: {without:.2f} frames/s without watchers, {with_them:.2f} with {WATCHERS}", end="")
    print(f", {with_them / without:.2f} of it")
    print(f"watched: {[round(count / seconds, 2) for count in load.pictures]} pictures/s")
    times = sorted(load.milliseconds)
    print(f"requests: {len(times)}, {len(times) / seconds:.1f}/s, {len(load.errors)} errors", end="")
    print(f", median {times[len(times) // 2]:.0f} ms, 95% within {times[int(0.95 * len(times))]:.0f} ms")


def main() -> int:
    """Parse, soak, tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--minutes", type=float, default=15.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        problems = soak(arguments.model, arguments.minutes, Path(folder))
    for problem in problems:
        print(f"PROBLEM: {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
