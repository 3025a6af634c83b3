"""How fast photos are aligned: davidsandberg/facenet's detector, PyPI's mtcnn and facetpu, side by side.

    scripts/benchmark_alignment.py --photos lfw [--reference facenet/src/align] [--count 200] [--rounds 5]

Each implementation has a process of its own, one thread, and all share one core. They take turns, a
round of the same photos each, so what else the machine does hits all alike; a figure is the median over
the rounds, in CPU seconds. Detection is of photos that lie decoded in memory: smallest face 20 px,
thresholds 0.6 0.7 0.7, factor 0.709. End to end is from the photo's file to the file of a crop as the
reference's align_dataset_mtcnn.py makes them: main face, margin 44, 182 px, PNG; facetpu's also as JPEG.

``--reference`` is the folder of the unchanged detect_face.py and its det1.npy, det2.npy, det3.npy.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import importlib.metadata
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
os.environ.update({"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"})

import numpy as np
from PIL import Image

from facetpu.image import Face, align_face, margin_box, one_thread, read_image, write_crop
from facetpu.mtcnn.detector import Detector, main_face
from facetpu.mtcnn.weights import write_networks

MIN_FACE, THRESHOLDS, FACTOR = 20, (0.6, 0.7, 0.7), 0.709
SIZE, MARGIN = 182, 44
LIST = 20  # photos that PyPI's mtcnn takes at once: four times as fast as one by one
WARM_UP = 5  # photos
PACKAGES = ("numpy", "opencv-python", "pillow", "tensorflow", "mtcnn", "ai-edge-litert", "tflite-runtime")
MFLOP = 496  # of the three networks for one photo of LFW, as its candidates go

Detect = Callable[[list[np.ndarray]], list[list[Face]]]


def facetpu(drop_levels: int) -> Detect:
    folder = tempfile.TemporaryDirectory()  # as long as the detector, which opens networks when it needs them
    write_networks(Path(folder.name))
    detector = Detector(Path(folder.name), MIN_FACE, drop_levels)

    def detect(images: list[np.ndarray], folder: object = folder) -> list[list[Face]]:
        return [detector.detect(image) for image in images]

    return detect


def reference(folder: str) -> Detect:
    """The reference, which is of 2016, on today's TensorFlow and NumPy."""
    tf = importlib.import_module("tensorflow").compat.v1
    tf.disable_v2_behavior()
    sys.modules["tensorflow"] = tf
    load = np.load
    np.load = lambda *args, **options: load(*args, **options, allow_pickle=True)
    sys.path.insert(0, folder)
    module = importlib.import_module("detect_face")
    session = tf.Session(
        config=tf.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
    )
    with session.as_default():
        networks = module.create_mtcnn(session, None)

    def detect(images: list[np.ndarray]) -> list[list[Face]]:
        found = (module.detect_face(i, MIN_FACE, *networks, list(THRESHOLDS), FACTOR)[0] for i in images)
        return [[_face(row[:4], row[4]) for row in boxes] for boxes in found]

    return detect


def pypi_mtcnn() -> Detect:
    tf = importlib.import_module("tensorflow")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    detector = importlib.import_module("mtcnn").MTCNN(device="CPU:0")
    settings = dict(zip(("threshold_pnet", "threshold_rnet", "threshold_onet"), THRESHOLDS, strict=True))
    settings.update(min_face_size=MIN_FACE, scale_factor=FACTOR)

    def detect(images: list[np.ndarray]) -> list[list[Face]]:
        found = []
        for start in range(0, len(images), LIST):
            found += detector.detect_faces(images[start : start + LIST], box_format="xyxy", **settings)
        return [[_face(face["box"], face["confidence"]) for face in faces] for faces in found]

    return detect


def _face(box: Any, score: float) -> Face:
    return Face(tuple(float(side) for side in box), float(score), np.zeros((5, 2)))


def published_crop(photo: Path, image: np.ndarray, face: Face, out: Path) -> None:
    """A crop as align_dataset_mtcnn.py writes it, by Pillow as scipy.misc did."""
    x1, y1, x2, y2 = margin_box(face.box, MARGIN, image.shape)
    crop = Image.fromarray(image[y1:y2, x1:x2]).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    crop.save(out / f"{photo.stem}.png")


def facetpu_crop(photo: Path, image: np.ndarray, face: Face, out: Path, suffix: str = ".png") -> None:
    write_crop(out / f"{photo.stem}{suffix}", align_face(image, face, "box", SIZE, MARGIN))


facetpu_jpeg = functools.partial(facetpu_crop, suffix=".jpg")


def published_read(photo: Path) -> np.ndarray:
    return np.asarray(Image.open(photo).convert("RGB"))


