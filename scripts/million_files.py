"""Peak memory of aligning very many files: hard links of one tiny photo, so that a million take minutes.

    python scripts/million_files.py WORK --photos 1000000

The photo has no face, so all names end up in the manifest's list: the worst case. With ``--faces`` a
stand-in gives every photo one face without looking, so that the tables and the search for copies are full.
Printed is the peak of the process that the user starts; the workers' own does not depend on the folder.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from facetpu.alignment.journal import Entry, Journal
from facetpu.stages import align as stage

LINKS = 50_000  # of one file: ext4 allows 65,000


def one_face(entry: Entry) -> tuple[str, dict[str, Any]]:
    """Stands in for the detector: a face at a fixed place, with a fingerprint of its own."""
    rng = np.random.default_rng(list(entry.photo.encode()))
    return entry.photo, {"seen": 1, "faces": [[1.5] * 15 + [0.0, 0.9, 120.0, 50.0, 0.1, rng.bytes(32).hex()]]}


def link(folder: Path, photos: int) -> None:
    """``photos`` hard links, a thousand a person."""
    for number in range(photos):
        person = folder / f"person {number // 1000:06d}"
        if number % 1000 == 0:
            person.mkdir(parents=True)
        if number % LINKS == 0:
            source = person / f"photo {number:09d}.png"
            Image.new("RGB", (24, 24)).save(source)
        else:
            os.link(source, person / f"photo {number:09d}.png")


def peak() -> str:
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("work", type=Path, help="an empty folder to work in")
    parser.add_argument("--photos", type=int, default=1_000_000)
    parser.add_argument("--faces", action="store_true")
    arguments = parser.parse_args()
    link(arguments.work / "photos", arguments.photos)
    print(f"at the start: {peak()}", flush=True)
    begin = time.monotonic()
    with Journal.of(arguments.work / "photos") as listing:
        print(f"{listing.count():,} photos listed in {time.monotonic() - begin:.0f} s: {peak()}", flush=True)
    if arguments.faces:
        stage._align_photo = one_face
    result = stage.align(arguments.work / "photos", arguments.work / "crops")
    print(f"{result.photos:,} photos, {result.faces:,} faces in {time.monotonic() - begin:.0f} s: {peak()}")


if __name__ == "__main__":
    main()
