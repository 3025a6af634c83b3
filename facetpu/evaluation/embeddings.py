"""Embeddings of crops by any model of the pipeline, and the file that keeps them for another time."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..artefacts import new_file
from ..errors import FacetpuError
from ..image import read_image
from ..metrics import unit
from ..progress import progress
from .embedders import EMBEDDINGS, Source, open_embedder

BATCH = 64


class Embeddings(NamedTuple):
    """Embeddings by the crop they are of.

    Attributes:
        crops: paths below the crops' folder, with forward slashes.
        rows: float32 [N,D], L2-normalised.
    """

    crops: list[str]
    rows: np.ndarray


def embed_crops(source: Source, root: Path, crops: Sequence[Path], flip: bool = False) -> np.ndarray:
    """The embeddings of ``crops``, paths below ``root``.

    Args:
        source: the model, or a file of its embeddings.
        root: the crops' folder.
        crops: N paths.
        flip: add the embedding of the mirrored crop, which makes it less a matter of pose and light.

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
    embedder = open_embedder(source)
    straight, mirrored = [], []
    with ThreadPoolExecutor(1) as ahead:  # reads the next batch while the model has this one

        def read(start: int) -> np.ndarray:
            batch = crops[start : start + BATCH]
            return np.stack([_read_crop(root / crop, embedder.size) for crop in batch])

        following = ahead.submit(read, 0)
        for start in progress(range(0, len(crops), BATCH), "embed", unit="batch"):
            pixels = following.result()
            if start + BATCH < len(crops):
                following = ahead.submit(read, start + BATCH)
            straight.append(embedder.embed(pixels))
            if flip:
                mirrored.append(embedder.embed(np.ascontiguousarray(pixels[:, :, ::-1])))
    rows = unit(np.concatenate(straight), where)
    return unit(rows + unit(np.concatenate(mirrored), where), where) if flip else rows


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


def _read_crop(path: Path, size: int) -> np.ndarray:
    crop = read_image(path)
    if crop.shape != (size, size, 3):
        height, width = crop.shape[:2]
        raise FacetpuError(
            f"{path}: is {width}x{height} px and the model takes {size}x{size}; align with --size {size}"
        )
    return crop
