"""The ``imprint`` command: photos of people in, a model that knows them out."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..artefacts import MANIFEST, check_new, digest, finished, new_folder, write_manifest
from ..image import UnreadableImage
from ..labels import check_distinct, read_labels
from ..people import photos_under
from ..progress import progress
from .embed import Embedder, base_model
from .faces import FaceReader, NoFace
from .folder import BASE, BASE_EDGETPU, COHORT, DETECTOR, GALLERY, LABELS, MODEL, ModelFolder
from .gallery import Gallery, empty_gallery
from .intake import Intake, Portrait, Remark, photos_of_people, read_portraits
from .interpreter import open_model, read_tflite
from .recogniser import L2Norm, base_digest, read_known, write_known
from .threshold import (
    Cohort,
    gallery_threshold,
    genuine_scores,
    read_cohort,
    without_people,
    write_cohort,
)

log = logging.getLogger(__name__)

STAGE = "imprint"


class Enrolled(NamedTuple):
    """A person: photos in the gallery now, how many of them are new, which were refused or look odd."""

    name: str
    photos: int
    added: int
    refused: list[Remark]
    remarks: list[Remark]


class ImprintResult(NamedTuple):
    """The imprinted folder and whom it knows.

    Attributes:
        out: the folder.
        people: everyone in its gallery, those enrolled before included.
        threshold: cosine from which a face is known.
        threshold_source: where that is from, in words.
        left_out: photos of people who have others, each matched as if it were not in the gallery.
        recognised: how many of them reach the threshold.
    """

    out: Path
    people: list[Enrolled]
    threshold: float
    threshold_source: str
    left_out: int
    recognised: int

    def __str__(self) -> str:
        lines = []
        for person in self.people:
            lines.append(f"{person.name}: {person.photos} photos, {person.added} of them new")
            lines += [f"  refused {remark.photo}: {remark.text}" for remark in person.refused]
            lines += [f"  {remark.photo}: {remark.text}" for remark in person.remarks]
        lines.append(f"threshold {self.threshold:.3f}: {self.threshold_source}")
        if self.left_out:
            lines.append(
                f"{self.recognised} of {self.left_out} photos are recognised by their person's others"
            )
        lines.append(f"{self.out} knows {len(self.people)} people")
        return "\n".join(lines)


def imprint(
    model: Path,
    people: Path,
    out: Path,
    false_accepts: float = 0.01,
    strangers: Path | None = None,
    overwrite: bool = False,
) -> ImprintResult:
    """Enrol the people in ``people`` and write a model that knows them, and those it knew before.

    Args:
        model: an export folder or an imprinted one, or the ``model.tflite`` in it.
        people: one sub-folder of photos a person; the folder's name is theirs.
        out: the folder to write; with ``overwrite`` it may be ``model`` itself.
        false_accepts: share of strangers that the threshold may let through.
        strangers: photos of other people to set the threshold by, instead of the model's own cohort.
        overwrite: replace ``out``.

    Raises:
        FacetpuError: the model cannot be imprinted, or no photo of a person shows a face.
    """
    people, out, folder = Path(people), Path(out), ModelFolder.find(model)
    l2_norm = L2Norm(folder.needed(MODEL, "facetpu export"))
    photos = photos_of_people(people)
    others = None if strangers is None else photos_under(strangers)
    config = {"false_accepts": false_accepts}
    inputs = _inputs(folder, people, strangers)
    manifest = finished(out, STAGE, config, inputs)
    if manifest is not None:
        log.info("%s: was made from the same model and photos already", out)
        gallery = read_known(ModelFolder(out, None))
        return _report(out, gallery, Intake([], {}), manifest["threshold_source"])
    check_new(out, overwrite)

    reader = FaceReader(model)
    l2_norm.check_fits(reader.embedder)
    known = _known(folder, reader.embedder)
    check_distinct([*photos, *(name for name in known.people if name not in photos)], str(people))
    intake = read_portraits(reader, people, photos, known)
    gallery = _with(known, intake.portraits, l2_norm)
    cohort = _cohort(folder, gallery.people, others, reader)
    found = gallery_threshold(gallery, cohort, false_accepts, folder.manifest().get("threshold"))
    gallery = gallery._replace(threshold=found.cosine, false_accepts=false_accepts)
    result = _report(out, gallery, intake, found.source)
    with new_folder(out, overwrite) as partial:
        _write(partial, folder, gallery, cohort)
        _write_manifest(partial, folder, config, inputs, reader.embedder, result)
    return result


def _inputs(folder: ModelFolder, people: Path, strangers: Path | None) -> dict[str, str]:
    """What the result depends on, as digests; the manifest holds the model's threshold and alignment."""
    inputs = {"people": digest(people, times=True)}
    if strangers is not None:
        inputs["strangers"] = digest(strangers, times=True)
    for name in (MODEL, LABELS, GALLERY, COHORT, MANIFEST):
        if (folder.root / name).is_file():
            inputs[name] = digest(folder.root / name)
    return inputs


def _known(folder: ModelFolder, embedder: Embedder) -> Gallery:
    """The people that the model knows already: those of its gallery, not those it was trained on."""
    if (folder.root / GALLERY).is_file():
        return read_known(folder)
    return empty_gallery(embedder.dim, base_digest(folder), embedder.alignment._asdict())


