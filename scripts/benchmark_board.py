"""How long a board takes to enrol and to open a gallery, embeddings given.

Run: python scripts/benchmark_board.py

Enrolling is all that imprint does once the faces are embedded: checks, threshold, rows, files. The floor in
the same run is what cannot be saved: the disk's time for as many bytes, written and synced, or read.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from facetpu.artefacts import write_bytes
from facetpu.board.checks import copies, likeness_faults
from facetpu.board.folder import ModelFolder
from facetpu.board.gallery import Gallery, empty_gallery, normalised, read_gallery
from facetpu.board.recogniser import base_digest, imprinted, read_known, write_known
from facetpu.board.threshold import Cohort, gallery_threshold
from facetpu.tflite.build import Builder
from facetpu.tflite.concat import join_models
from facetpu.tflite.head import build_head
from facetpu.tflite.schema import new

DIM = 128
ALIGNMENT: dict[str, object] = {"template": "arcface", "size": 112, "margin": 44}


def small_base() -> bytes:
    """A base as small as can be, since none of its time is measured: the mean of a crop, widened."""
    net = Builder()
    image = net.input("input", [1, 112, 112, 3], np.uint8, 1 / 128, 128)
    mean = net.activation("mean", [1, 1, 1, 3], np.uint8, 1 / 128, 128)
    axes = net.constant("axes", np.array([1, 2], np.int32))
    net.op("MEAN", [image, axes], [mean], new("ReducerOptions", keep_dims=True))
    kernel = net.constant("kernel", np.full((DIM, 1, 1, 3), 129, np.uint8), 1 / 128, 128)
    bias = net.constant("bias", np.zeros(DIM, np.int32), 1 / 128 / 128)
    out = net.activation("embedding", [1, 1, 1, DIM], np.uint8, 1 / 128, 128)
    net.op("CONV_2D", [mean, kernel, bias], [out], new("Conv2DOptions", padding=1, stride_w=1, stride_h=1))
    return net.finish([out])


def faces_of(people: int, photos: int, seed: int = 0) -> Gallery:
    """``photos`` faces of each of ``people``, spread about a direction of their own, in no gallery yet."""
    rng = np.random.default_rng(seed)
    centres = normalised(rng.normal(size=(people, DIM)))
    person = np.repeat(np.arange(people), photos).astype(np.int32)
    embeddings = normalised(centres[person] + 0.06 * rng.normal(size=(len(person), DIM)))
    return empty_gallery(DIM, "0" * 64, ALIGNMENT)._replace(
        people=[f"person {index}" for index in range(people)],
        person=person,
        embeddings=embeddings,
        imprints=np.round(embeddings * 128) / np.float32(128),
        photos=[f"{index:064x}" for index in range(len(person))],
        prints=[int.from_bytes(rng.bytes(32), "big") for _ in person],
    )


def enrol(source: ModelFolder, out: Path, known: Gallery, faces: Gallery, cohort: Cohort) -> Gallery:
    """What ``imprint`` does with faces that are embedded."""
    copies(faces.prints, known.prints)
    gallery = known.joined(faces)
    new_photos = np.arange(len(known.photos), len(gallery.photos))
    found = gallery_threshold(gallery, cohort, 0.01, None)
    likeness_faults(gallery, new_photos, found.cosine, cohort)
    gallery = gallery._replace(threshold=gallery_threshold(gallery, cohort, 0.01, None).cosine)
    out.mkdir()
    write_known(out, source, gallery, cohort)
    return gallery


def timed(work: Callable[[], object], repeats: int) -> float:
    """The median of seconds."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def written(folder: Path, out: Path) -> None:
    """The floor: as many files with as many bytes."""
    out.mkdir()
    for path in folder.iterdir():
        write_bytes(out / path.name, path.read_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    base = small_base()
    model = join_models(base, build_head(normalised(np.eye(2, DIM)), 10.0, 1 / 128, 128))
    rng = np.random.default_rng(1)
    cohort = Cohort(normalised(rng.normal(size=(1000, DIM))), np.arange(1000, dtype=np.int32))
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as scratch:
        root = Path(scratch)
        (root / "model").mkdir()
        (root / "model" / "model.tflite").write_bytes(model)
        (root / "model" / "base.tflite").write_bytes(base)
        source = ModelFolder.find(root / "model")
        known, faces = empty_gallery(DIM, "0" * 64, ALIGNMENT), faces_of(1000, 5)
        numbers = iter(range(10_000))
        seconds = timed(lambda: enrol(source, root / f"out{next(numbers)}", known, faces, cohort), repeats)
        floor = timed(lambda: written(root / "out0", root / f"copy{next(numbers)}"), repeats)
        rows = timed(lambda: imprinted(model, faces), repeats)
        print(
            f"enrol 1,000 people x 5 embeddings: {seconds:.3f} s; "
            f"rows alone {rows:.3f} s; the files {floor:.3f} s"
        )

        (root / "many").mkdir()
        many = faces_of(10_000, 5)._replace(base=base_digest(source))
        write_known(root / "many", source, many, cohort)
        write_bytes(root / "many" / "base.tflite", base)
        path = root / "many" / "gallery.npz"
        seconds = timed(lambda: read_gallery(path), repeats)
        floor = timed(path.read_bytes, repeats)
        size = path.stat().st_size / 1e6
        print(
            f"open the gallery of 10,000 people x 5 ({size:.0f} MB): {seconds:.3f} s; "
            f"reading it {floor:.3f} s"
        )
        found = ModelFolder.find(root / "many")
        seconds = timed(lambda: read_known(found), repeats)
        print(f"the same, with model and labels checked against it: {seconds:.3f} s")


if __name__ == "__main__":
    main()
