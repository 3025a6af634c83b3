"""The ``imprint`` command: photos of people in, a model that knows them out.

The rows of the model are trained, through Coral's engine, on what the model's own quantised L2 norm
gives for each photo: stock pycoral, fed the same crops, writes the same rows. The gallery keeps that
beside the float embedding, and every row is made from it anew each time.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..artefacts import check_new, digest, finished, new_folder, write_manifest
from ..errors import FacetpuError
from ..image import UnreadableImage
from ..labels import check_distinct
from ..people import check_folder, people_under, photos_under
from ..progress import progress
from ..tflite.cut import split_model
from .embed import Embedder, base_model
from .faces import FaceReader, NoFace, Sighting
from .folder import BASE, BASE_EDGETPU, COHORT, DETECTOR, GALLERY, MODEL, ModelFolder
from .gallery import Gallery
from .imprint import ImprintingEngine
from .interpreter import open_model, read_tflite
from .recogniser import base_digest, read_known, write_known
from .threshold import Cohort, Threshold, gallery_threshold, genuine_scores, read_cohort, write_cohort

log = logging.getLogger(__name__)


class Remark(NamedTuple):
    """Something to know about a photo, named relative to the folder of people."""

    photo: str
    text: str


class Enrolled(NamedTuple):
    """A person and their photos: those in the gallery now, those just added, refused, or to look at."""

    name: str
    photos: int
    added: int
    refused: list[Remark]
    remarks: list[Remark]


class ImprintResult(NamedTuple):
    """The imprinted folder, who it knows, and from which cosine on."""

    out: Path
    people: list[Enrolled]
    threshold: float
    threshold_source: str

    def __str__(self) -> str:
        lines = []
        for person in self.people:
            lines.append(f"{person.name}: {person.photos} photos, {person.added} of them new")
            lines += [f"  refused {remark.photo}: {remark.text}" for remark in person.refused]
            lines += [f"  {remark.photo}: {remark.text}" for remark in person.remarks]
        lines.append(f"threshold {self.threshold:.3f}: {self.threshold_source}")
        lines.append(f"{self.out} knows {len(self.people)} people")
        return "\n".join(lines)


class _Photo(NamedTuple):
    """A photo that was accepted."""

    name: str
    path: str
    digest: str
    sighting: Sighting


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
        out: the folder to write; it may be ``model`` with ``overwrite``.
        false_accepts: share of strangers that the threshold may let through.
        strangers: photos of other people to set the threshold by, instead of the model's own cohort.
        overwrite: replace ``out``.

    Raises:
        FacetpuError: the model cannot be imprinted, or a person has no photo that shows a face.
    """
    folder = ModelFolder.find(model)
    source = folder.needed(MODEL, "facetpu export")
    photos = _listing(people)
    if strangers is not None:
        check_folder(strangers)
    config = {"false_accepts": false_accepts}
    inputs = _inputs(folder, people, strangers)
    done = finished(out, "imprint", config, inputs)
    if done is not None:
        log.info("%s: was made from the same photos already", out)
        return _result(out, done["result"])
    check_new(out, overwrite)
    l2_norm = L2Norm(source)
    known = read_known(folder) if (folder.root / GALLERY).is_file() else None
    check_distinct(list(photos) + [n for n in (known.people if known else []) if n not in photos], str(people))

    reader = FaceReader(model)
    l2_norm.check_fits(reader.embedder)
    accepted, refused = _read_photos(reader, people, photos, known)
    gallery = _gallery(folder, known, list(photos), accepted, l2_norm, reader.embedder)
    cohort = _cohort(folder, strangers, reader)
    found = gallery_threshold(gallery, cohort, false_accepts, folder.manifest().get("threshold"))
    gallery = gallery._replace(threshold=found.cosine, false_accepts=false_accepts)
    result = ImprintResult(out, _report(gallery, accepted, refused), *found)
    with new_folder(out, overwrite) as partial:
        _write(partial, folder, gallery, cohort)
        _write_manifest(partial, folder, config, inputs, reader.embedder, result)
    return result