def _with(known: Gallery, portraits: list[Portrait], l2_norm: L2Norm) -> Gallery:
    """``known`` and the new portraits; the people it has keep their class ids."""
    people = list(known.people)
    for portrait in portraits:
        if portrait.name not in people:
            people.append(portrait.name)
    person = [people.index(portrait.name) for portrait in portraits]
    return known._replace(
        people=people,
        person=np.append(known.person, person).astype(np.int32),
        embeddings=np.vstack([known.embeddings, *(p.sighting.embedding for p in portraits)]),
        imprints=np.vstack([known.imprints, *(l2_norm(p.sighting.row) for p in portraits)]),
        photos=known.photos + [portrait.digest for portrait in portraits],
    )


def _cohort(
    folder: ModelFolder, people: list[str], others: list[Path] | None, reader: FaceReader
) -> Cohort | None:
    """The faces to set the threshold by: those in the photos ``others``, else the model's own.

    The model's own are of people it was trained on: those of them who are enrolled now are left out.
    """
    if others is None:
        if not (folder.root / COHORT).is_file():
            return None
        cohort = read_cohort(folder.root / COHORT, reader.embedder.dim)
        if (folder.root / GALLERY).is_file() or not (folder.root / LABELS).is_file():
            return cohort  # the labels are of the enrolled, and who of the cohort was is left out already
        trained = enumerate(read_labels(folder.root / LABELS))
        return without_people(cohort, [index for index, name in trained if name in people])
    faces = []
    for photo in progress(others, "strangers"):
        try:
            faces.append(reader.main_face(photo).embedding)
        except (UnreadableImage, NoFace) as error:
            log.warning("left out: %s", error)
    embeddings = np.array(faces, np.float32).reshape(len(faces), reader.embedder.dim)
    return Cohort(embeddings, np.arange(len(faces), dtype=np.int32))


def _report(out: Path, gallery: Gallery, intake: Intake, source: str) -> ImprintResult:
    """What to tell of everyone in ``gallery``, those enrolled before included."""
    scores = genuine_scores(gallery)
    people = []
    for class_id, name in enumerate(gallery.people):
        own = dict(
            zip(np.array(gallery.photos)[gallery.person == class_id], scores[gallery.person == class_id])
        )
        added = [portrait for portrait in intake.portraits if portrait.name == name]
        remarks = [remark for portrait in added for remark in _remarks(portrait, own, gallery.threshold)]
        if len(own) == 1:
            log.warning("%s: one photo only; five to ten make a surer model", name)
        people.append(Enrolled(name, len(own), len(added), intake.refused.get(name, []), remarks))
    left_out = scores[np.isfinite(scores)]
    recognised = int((left_out >= gallery.threshold).sum())
    if recognised < len(left_out) / 2:
        log.warning(
            "only %d of %d photos are recognised by their person's others: enrol more photos of each, let "
            "more strangers pass with --false-accepts, or train the model longer",
            recognised,
            len(left_out),
        )
    return ImprintResult(out, people, gallery.threshold, source, len(left_out), recognised)


def _remarks(portrait: Portrait, own: dict[str, float], threshold: float) -> list[Remark]:
    """What the user may want to look at: ``own`` has the genuine score of each photo of the person."""
    remarks = []
    if portrait.sighting.others:
        faces = portrait.sighting.others + 1
        remarks.append(Remark(portrait.photo, f"shows {faces} faces; the main one is taken"))
    cosine = own[portrait.digest]
    if cosine < threshold <= np.median(list(own.values())):  # the person's others go together
        doubt = f"is unlike the others of {portrait.name} (cosine {cosine:.2f}); is it them?"
        remarks.append(Remark(portrait.photo, doubt))
    return remarks


def _write(partial: Path, folder: ModelFolder, gallery: Gallery, cohort: Cohort | None) -> None:
    write_known(partial, folder, gallery)
    (partial / BASE).write_bytes(base_model(folder))
    if (folder.root / BASE_EDGETPU).is_file():
        shutil.copyfile(str(folder.root / BASE_EDGETPU), str(partial / BASE_EDGETPU))
    shutil.copytree(str(folder.root / DETECTOR), str(partial / DETECTOR))
    if cohort is not None:
        write_cohort(partial / COHORT, cohort)
    open_model(read_tflite(partial / MODEL), partial / MODEL)  # what was written must open


def _write_manifest(
    partial: Path,
    folder: ModelFolder,
    config: dict[str, Any],
    inputs: dict[str, str],
    embedder: Embedder,
    result: ImprintResult,
) -> None:
    """Counts and settings; no names, which only labels and gallery hold."""
    made = {key: value for key, value in folder.manifest().items() if key == "threshold"}
    write_manifest(
        partial,
        STAGE,
        config,
        inputs,
        alignment=embedder.alignment._asdict(),
        embedding_dim=embedder.dim,
        people=len(result.people),
        photos=sum(person.photos for person in result.people),
        refused=sum(len(person.refused) for person in result.people),
        gallery_threshold=result.threshold,
        threshold_source=result.threshold_source,
        **made,
    )
