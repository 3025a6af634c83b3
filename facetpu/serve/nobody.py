"""A model that knows nobody yet, for people to be enrolled at the camera."""

from __future__ import annotations

from pathlib import Path

from ..artefacts import check_new, new_folder, write_manifest
from ..board.embed import Embedder
from ..board.enrol import write_rest
from ..board.folder import COHORT, GALLERY, MODEL, ModelFolder
from ..board.gallery import empty_gallery
from ..board.recogniser import L2Norm, base_digest, write_known
from ..board.threshold import gallery_threshold, read_cohort
from ..errors import FacetpuError

FALSE_ACCEPTS = 0.01  # share of strangers to let through, until somebody sets another


def new_house(model: Path, out: Path) -> None:
    """Write to ``out`` an imprinted folder that knows nobody, from the export folder ``model``.

    Raises:
        FacetpuError: the model cannot be imprinted or knows people already, or ``out`` exists; where it is
            such a folder the message says how to serve it.
    """
    folder, out = ModelFolder.find(model), Path(out)
    if (folder.root / GALLERY).is_file():
        raise FacetpuError(f"{folder.root}: knows people already; leave --new out, or give what export wrote")
    if (out / GALLERY).is_file():
        raise FacetpuError(f"{out}: exists; serve it as it is: facetpu serve {out}")
    check_new(out)
    embedder = Embedder(model)
    L2Norm(folder.needed(MODEL, "facetpu export")).check_fits(embedder)
    cohort = None
    if (folder.root / COHORT).is_file():
        cohort = read_cohort(folder.root / COHORT, embedder.dim)
    alignment = embedder.alignment._asdict()
    made = {key: value for key, value in folder.manifest().items() if key == "threshold"}
    gallery = empty_gallery(embedder.dim, base_digest(folder), alignment)
    found = gallery_threshold(gallery, cohort, FALSE_ACCEPTS, made.get("threshold"))
    gallery = gallery._replace(threshold=found.cosine, false_accepts=FALSE_ACCEPTS)
    with new_folder(out) as partial:
        write_known(partial, folder, gallery, cohort)
        write_rest(partial, folder)
        counts = {"people": 0, "photos": 0, "kept_photos": 0}
        write_manifest(
            partial, "serve", {}, {}, alignment=alignment, embedding_dim=embedder.dim, **counts, **made
        )