class L2Norm:
    """The quantised L2 norm of an imprinting model, run by itself on the rows that its base writes."""

    def __init__(self, model: Path) -> None:
        """Cut the L2 norm out of ``model``.

        Raises:
            UnfitModel: the model cannot be imprinted.
        """
        self.model = model
        data = read_tflite(model)
        ImprintingEngine(data)  # its refusals name the model's faults better than the cut would
        part = ImprintingEngine(split_model(data)[1]).serialize_extractor_model()
        self._interpreter = open_model(part, model)
        self._input = self._interpreter.get_input_details()[0]
        self._output = self._interpreter.get_output_details()[0]

    def check_fits(self, embedder: Embedder) -> None:
        """Refuse an embedder that is not the base of this model.

        Raises:
            FacetpuError: it writes another length or quantisation than this layer reads.
        """
        scale, zero_point = self._input["quantization"]
        expected = (int(self._input["shape"][-1]), float(scale), int(zero_point))
        if (embedder.dim, embedder.scale, embedder.zero_point) != expected:
            raise FacetpuError(f"{embedder.path}: is not the base of {self.model.name}; export the model again")

    def __call__(self, row: np.ndarray) -> np.ndarray:
        """The embedding that Coral's engine is trained with: float32 [D], dequantised.

        Args:
            row: [D], as the base writes it.
        """
        self._interpreter.set_tensor(self._input["index"], row.reshape(self._input["shape"]))
        self._interpreter.invoke()
        stored = self._interpreter.get_tensor(self._output["index"]).ravel()
        scale, zero_point = self._output["quantization"]
        return (stored.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)


def _listing(people: Path) -> dict[str, list[Path]]:
    """The photos of each person.

    Raises:
        FacetpuError: there are none, or a person's folder is empty.
    """
    photos = people_under(people)
    with_photos = {path.relative_to(people).parts[0] for paths in photos.values() for path in paths}
    for entry in sorted(Path(people).iterdir()):
        if entry.is_dir() and not entry.name.startswith(".") and entry.name not in with_photos:
            raise FacetpuError(f"{entry}: holds no photo; put some of {entry.name} there or remove the folder")
    return photos


def _inputs(folder: ModelFolder, people: Path, strangers: Path | None) -> dict[str, str]:
    inputs = {"model": digest(folder.root / MODEL), "people": digest(people, times=True)}
    if (folder.root / GALLERY).is_file():
        inputs["gallery"] = digest(folder.root / GALLERY)
    if strangers is not None:
        inputs["strangers"] = digest(strangers, times=True)
    elif (folder.root / COHORT).is_file():
        inputs["cohort"] = digest(folder.root / COHORT)
    return inputs


def _read_photos(
    reader: FaceReader, root: Path, people: dict[str, list[Path]], known: Gallery | None
) -> tuple[list[_Photo], dict[str, list[Remark]]]:
    """The main face of every photo, and by person the photos that gave none.

    Raises:
        FacetpuError: one photo stands for two people, or a person has no photo that shows a face.
    """
    owner = {} if known is None else {p: known.people[i] for p, i in zip(known.photos, known.person)}
    accepted: list[_Photo] = []
    refused: dict[str, list[Remark]] = {name: [] for name in people}
    listing = [(name, photo) for name, photos in people.items() for photo in photos]
    for name, photo in progress(listing, "enrol"):
        path = photo.relative_to(root).as_posix()
        sha = digest(photo)
        first = owner.setdefault(sha, name)
        if first != name:
            raise FacetpuError(f"{photo}: is a photo of {first} too; remove it from one of the two folders")
        if any(sha == other.digest for other in accepted) or (known is not None and sha in known.photos):
            refused[name].append(Remark(path, "is enrolled already"))
            continue
        try:
            accepted.append(_Photo(name, path, sha, reader.main_face(photo)))
        except (UnreadableImage, NoFace) as error:
            refused[name].append(Remark(path, _reason(error, photo)))
    for name in people:
        enrolled = name in (known.people if known else []) or any(photo.name == name for photo in accepted)
        if not enrolled:
            reasons = "; ".join(f"{remark.photo} {remark.text}" for remark in refused[name][:3])
            raise FacetpuError(f"{root / name}: no photo of {name} can be used: {reasons}")
    return accepted, refused


