"""Embeddings of crops by any model of the pipeline, and the file that keeps them for another time."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..artefacts import check_shared, new_file
from ..board.interpreter import is_compiled
from ..engines import Engine
from ..engines.local import ThisProcess
from ..errors import FacetpuError
from ..image import read_image
from ..metrics import unit
from ..progress import progress
from ..storage import absolute
from .embedders import EMBEDDINGS, Embedder, Source, open_embedder

BATCH = 64  # crops
READERS = 8  # threads that read them: from a bucket they take their time


class Embeddings(NamedTuple):
    """Embeddings by the crop they are of.

    Attributes:
        crops: paths below the crops' folder, with forward slashes.
        rows: float32 [N,D], L2-normalised.
    """

    crops: list[str]
    rows: np.ndarray


def embed_crops(
    source: Source, root: Path, crops: Sequence[Path], flip: bool = False, engine: Engine | None = None
) -> np.ndarray:
    """The embeddings of ``crops``, paths below ``root``.

    Args:
        source: the model, or a file of its embeddings.
        root: the crops' folder.
        crops: N paths.
        flip: add the embedding of the mirrored crop, which makes it less a matter of pose and light.
        engine: what runs the model; this process unless given.

    Returns:
        float32 [N,D], L2-normalised.

    Raises:
        FacetpuError: the model cannot be opened or is broken, a crop cannot be read or has another size
            than the model takes, or the file lacks a crop.
    """
    where = str(source.path)
    if source.kind == EMBEDDINGS:
        if flip:
            raise FacetpuError(
                f"{where}: holds embeddings and no photos to mirror; make it with facetpu embed --flip"
            )
        return unit(_looked_up(source.path, crops), where)
    if engine is None:
        engine = ThisProcess()
    else:
        _check_movable(source)
        source, root = source._replace(path=absolute(source.path)), absolute(root)
    # The same batches on every engine: a float graph's last bits may depend on how many crops it is given.
    batches = [_Batch(start, crops[start : start + BATCH]) for start in range(0, len(crops), BATCH)]
    answers = engine.each(_embed_batch, batches, _start_worker, (source, root, flip))
    shown = progress(answers, "embed", len(batches), unit="batch", note=engine.status)
    parts = dict(shown)
    straight, mirrored = zip(*(parts[batch.start] for batch in batches), strict=True)
    rows = unit(np.concatenate(straight), where)
    return unit(rows + unit(np.concatenate(mirrored), where), where) if flip else rows


def _check_movable(source: Source) -> None:
    if source.kind == "tflite" and is_compiled(source.path.read_bytes()):
        raise FacetpuError(
            f"{source.path}: is for this machine's Edge TPU; give --engine ray the uncompiled one"
        )


def read_embeddings(path: Path) -> Embeddings:
    """The embeddings in ``path``, as ``write_embeddings`` or any other program wrote them.

    Raises:
        FacetpuError: it is damaged, or is no such file.
    """
    advice = "it needs 'crops', names as PERSON/PHOTO.png, and 'embeddings', a row each"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names, rows = arrays["crops"], np.asarray(arrays["embeddings"], np.float32)
    except FileNotFoundError:
        raise FacetpuError(f"{path}: no such file") from None
    except (OSError, ValueError, KeyError, EOFError):
        raise FacetpuError(f"{path}: is no file of embeddings; {advice}") from None
    if names.ndim != 1 or names.dtype.kind != "U" or rows.ndim != 2 or len(rows) != len(names):
        raise FacetpuError(f"{path}: holds {names.shape} names and {rows.shape} embeddings; {advice}")
    return Embeddings(names.tolist(), rows)


def write_embeddings(path: Path, embeddings: Embeddings, overwrite: bool = False) -> None:
    """Write ``embeddings`` to the .npz ``path``, whole or not at all; only its owner may read it."""
    with new_file(path, overwrite, mode=0o600) as temporary, open(temporary, "wb") as file:
        np.savez(file, crops=np.array(embeddings.crops, str), embeddings=embeddings.rows)


def _looked_up(path: Path, crops: Sequence[Path]) -> np.ndarray:
    known = read_embeddings(path)
    row = {name: number for number, name in enumerate(known.crops)}
    missing = [crop.as_posix() for crop in crops if crop.as_posix() not in row]
    if missing:
        raise FacetpuError(
            f"{path}: lacks {len(missing)} of {len(crops)} crops, {missing[0]} first; embed them again"
        )
    return known.rows[[row[crop.as_posix()] for crop in crops]]


# The workers


class _Batch(NamedTuple):
    """Crops to embed together, the first of which is number ``start`` of all."""

    start: int
    crops: Sequence[Path]


_embedder: Embedder  # in a worker
_root: Path
_flip: bool


def _start_worker(source: Source, root: Path, flip: bool) -> None:
    """Open the model once.

    Raises:
        FacetpuError: it is damaged, or it or the crops cannot be seen from where this runs.
    """
    global _embedder, _root, _flip
    check_shared(root, source.path.parent)
    _embedder, _root, _flip = open_embedder(source), root, flip


def _embed_batch(batch: _Batch) -> tuple[int, tuple[np.ndarray, np.ndarray | None]]:
    """The batch's number, and its rows as the model gives them: of the crops, and of their mirror images."""
    with ThreadPoolExecutor(READERS) as readers:
        pixels = np.stack(list(readers.map(_read_crop, batch.crops)))
    mirrored = _embedder.embed(np.ascontiguousarray(pixels[:, :, ::-1])) if _flip else None
    return batch.start, (_embedder.embed(pixels), mirrored)


def _read_crop(crop: Path) -> np.ndarray:
    path, size = _root / crop, _embedder.size
    pixels = read_image(path)
    if pixels.shape != (size, size, 3):
        height, width = pixels.shape[:2]
        raise FacetpuError(
            f"{path}: is {width}x{height} px and the model takes {size}x{size}; align with --size {size}"
        )
    return pixels
