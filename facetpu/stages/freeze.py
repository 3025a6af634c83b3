"""Run -> frozen graph: constants only, the embedding before its L2 norm, the head beside it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..artefacts import check_new, digest, finished, new_folder, read_manifest, write_manifest
from ..config import read_config
from ..errors import FacetpuError
from ..labels import read_labels, write_labels
from ..nets.checkpoint import chosen_checkpoint
from ..nets.graph import freeze_checkpoint
from ..people import check_folder

log = logging.getLogger(__name__)


class FreezeResult(NamedTuple):
    """Where the frozen graph is, and its shape."""

    out: Path
    step: int  # of the checkpoint
    image_size: int
    embedding_dim: int
    people: int

    def __str__(self) -> str:
        return (
            f"{self.out}: step {self.step}, {self.image_size} px -> embedding of {self.embedding_dim}, "
            f"head of {self.people} people"
        )


class Checkpoint(NamedTuple):
    """A checkpoint of a run, and what a graph frozen from it depends on."""

    prefix: str
    inputs: dict[str, str]


def freeze(run: Path, out: Path, overwrite: bool = False) -> FreezeResult:
    """Freeze the newest checkpoint of ``run``, or the best where that was kept.

    Args:
        run: a folder of ``facetpu train``.
        out: the folder to write: ``frozen.pb`` (``input``, RGB 0 to 255, ``[1, S, S, 3]`` ->
            ``embedding`` ``[1, 1, 1, D]``), ``head.npz`` (``kernel`` ``[N, D]``, ``scale``),
            ``labels.txt``, ``manifest.json``.
        overwrite: replace ``out``.

    Raises:
        FacetpuError: ``run`` is no run, has no checkpoint, or its checkpoint is of another network.
    """
    run, out = Path(run), Path(out)
    checkpoint = find_checkpoint(run)
    done = finished(out, "freeze", {}, checkpoint.inputs)
    if done:
        log.info("%s: is up to date", out)
        return _result(out, done)
    check_new(out, overwrite)

    config, labels = read_config(run / "config.yaml"), read_labels(run / "labels.txt")
    frozen = freeze_checkpoint(checkpoint.prefix, config, len(labels))
    assert frozen.kernel is not None
    with new_folder(out, overwrite) as folder:
        (folder / "frozen.pb").write_bytes(frozen.graph.SerializeToString(deterministic=True))
        np.savez(folder / "head.npz", kernel=frozen.kernel, scale=np.float32(frozen.scale))
        write_labels(folder / "labels.txt", labels)
        write_manifest(
            folder,
            "freeze",
            {},
            checkpoint.inputs,
            alignment=read_manifest(run)["alignment"],
            step=int(checkpoint.prefix.rpartition("-")[2]),
            image_size=frozen.image_size,
            embedding_dim=frozen.embedding_dim,
            people=len(labels),
        )
    return _result(out, read_manifest(out))


def find_checkpoint(run: Path) -> Checkpoint:
    """The newest checkpoint of ``run``, or the best where that was kept.

    Raises:
        FacetpuError: ``run`` is no run, or has no checkpoint.
    """
    check_folder(run)
    if read_manifest(run).get("stage") != "train":
        raise FacetpuError(f"{run}: is no run of facetpu train; give the folder that train wrote")
    prefix = chosen_checkpoint(run)
    if prefix is None:
        raise FacetpuError(f"{run / 'checkpoints'}: holds no checkpoint yet; let the training reach one")
    files = {"checkpoint": Path(f"{prefix}.index")}
    files.update({name: run / name for name in ("config.yaml", "labels.txt")})
    return Checkpoint(prefix, {name: digest(path) for name, path in files.items()})


def _result(out: Path, manifest: dict[str, Any]) -> FreezeResult:
    return FreezeResult(
        out,
        manifest["step"],
        manifest["image_size"],
        manifest["embedding_dim"],
        manifest["people"],
    )
