"""A trained embedder to learn from: its embeddings of every training photo, made once and kept.

They lie beside the records, under the digest of the teacher and of how its pixels are scaled. A live
teacher sees the very picture that the student sees too, at the cost of its own work in every step; of what
was kept it takes the mean alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..artefacts import digest, new_file
from ..config import Teacher
from ..errors import FacetpuError
from ..evaluation.embedders import find_source, open_embedder
from ..nets.tensorflow import tf
from ..progress import progress
from .records import Records, all_photos

log = logging.getLogger(__name__)

BATCH = 64


class Network(NamedTuple):
    """What the teacher's network takes and gives."""

    size: int
    embed: Callable[[np.ndarray], np.ndarray]  # uint8 [N, size, size, 3] RGB -> float32 [N, D]


class Targets(NamedTuple):
    """The teacher's embeddings of the training photos.

    Attributes:
        embeddings: float32 [n, 2, D], unit rows: as they are, and mirrored.
        mean: float32 [D], taken from each before it is compared; zero where they are not centred.
        live: the teacher itself, to ask about every picture; None to go by ``embeddings``.
    """

    embeddings: np.ndarray
    mean: np.ndarray
    live: Network | None = None

    @property
    def dim(self) -> int:
        """Numbers in an embedding."""
        return int(self.embeddings.shape[2])

    def of(self, pixels: np.ndarray, rows: np.ndarray, flipped: np.ndarray) -> np.ndarray:
        """What is to be learnt from a batch.

        Args:
            pixels: float32 [B, S, S, 3], the pictures as the student sees them, 0 to 255.
            rows: int64 [B], the photos that they were made of.
            flipped: bool [B], whether they are mirrored.

        Returns:
            float32 [B, D], unit rows.
        """
        if self.live is None:
            chosen = self.embeddings[rows, flipped.astype(int)]
        else:
            chosen = self.live.embed(_crops(pixels, self.live.size))
            chosen = chosen / np.linalg.norm(chosen, axis=1, keepdims=True)
        chosen = chosen - self.mean
        return np.asarray(chosen / np.linalg.norm(chosen, axis=1, keepdims=True), np.float32)


