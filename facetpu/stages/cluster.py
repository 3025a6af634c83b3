"""cluster: a folder of faces that nobody has named, sorted into people."""

from __future__ import annotations

import csv
import logging
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..artefacts import check_new, digest, finished, new_folder, write_manifest
from ..board.folder import COHORT
from ..board.threshold import read_cohort
from ..errors import FacetpuError
from ..evaluation.clustering import METHODS, NOBODY, Agreement, agreement
from ..evaluation.embedders import EMBEDDINGS, Source, find_source
from ..evaluation.embeddings import embed_crops
from ..evaluation.identification import person_vectors
from ..image import read_image
from ..metrics import threshold_at_far
from ..page import write_page
from ..people import people_under, photos_under

log = logging.getLogger(__name__)

# Share of pairs of two people above the threshold. A crowd has many pairs: 1% would tie it into one knot.
FAR = 0.001
ALONE = "alone"
PAGE, TABLE = "clusters.html", "clusters.csv"
SHOWN = 24  # faces of a person on the page


class Clusters(NamedTuple):
    """People found among faces."""

    out: Path
    faces: int
    people: int
    alone: int  # faces that are with no other
    threshold: float
    method: str
    agreement: Agreement | None  # with the folders the crops came in

    def __str__(self) -> str:
        text = (
            f"{self.out}: {self.people:,} people in {self.faces:,} faces, {self.alone:,} alone "
            f"({self.method}, cosine {self.threshold:.3f})"
        )
        if self.agreement:
            score = self.agreement
            text += (
                f"\n  against the folders: B-cubed precision {score.precision:.1%}, "
                f"recall {score.recall:.1%}, F1 {score.f1:.1%}; pairwise F1 {score.pairs_f1:.1%}"
            )
        return text


class ShownPerson(NamedTuple):
    """A cluster on the page."""

    name: str
    size: int
    faces: list[tuple[str, np.ndarray]]


def cluster(
    model: Path,
    crops: Path,
    out: Path,
    threshold: float | None = None,
    method: str = "whispers",
    check: bool = False,
    seed: int = 0,
    overwrite: bool = False,
) -> Clusters:
    """Sort the faces under ``crops`` into one sub-folder of ``out`` for each person found.

    Args:
        model: as for ``evaluate``.
        crops: crops, in sub-folders or not.
        out: gets ``person 001`` and so on, the largest first, ``alone`` for faces that are with no other, a
            page and a table.
        threshold: cosine from which two faces are joined. Unless given it is what one in a thousand pairs
            of different people of the export folder's cohort reach.
        method: one of ``clustering.METHODS``.
        check: hold the clusters against the folders of ``crops``, one for each person.
        seed: of the order in which whispers go round.
        overwrite: replace ``out``.

    Raises:
        FacetpuError: the model is none or broken or has no cohort and no threshold is given, a crop cannot
            be read, or scikit-learn is not installed and the method needs it.
    """
    source = find_source(model)
    files = [photo.relative_to(crops) for photo in photos_under(crops)]
    people = _people(crops, files) if check else None
    config = {"method": method, "threshold": threshold, "seed": seed, "check": check}
    inputs = {"model": source.digest(), "crops": digest(crops)}
    done = finished(out, "cluster", config, inputs)
    if done:
        log.info("%s: is up to date; nothing to do", out)
        figures = done["clusters"]
        score = figures["agreement"]
        return Clusters(out=out, **{**figures, "agreement": score and Agreement(**score)})
    check_new(out, overwrite)
    if threshold is None:
        threshold = _cohort_threshold(source, model)
    embeddings = embed_crops(source, crops, files)
    labels = METHODS[method](embeddings, threshold, seed)
    found = Clusters(
        out=out,
        faces=len(files),
        people=int(labels.max(initial=NOBODY)) + 1,
        alone=int(np.sum(labels == NOBODY)),
        threshold=threshold,
        method=method,
        agreement=None if people is None else agreement(labels, people),
    )
    with new_folder(out, overwrite) as folder:
        _sort(folder, crops, files, labels)
        _write_table(folder / TABLE, files, labels, embeddings)
        shown = _shown(crops, files, labels)
        write_page(folder / PAGE, "clusters.html", found=found, crops=crops.name, people=shown, limit=SHOWN)
        write_manifest(folder, "cluster", config, inputs, clusters=_figures(found))
    return found


def _figures(found: Clusters) -> dict[str, Any]:
    """All but the place, which belongs in no manifest."""
    figures = found._asdict()
    del figures["out"]
    return {**figures, "agreement": found.agreement and found.agreement._asdict()}


def _people(crops: Path, files: list[Path]) -> np.ndarray:
    """The number of each file's person, by the folder it is in."""
    names = list(people_under(crops))
    loose = [file for file in files if len(file.parts) < 2]
    if loose:
        raise FacetpuError(
            f"{crops / loose[0]}: is in no person's folder, so there is nothing to check it by"
        )
    return np.array([names.index(file.parts[0]) for file in files])


def _cohort_threshold(source: Source, model: Path) -> float:
    """What one in a thousand pairs of different people reaches, in the model's own cohort."""
    path = source.path.parent / COHORT
    if source.kind == EMBEDDINGS or not path.is_file():
        raise FacetpuError(
            f"{model}: has no {COHORT} beside it to take a threshold from; give one with --threshold"
        )
    with np.load(path) as arrays:
        dim = arrays["embeddings"].shape[-1]
    cohort = read_cohort(path, dim)
    cosines = cohort.embeddings @ cohort.embeddings.T
    different = np.triu(cohort.people[:, None] != cohort.people[None], 1)
    return threshold_at_far(cosines[different], FAR)


def _name(label: int) -> str:
    return ALONE if label == NOBODY else f"person {label + 1:03d}"


def _sort(folder: Path, crops: Path, files: list[Path], labels: np.ndarray) -> None:
    """A copy of each crop in its person's folder; the folders it came in go into its name."""
    for file, label in zip(files, labels, strict=True):
        place = folder / _name(label)
        place.mkdir(exist_ok=True)
        shutil.copyfile(crops / file, place / "_".join(file.parts))


def _write_table(path: Path, files: list[Path], labels: np.ndarray, embeddings: np.ndarray) -> None:
    """Each crop with its person, and its cosine with that person's mean."""
    groups = [np.flatnonzero(labels == label) for label in range(labels.max(initial=NOBODY) + 1)]
    vectors = person_vectors(embeddings, groups) if groups else embeddings[:0]
    with open(path, "w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["crop", "person", "cosine"])
        for file, label, row in zip(files, labels, embeddings, strict=True):
            cosine = "" if label == NOBODY else f"{float(row @ vectors[label]):.4f}"
            rows.writerow([file.as_posix(), _name(label), cosine])


def _shown(crops: Path, files: list[Path], labels: np.ndarray) -> list[ShownPerson]:
    people = []
    for label in [*range(labels.max(initial=NOBODY) + 1), NOBODY]:
        members = [files[index] for index in np.flatnonzero(labels == label)]
        if members:
            faces = [(file.stem, read_image(crops / file)) for file in members[:SHOWN]]
            people.append(ShownPerson(_name(label), len(members), faces))
    return people
