"""The ``imprint`` command: photos of people in, a model that knows them out."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..artefacts import MANIFEST, check_new, digest, finished, new_folder, write_bytes, write_manifest
from ..image import UnreadableImage
from ..labels import check_distinct, read_labels
from ..people import photos_under
from ..progress import progress
from .embed import Embedder, base_model
from .engine import imprinting_engine
from .enrolment import ImprintResult, summary
from .faces import FaceReader, NoFace
from .folder import BASE, BASE_EDGETPU, COHORT, DETECTOR, GALLERY, LABELS, MODEL, ModelFolder
from .gallery import Gallery, empty_gallery, read_gallery
from .intake import photos_of_people, read_candidates
from .kept import keep_photos, kept_photos
from .recogniser import L2Norm, base_digest, copy_whole, read_known, write_known, write_softmax
from .runner import open_model, read_tflite
from .selection import accepted, enrolled, judged
from .sheet import write_sheet
from .threshold import Cohort, Threshold, gallery_threshold, read_cohort, without_people
from .transfer import photos_to_enrol_again, same_base, taken_over

log = logging.getLogger(__name__)

STAGE = "imprint"


class Settings(NamedTuple):
    """How people are enrolled; the fields are the options of ``facetpu imprint``.

    Attributes:
        false_accepts: share of strangers that the threshold may let through.
        accept_all: enrol photos with faults too, as long as they show a face.
        keep_photos: keep the photos in the new folder, to enrol the people again when the base changes.
        learner: ``softmax`` for a softmax regression beside the imprinted model.
        engine: ``pycoral`` for Google's imprinting engine in the place of facetpu's.
    """

    false_accepts: float = 0.01
    accept_all: bool = False
    keep_photos: bool = False
    learner: str = "imprint"
    engine: str = "numpy"


def imprint(
    model: Path,
    people: Path,
    out: Path,
    false_accepts: float = 0.01,
    strangers: Path | None = None,
    report: Path | None = None,
    overwrite: bool = False,
    **settings: Any,
) -> ImprintResult:
    """Enrol the people in ``people`` and write a model that knows them, and those it knew before.

    Args:
        model: an export folder or an imprinted one, or the ``model.tflite`` in it.
        people: one sub-folder of photos a person; the folder's name is theirs. Or an imprinted folder,
            whose people are taken over: as they are where it has the same base, else from the photos
            that it keeps.
        out: the folder to write; with ``overwrite`` it may be ``model`` itself.
        false_accepts: see ``Settings``, as for all that is not listed here.
        strangers: photos of other people to set the threshold by, instead of the model's own cohort.
        report: file for a contact sheet of all photos and what was said of them.
        overwrite: replace ``out`` and ``report``.
        settings: further fields of ``Settings``.

    Raises:
        FacetpuError: the model cannot be imprinted, no photo of a person can be used, another run is
            writing ``out``, or the kept photos do not suffice.
    """
    people, out, folder = Path(people), Path(out), ModelFolder.find(model)
    asked = Settings(false_accepts, **settings)
    engine = imprinting_engine(asked.engine)
    l2_norm = L2Norm(folder.needed(MODEL, "facetpu export"))
    photos = {} if (people / GALLERY).is_file() else photos_of_people(people)
    others = None if strangers is None else photos_under(strangers)
    config, inputs = asked._asdict(), _inputs(folder, people, strangers)
    manifest = finished(out, STAGE, config, inputs)
    if manifest is not None:
        log.info("%s: was made from the same model and photos already", out)
        gallery = read_known(ModelFolder(out, None))
        return summary(out, gallery, [], [], manifest["threshold_source"], len(kept_photos(out)))
    if report is not None:
        check_new(report, overwrite)

    with new_folder(out, overwrite) as partial:  # from here on no other run changes it
        reader = FaceReader(model)
        l2_norm.check_fits(reader.embedder)
        known = _known(folder, reader.embedder)
        if (people / GALLERY).is_file():
            known, photos = _from_folder(people, known)
        check_distinct([*photos, *(name for name in known.people if name not in photos)], str(people))
        cohort = _cohort(folder, {*known.people, *photos}, others, reader)

        def threshold_of(gallery: Gallery) -> Threshold:
            pairs_threshold = folder.manifest().get("threshold")
            return gallery_threshold(gallery, cohort, asked.false_accepts, pairs_threshold)

        candidates = read_candidates(reader, people, photos, known, crops=report is not None)
        candidates = judged(candidates, known, l2_norm, cohort, lambda gallery: threshold_of(gallery).cosine)
        taken = accepted(candidates, known, asked.accept_all, people)
        gallery = enrolled(known, taken, l2_norm)
        found = threshold_of(gallery)
        gallery = gallery._replace(threshold=found.cosine, false_accepts=asked.false_accepts)

        write_known(partial, folder, gallery, cohort, engine)
        write_rest(partial, folder)
        if asked.learner == "softmax":
            write_softmax(partial, gallery, cohort)
        given = {candidate.digest: candidate.path for candidate in taken if asked.keep_photos}
        kept = keep_photos(
            partial, {**given, **kept_photos(people), **kept_photos(folder.root)}, gallery.photos
        )
        result = summary(out, gallery, candidates, taken, found.source, kept)
        _write_manifest(partial, folder, config, inputs, reader.embedder, result)
        if report is not None:
            write_sheet(report, candidates, asked.accept_all, overwrite)
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


def _from_folder(people: Path, known: Gallery) -> tuple[Gallery, dict[str, list[Path]]]:
    """``known`` with the people of an imprinted folder of the same base, or the photos it keeps of them."""
    other = read_gallery(people / GALLERY)
    if same_base(known, other):
        return taken_over(known, other, people / GALLERY), {}
    return known, photos_to_enrol_again(people, other, known)


def _cohort(
    folder: ModelFolder, people: set[str], others: list[Path] | None, reader: FaceReader
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


def write_rest(partial: Path, folder: ModelFolder) -> None:
    """Base and detector, which tell of nobody."""
    write_bytes(partial / BASE, base_model(folder))
    if (folder.root / BASE_EDGETPU).is_file():
        copy_whole(folder.root / BASE_EDGETPU, partial / BASE_EDGETPU)
    copy_whole(folder.root / DETECTOR, partial / DETECTOR)
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
        kept_photos=result.kept_photos,
        gallery_threshold=result.threshold,
        threshold_source=result.threshold_source,
        **made,
    )