def read_targets(teacher: Teacher, records: Records) -> Targets:
    """The embeddings of ``teacher`` on the training photos of ``records``, kept beside them.

    Raises:
        FacetpuError: the teacher is missing, cannot be run, or is no embedder.
    """
    path = records.folder / f".teacher-{teacher_key(teacher)}.npy"
    if path.is_file():
        embeddings = np.load(path, mmap_mode="r")
        if len(embeddings) == records.photos:
            log.info("%s: the teacher's embeddings are there already", path)
            return _targets(embeddings, teacher, open_teacher(teacher) if teacher.live else None)
    network = open_teacher(teacher)
    if network.size != records.image_size:
        log.info(
            "%s takes %d px: the records' %d px are resized for it",
            teacher.model, network.size, records.image_size,
        )  # fmt: skip
    batches = all_photos(records, records.train, BATCH)
    total = -(-records.photos // BATCH)
    rows = [_both_ways(network, pixels) for pixels, _ in progress(batches, "teach", total, unit="batch")]
    embeddings = np.concatenate(rows)
    lengths = np.linalg.norm(embeddings, axis=2, keepdims=True)
    if not np.isfinite(embeddings).all() or not lengths.all():
        raise FacetpuError(
            f"{teacher.model}: gives embeddings that are zero or no numbers; check teacher.mean"
        )
    embeddings = embeddings / lengths
    with new_file(path, overwrite=True) as temporary, temporary.open("wb") as file:
        np.save(file, embeddings)
    return _targets(embeddings, teacher, network if teacher.live else None)


def teacher_key(teacher: Teacher) -> str:
    """What the embeddings of ``teacher`` depend on, in 16 characters.

    Raises:
        FacetpuError: there is no such teacher.
    """
    path = Path(teacher.model)
    source = digest(path) if path.suffix == ".onnx" and path.is_file() else find_source(path).digest()
    scaling = json.dumps([source, teacher.mean, teacher.std])
    return hashlib.sha256(scaling.encode()).hexdigest()[:16]


def open_teacher(teacher: Teacher) -> Network:
    """Load ``teacher``: an .onnx, or what ``facetpu evaluate`` takes.

    Raises:
        FacetpuError: it is damaged, no embedder, or nothing here can run it.
    """
    path = Path(teacher.model)
    if path.suffix == ".onnx":
        return _open_onnx(path, teacher)
    embedder = open_embedder(find_source(path))
    return Network(embedder.size, embedder.embed)


def _open_onnx(path: Path, teacher: Teacher) -> Network:
    """By onnxruntime, else by OpenCV."""
    mean, std = np.array(teacher.mean, np.float32), np.array(teacher.std, np.float32)

    def blob(crops: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(((crops.astype(np.float32) - mean) / std).transpose(0, 3, 1, 2))

    run, workers = _onnxruntime(path), os.cpu_count() or 1
    if run is None:
        run, workers = _opencv(path), 1  # its network holds the picture it is given
    pool = ThreadPoolExecutor(workers)

    def embed(crops: np.ndarray) -> np.ndarray:
        return np.concatenate(list(pool.map(run, [blob(crop[None]) for crop in crops])))

    for size in (112, 160, 224, 96, 128):
        try:
            rows = run(blob(np.zeros((1, size, size, 3), np.uint8)))
        except FacetpuError:
            continue
        if rows.ndim == 2 and rows.shape[0] == 1:
            return Network(size, embed)
    raise FacetpuError(f"{path}: is no face embedder: it takes no [1, 3, S, S] and gives no [1, D]")


def _onnxruntime(path: Path) -> Callable[[np.ndarray], np.ndarray] | None:
    try:
        import onnxruntime
    except ImportError:
        return None
    failures = onnxruntime.capi.onnxruntime_pybind11_state
    wrong = (failures.Fail, failures.InvalidGraph, failures.InvalidProtobuf, failures.InvalidArgument)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1  # a thread a picture is faster than several threads on each
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except wrong as error:
        reason = str(error).splitlines()[0]
        raise FacetpuError(f"{path}: onnxruntime cannot read it: {reason}") from None
    name = session.get_inputs()[0].name

    def run(blob: np.ndarray) -> np.ndarray:
        try:
            out = session.run(None, {name: blob})[0]
        except wrong as error:
            raise FacetpuError(f"{path}: {str(error).splitlines()[0]}") from None
        return np.asarray(out).reshape(len(blob), -1)

    return run


def _opencv(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    import cv2

    try:
        network = cv2.dnn.readNetFromONNX(str(path))
    except cv2.error as error:
        raise FacetpuError(f"{path}: OpenCV cannot read it: {error.err}; pip install onnxruntime") from None

    def run(blob: np.ndarray) -> np.ndarray:
        network.setInput(blob)
        try:
            return np.asarray(network.forward()).reshape(len(blob), -1)
        except cv2.error as error:
            raise FacetpuError(f"{path}: OpenCV cannot run it: {error.err}") from None

    return run


def _both_ways(network: Network, pixels: Any) -> np.ndarray:
    """float32 [B, 2, D]: the embeddings of float32 [B, S, S, 3] photos, and of their mirror images."""
    crops = _crops(pixels, network.size)
    return np.stack([network.embed(crops), network.embed(np.ascontiguousarray(crops[:, :, ::-1]))], axis=1)


def _crops(pixels: Any, size: int) -> np.ndarray:
    """float32 [B, S, S, 3] pictures as uint8 [B, size, size, 3]."""
    if pixels.shape[1] != size:
        pixels = tf.image.resize(pixels, [size, size], antialias=True)
    return np.clip(np.round(pixels), 0, 255).astype(np.uint8)


def _targets(embeddings: np.ndarray, teacher: Teacher, live: Network | None) -> Targets:
    dim = embeddings.shape[2]
    mean = embeddings.mean(axis=(0, 1), dtype=np.float64) if teacher.centered else np.zeros(dim)
    return Targets(embeddings, mean.astype(np.float32), live)


def cosine_loss(embedding: Any, targets: Any) -> Any:
    """The mean of 1 - cosine between ``[B, 1, 1, D]`` embeddings and ``[B, D]`` unit targets."""
    unit = tf.nn.l2_normalize(tf.reshape(embedding, [-1, embedding.shape[-1]]), axis=1)
    return tf.reduce_mean(1 - tf.reduce_sum(unit * targets, axis=1))
