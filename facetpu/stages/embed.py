"""embed: the embeddings of a folder of crops in one file, to be measured again without the model."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..artefacts import check_new
from ..engines import Engine
from ..evaluation.embedders import find_source
from ..evaluation.embeddings import Embeddings, embed_crops, write_embeddings
from ..people import photos_under


class Embedded(NamedTuple):
    """A file of embeddings."""

    path: Path
    crops: int
    embedding_dim: int

    def __str__(self) -> str:
        return f"{self.path}: {self.crops:,} embeddings of {self.embedding_dim} numbers"


def embed(
    model: Path,
    crops: Path,
    out: Path,
    flip: bool = False,
    overwrite: bool = False,
    engine: Engine | None = None,
) -> Embedded:
    """Write the embeddings of every crop under ``crops`` to the .npz ``out``.

    Args:
        model: as for ``evaluate``.
        crops: a folder of crops, with or without a folder for each person.
        out: the file; its arrays are ``crops``, the paths below the folder, and ``embeddings``, float32
            [N,D], L2-normalised.
        flip: average with the embedding of the mirrored crop.
        overwrite: replace ``out``.
        engine: what runs the model; this process unless given.

    Raises:
        FacetpuError: the model is none or broken, or a crop has another size or cannot be read.
    """
    source = find_source(model)
    files = [Path(crop.relative_to(crops).as_posix()) for crop in photos_under(crops)]
    check_new(out, overwrite)
    rows = embed_crops(source, crops, files, flip, engine)
    write_embeddings(out, Embeddings([file.as_posix() for file in files], rows), overwrite)
    return Embedded(out, len(files), rows.shape[1])
