"""Run, or any face embedder -> frozen graph: constants only, the embedding before its L2 norm, its head."""

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
from ..nets.fake_quant import QUANTIZABLE
from ..nets.graph import Frozen, freeze_checkpoint
from ..people import check_folder
from ..sources.embedder import files_of, read_embedder
from ..sources.reading import Settings

log = logging.getLogger(__name__)


class FreezeResult(NamedTuple):
    """Where the frozen graph is, and what is known of it."""

    out: Path
    kind: str  # of the source
    step: int | None  # of a run's checkpoint
    image_size: int
    embedding_dim: int
    people: int  # in its head
    normalisation: str
    parity: float | None  # of a rebuilt network: how far from its own runtime, in an embedding of length 1

    def __str__(self) -> str:
        step = "" if self.step is None else f"step {self.step}, "
        head = f"head of {self.people} people" if self.people else "no head"
        lines = [
            f"{self.out}: {step}{self.image_size} px -> embedding of {self.embedding_dim}, {head}",
            f"  the network is given {self.normalisation}",
        ]
        if self.parity is not None:
            lines.append(f"  rebuilt: embeddings within {self.parity:.0e} of those by the file's own runtime")
        return "\n".join(lines)


class Checkpoint(NamedTuple):
    """A checkpoint of a run, and what a graph frozen from it depends on."""

    prefix: str
    inputs: dict[str, str]


def freeze(
    source: Path, out: Path, settings: Settings | None = None, overwrite: bool = False
) -> FreezeResult:
    """Freeze the newest checkpoint of a run, the best where that was kept, or any other face embedder.

    Args:
        source: a folder of ``facetpu train``; or of another maker a frozen graph (.pb), a SavedModel, a
            slim checkpoint, an .onnx, .keras, .h5 or float .tflite.
        out: the folder to write: ``frozen.pb`` (``input``, RGB 0 to 255, ``[1, S, S, 3]`` ->
            ``embedding`` ``[1, 1, 1, D]``), ``manifest.json``; where the network has a head of people also
            ``head.npz`` (``kernel`` ``[N, D]``, ``scale``) and ``labels.txt``.
        settings: how to read another maker's model.
        overwrite: replace ``out``.

    Raises:
        FacetpuError: ``source`` is no such thing, has no checkpoint, its checkpoint is of another network,
            or it has an op that facetpu does not rebuild.
    """
    source, out, settings = Path(source), Path(out), settings or Settings()
    inputs = source_digests(source, settings)
    config = settings._replace(config=None)._asdict()  # the file's digest is among the inputs
    done = finished(out, "freeze", config, inputs)
    if done:
        log.info("%s: is up to date", out)
        return _result(out, done)
    check_new(out, overwrite)

    frozen, labels, facts = _read_run(source) if is_run(source) else _read_foreign(source, settings)
    with new_folder(out, overwrite) as folder:
        (folder / "frozen.pb").write_bytes(frozen.graph.SerializeToString(deterministic=True))
        if frozen.kernel is not None:
            np.savez(folder / "head.npz", kernel=frozen.kernel, scale=np.float32(frozen.scale))
            write_labels(folder / "labels.txt", labels)
        write_manifest(
            folder,
            "freeze",
            config,
            inputs,
            image_size=frozen.image_size,
            embedding_dim=frozen.embedding_dim,
            people=len(labels),
            **facts,
        )
    return _result(out, read_manifest(out))


def is_run(source: Path) -> bool:
    """Whether ``source`` is a folder of ``facetpu train``."""
    return read_manifest(source).get("stage") == "train"


def source_digests(source: Path, settings: Settings) -> dict[str, str]:
    """What a graph frozen from ``source`` depends on.

    Raises:
        FacetpuError: there is nothing there that can be frozen.
    """
    if is_run(source):
        if settings != Settings():
            raise FacetpuError(
                f"{source}: is a run and says itself how it is to be read; leave out --mean, --std, "
                "--channels, --size, --input, --output and --config"
            )
        return find_checkpoint(source).inputs
    return {name: digest(path) for name, path in files_of(source, settings).items()}


def find_checkpoint(run: Path) -> Checkpoint:
    """The newest checkpoint of ``run``, or the best where that was kept.

    Raises:
        FacetpuError: ``run`` is no run, or has no checkpoint.
    """
    check_folder(run)
    prefix = chosen_checkpoint(run)
    if prefix is None:
        raise FacetpuError(f"{run / 'checkpoints'}: holds no checkpoint yet; let the training reach one")
    files = {"checkpoint": Path(f"{prefix}.index")}
    files.update({name: run / name for name in ("config.yaml", "labels.txt")})
    return Checkpoint(prefix, {name: digest(path) for name, path in files.items()})


def _read_run(run: Path) -> tuple[Frozen, list[str], dict[str, Any]]:
    """The network, its head's people, and what the manifest says of it."""
    prefix, labels = find_checkpoint(run).prefix, read_labels(run / "labels.txt")
    config = read_config(run / "config.yaml")
    frozen = freeze_checkpoint(prefix, config, len(labels))
    facts = {
        "alignment": read_manifest(run)["alignment"],
        "kind": "run",
        "quantizable": config.network.name in QUANTIZABLE,
        "step": int(prefix.rpartition("-")[2]),
        "normalisation": "RGB, (pixel - 128) / 128",
        "parity": None,
    }
    return frozen, labels, facts


def _read_foreign(source: Path, settings: Settings) -> tuple[Frozen, list[str], dict[str, Any]]:
    """The same of another maker's; how its crops were aligned is not known, nor who is in its head."""
    facts = read_embedder(source, settings)._asdict()
    frozen = facts.pop("frozen")
    rows = 0 if frozen.kernel is None else len(frozen.kernel)
    labels = [f"class {row}" for row in range(rows)]
    return frozen, labels, {"alignment": None, "step": None, **facts}


def _result(out: Path, manifest: dict[str, Any]) -> FreezeResult:
    return FreezeResult(out, *(manifest[field] for field in FreezeResult._fields[1:]))