# Name -> what makes the detector, with its arguments; how photos are read; how crops are written.
CONTENDERS: dict[str, tuple[Any, ...]] = {
    "detect_face.py": (reference, published_read, published_crop),
    "PyPI mtcnn": (pypi_mtcnn, published_read, published_crop),
    "facetpu": (facetpu, read_image, facetpu_crop),
    "facetpu --format jpeg": (facetpu, read_image, facetpu_jpeg),
    "facetpu --drop-levels 2": (facetpu, read_image, facetpu_crop),
    "facetpu --drop-levels 2 --format jpeg": (facetpu, read_image, facetpu_jpeg),
}


def contend(pipe: Connection, name: str, arguments: tuple[Any, ...], core: int) -> None:
    """A process: answers each list of photos with the CPU seconds for detection, and end to end."""
    os.sched_setaffinity(0, {core})
    one_thread()
    make, read, write = CONTENDERS[name]
    detect = make(*arguments)
    with tempfile.TemporaryDirectory() as out:
        pipe.send(None)
        while True:
            photos = pipe.recv()
            if photos is None:
                return
            images = [read(photo) for photo in photos]
            start = time.process_time()
            detect(images)
            detection = time.process_time() - start
            start = time.process_time()
            for batch in range(0, len(photos), LIST):
                some = photos[batch : batch + LIST]
                images = [read(photo) for photo in some]
                for photo, image, faces in zip(some, images, detect(images), strict=True):
                    if faces:
                        write(photo, image, main_face(faces, image.shape), Path(out))
            pipe.send((detection, time.process_time() - start))


def race(
    entries: dict[str, tuple[Any, ...]], rounds: list[list[Path]], core: int
) -> dict[str, tuple[float, float]]:
    """Name -> photos a second of detection, and end to end: medians over the rounds."""
    context = multiprocessing.get_context("spawn")
    pipes, rates = {}, {name: [] for name in entries}
    processes = []
    for name, arguments in entries.items():
        pipes[name], end = context.Pipe()
        processes.append(context.Process(target=contend, args=(end, name, arguments, core), daemon=True))
        processes[-1].start()
        end.close()
        pipes[name].recv()
    for photos in [rounds[0][:WARM_UP], *rounds]:
        for name, pipe in pipes.items():
            pipe.send(photos)
            seconds = pipe.recv()
            if len(photos) > WARM_UP:
                rates[name].append([len(photos) / each for each in seconds])
        print(".", end="", flush=True, file=sys.stderr)
    for pipe, process in zip(pipes.values(), processes, strict=True):
        pipe.send(None)
        process.join()
    print(file=sys.stderr)
    return {name: tuple(map(statistics.median, zip(*some, strict=True))) for name, some in rates.items()}


def floor(core: int) -> float:
    """Photos a second if the networks were one matrix product and all else took no time."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    matrix = np.random.default_rng(0).random((512, 512), np.float32)
    best = float("inf")
    for _ in range(30):
        start = time.process_time()
        for _ in range(5):
            matrix @ matrix
        best = min(best, (time.process_time() - start) / 5)
    os.sched_setaffinity(0, before)
    return 2 * 512**3 / best / (MFLOP * 1e6)


def machine() -> str:
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), cpu)
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return f"{cpu}, Python {platform.python_version()}, {', '.join(versions)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--photos", type=Path, required=True, help="a folder; its first .jpg are taken")
    parser.add_argument("--reference", help="the folder of detect_face.py; left out without it")
    parser.add_argument("--count", type=int, default=200, help="photos")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    options = parser.parse_args()
    photos = sorted(options.photos.rglob("*.jpg"))[: options.count]
    size = len(photos) // options.rounds
    if size <= WARM_UP:
        parser.error(f"{options.photos}: {len(photos)} photos are too few for {options.rounds} rounds")
    rounds = [photos[index * size : (index + 1) * size] for index in range(options.rounds)]

    entries: dict[str, tuple[Any, ...]] = {}
    if options.reference:
        entries["detect_face.py"] = (options.reference,)
    if importlib.util.find_spec("mtcnn"):
        entries["PyPI mtcnn"] = ()
    for name in CONTENDERS:
        if name.startswith("facetpu"):
            entries[name] = (2 if "--drop-levels 2" in name else 0,)
    rates = race(entries, rounds, options.core)

    first = next(iter(rates))
    print(f"{machine()}; {size * options.rounds} photos in {options.rounds} rounds on core {options.core}\n")
    print(f"| photos a second and core | detection | to {first} | end to end | to {first} |")
    print("|---|---|---|---|---|")
    for name, (detection, whole) in rates.items():
        ratios = [
            f"{ours / theirs:.2f}" for ours, theirs in zip((detection, whole), rates[first], strict=True)
        ]
        print(f"| {name} | {detection:.1f} | {ratios[0]} | {whole:.1f} | {ratios[1]} |")
    print(f"| floor: the networks' {MFLOP} MFLOP at NumPy's sgemm rate | {floor(options.core):.0f} | | | |")


if __name__ == "__main__":
    main()