def _gallery(
    folder: ModelFolder,
    known: Gallery | None,
    names: list[str],
    accepted: list[_Photo],
    l2_norm: L2Norm,
    embedder: Embedder,
) -> Gallery:
    """``known`` and the accepted photos together; people it knows keep their class ids."""
    if known is None:
        none = np.zeros((0, embedder.dim), np.float32)
        person = np.zeros(0, np.int32)
        alignment = embedder.alignment._asdict()
        known = Gallery([], person, none, none, [], base_digest(folder), dict(alignment), 1.0, 0.0)
    people = known.people + [name for name in names if name not in known.people]
    if not accepted:
        return known._replace(people=people)
    return known._replace(
        people=people,
        person=np.append(known.person, [people.index(photo.name) for photo in accepted]).astype(np.int32),
        embeddings=np.vstack([known.embeddings] + [photo.sighting.embedding for photo in accepted]),
        imprints=np.vstack([known.imprints] + [l2_norm(photo.sighting.row) for photo in accepted]),
        photos=known.photos + [photo.digest for photo in accepted],
    )


def _cohort(folder: ModelFolder, strangers: Path | None, reader: FaceReader) -> Cohort | None:
    """The faces to set the threshold by: those in ``strangers``, else the model's own."""
    if strangers is None:
        path = folder.root / COHORT
        return read_cohort(path) if path.is_file() else None
    faces = []
    for photo in progress(photos_under(strangers), "strangers"):
        try:
            faces.append(reader.main_face(photo).embedding)
        except (UnreadableImage, NoFace) as error:
            log.warning("left out: %s", error)
    if not faces:
        raise FacetpuError(f"{strangers}: no photo shows a face; give photos of other people")
    return Cohort(np.stack(faces), np.arange(len(faces), dtype=np.int32))


def _report(gallery: Gallery, accepted: list[_Photo], refused: dict[str, list[Remark]]) -> list[Enrolled]:
    """What to tell of each person, those enrolled before included."""
    scores = dict(zip(gallery.photos, genuine_scores(gallery)))
    report = []
    for class_id, name in enumerate(gallery.people):
        added = [photo for photo in accepted if photo.name == name]
        remarks = []
        for photo in added:
            if photo.sighting.others:
                remarks.append(Remark(photo.path, f"shows {photo.sighting.others + 1} faces; the main one is taken"))
            if scores[photo.digest] < gallery.threshold:
                cosine = f"cosine {scores[photo.digest]:.2f}"
                remarks.append(Remark(photo.path, f"is unlike the other photos of {name} ({cosine}); is it them?"))
        photos = int((gallery.person == class_id).sum())
        if photos == 1:
            log.warning("%s: one photo only; five to ten make a surer model", name)
        report.append(Enrolled(name, photos, len(added), refused.get(name, []), remarks))
    return report


def _write(partial: Path, folder: ModelFolder, gallery: Gallery, cohort: Cohort | None) -> None:
    write_known(partial, folder, gallery)
    (partial / BASE).write_bytes(base_model(folder))
    if (folder.root / BASE_EDGETPU).is_file():
        shutil.copy2(str(folder.root / BASE_EDGETPU), str(partial / BASE_EDGETPU))
    shutil.copytree(str(folder.root / DETECTOR), str(partial / DETECTOR))
    if cohort is not None:
        write_cohort(partial / COHORT, cohort)
    open_model(read_tflite(partial / MODEL), partial / MODEL)  # what was written must run


def _write_manifest(
    partial: Path,
    folder: ModelFolder,
    config: dict[str, Any],
    inputs: dict[str, str],
    embedder: Embedder,
    result: ImprintResult,
) -> None:
    kept = {key: value for key, value in folder.manifest().items() if key == "threshold"}
    summary = result._asdict()
    del summary["out"]
    write_manifest(
        partial,
        "imprint",
        config,
        inputs,
        alignment=embedder.alignment._asdict(),
        embedding_dim=embedder.dim,
        result=summary,
        **kept,
    )


def _result(out: Path, summary: dict[str, Any]) -> ImprintResult:
    ...


def _reason(error: FacetpuError, photo: Path) -> str:
    """The message without the path that stands before it."""
    return str(error).split(f"{photo}: ", 1)[-1]
