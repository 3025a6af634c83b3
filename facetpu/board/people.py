"""The people that a model knows: listed, shown, forgotten, renamed, merged, carried over.

Nothing is trained or measured again: the model's rows are made anew from the gallery, in which the
others' embeddings stay as they are.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Callable, NamedTuple

import numpy as np

from ..artefacts import new_folder, read_manifest, write_manifest
from ..errors import FacetpuError
from ..labels import check_distinct, check_name
from .folder import COHORT, MODEL_SOFTMAX, ModelFolder
from .gallery import Gallery, write_gallery
from .kept import keep_photos, kept_photos
from .recogniser import copy_rest, read_known, write_known, write_softmax
from .threshold import OUT_OF_REACH, gallery_threshold, genuine_scores, read_cohort
from .transfer import read_other, taken_over


class Person(NamedTuple):
    """A person, their class id in the model, and how many photos they were enrolled with."""

    name: str
    class_id: int
    photos: int


class PeopleResult(NamedTuple):
    """Whom a model knows, and from which cosine on."""

    model: Path
    people: list[Person]
    threshold: float

    def __str__(self) -> str:
        if not self.people:
            return "nobody is enrolled"
        width = max(len(person.name) for person in self.people)
        lines = [f"{person.name:{width}}  {person.photos} photos" for person in self.people]
        return "\n".join([*lines, f"threshold {self.threshold:.3f}"])


class ShownPhoto(NamedTuple):
    """A photo of a person: its SHA-256, its cosine to their others, and its file where it is kept."""

    digest: str
    cosine: float | None
    kept: Path | None


class PersonResult(NamedTuple):
    """What is known of a person.

    Attributes:
        name: theirs.
        class_id: in the model.
        photos: that they were enrolled with.
        nearest: who else is most like them; None for the only one.
        nearest_cosine: how much.
        threshold: the cosine from which a face is theirs.
    """

    name: str
    class_id: int
    photos: list[ShownPhoto]
    nearest: str | None
    nearest_cosine: float | None
    threshold: float

    def __str__(self) -> str:
        lines = [f"{self.name}: class {self.class_id}, threshold {self.threshold:.3f}"]
        if self.nearest is not None:
            lines.append(f"most like {self.nearest}: cosine {self.nearest_cosine:.3f}")
        for photo in self.photos:
            cosine = "the only photo" if photo.cosine is None else f"{photo.cosine:.3f} to the others"
            kept = f", kept in {photo.kept}" if photo.kept else ""
            lines.append(f"photo {photo.digest[:12]}: {cosine}{kept}")
        return "\n".join(lines)


class ExportResult(NamedTuple):
    """The file that a gallery was written to, and how much is in it."""

    out: Path
    people: int
    photos: int

    def __str__(self) -> str:
        return (
            f"{self.out}: {self.people} people, {self.photos} photos; faces can be recognised with it, "
            "so keep it as safe as the photos"
        )


def show_person(model: Path, name: str) -> PersonResult:
    """What ``model`` knows of ``name``.

    Raises:
        FacetpuError: nobody has that name, or the model has no gallery that fits it.
    """
    folder = ModelFolder.find(model)
    gallery = read_known(folder)
    name = _known_name(folder, gallery, name)
    class_id = gallery.people.index(name)
    kept, scores = kept_photos(folder.root), genuine_scores(gallery)
    photos = [
        ShownPhoto(
            gallery.photos[index],
            None if np.isnan(scores[index]) else round(float(scores[index]), 6),
            kept.get(gallery.photos[index]),
        )
        for index in gallery.photos_of(name)
    ]
    nearest, cosine = _nearest(gallery, class_id)
    return PersonResult(name, class_id, photos, nearest, cosine, gallery.threshold)


def list_people(model: Path) -> PeopleResult:
    """The people that ``model``, an imprinted folder or a model in it, knows.

    Raises:
        FacetpuError: it has no gallery, or one that does not fit it.
    """
    folder = ModelFolder.find(model)
    return _listed(folder.root, read_known(folder))


def remove_person(model: Path, name: str) -> PeopleResult:
    """Forget ``name``: nothing of theirs is left in the model, the labels or the gallery.

    The others' rows stay as they are. The threshold is set anew, as fewer people are easier to keep
    strangers from.

    Raises:
        FacetpuError: nobody has that name, or nobody else is known.
    """

    def change(folder: ModelFolder, gallery: Gallery) -> Gallery:
        known = _known_name(folder, gallery, name)
        if len(gallery.people) == 1:
            raise FacetpuError(
                f"{folder.root}: knows nobody but {known}, and a model needs somebody; delete the folder"
            )
        return gallery.without(known)

    return _changed(model, change)


def rename_person(model: Path, name: str, new_name: str) -> PeopleResult:
    """Call ``name`` by ``new_name``; the class id stays.

    Raises:
        FacetpuError: nobody has that name, or the new one is unfit or another's.
    """

    def change(folder: ModelFolder, gallery: Gallery) -> Gallery:
        new = check_name(new_name, "the new name")
        renamed = gallery.renamed(_known_name(folder, gallery, name), new)
        if len(set(renamed.people)) < len(renamed.people):
            raise FacetpuError(
                f"{folder.root}: knows {new_name} already; choose another name, or merge the two"
            )
        check_distinct(renamed.people, str(folder.root))
        return renamed

    return _changed(model, change)


def merge_people(model: Path, name: str, into: str) -> PeopleResult:
    """Count the photos of ``name`` as those of ``into``: two names that were one person's.

    Raises:
        FacetpuError: nobody has one of the names, or they are the same.
    """

    def change(folder: ModelFolder, gallery: Gallery) -> Gallery:
        gone, kept = (_known_name(folder, gallery, who) for who in (name, into))
        if gone == kept:
            raise FacetpuError(f"{folder.root}: {gone} cannot be merged into {gone}; give two names")
        return gallery.merged(gone, kept)

    return _changed(model, change)


def export_people(model: Path, out: Path, overwrite: bool = False) -> ExportResult:
    """Write the gallery of ``model`` to the file ``out``, for another model with the same base.

    Raises:
        FacetpuError: the model has no gallery that fits it, or ``out`` exists.
    """
    gallery = read_known(ModelFolder.find(model))
    write_gallery(out, gallery, overwrite)
    return ExportResult(Path(out), len(gallery.people), len(gallery.photos))


def import_people(model: Path, file: Path) -> PeopleResult:
    """Add the people in ``file``, as ``export_people`` wrote it, to those that ``model`` knows.

    Raises:
        FacetpuError: the file is damaged or of another base, or the two disagree about whose a photo is.
    """

    def change(_: ModelFolder, gallery: Gallery) -> Gallery:
        return taken_over(gallery, read_other(file, gallery), file)

    return _changed(model, change)


def _known_name(folder: ModelFolder, gallery: Gallery, name: str) -> str:
    """``name`` as the gallery spells it: terminals differ in how they compose an accented letter."""
    normal = unicodedata.normalize("NFC", name)
    if normal not in gallery.people:
        raise FacetpuError(f"{folder.root}: knows no {name!r}, but {', '.join(gallery.people)}")
    return normal


def _nearest(gallery: Gallery, class_id: int) -> tuple[str | None, float | None]:
    """Who else of ``gallery`` is most like a person, and the cosine between the two."""
    if len(gallery.people) == 1:
        return None, None
    vectors = gallery.vectors()
    cosines = vectors @ vectors[class_id]
    cosines[class_id] = -2
    nearest = int(cosines.argmax())
    return gallery.people[nearest], round(float(cosines[nearest]), 6)


def _changed(model: Path, change: Callable[[ModelFolder, Gallery], Gallery]) -> PeopleResult:
    return _listed(ModelFolder.find(model).root, change_people(model, change))


def change_people(model: Path, change: Callable[[ModelFolder, Gallery], Gallery]) -> Gallery:
    """Put a folder that knows what ``change`` makes of its gallery in the place of ``model``, whole.

    What the gallery says is read when no other run can change it any more. The threshold is set anew.

    Raises:
        FacetpuError: another run is writing the folder, or ``change`` raises it.
    """
    folder = ModelFolder.find(model)
    root = folder.root.resolve()
    with new_folder(root, overwrite=True) as partial:
        gallery, cohort = change(folder, read_known(folder)), None
        if (root / COHORT).is_file():
            cohort = read_cohort(root / COHORT, gallery.embeddings.shape[1])
        if cohort is not None or gallery.threshold >= OUT_OF_REACH:  # as of nobody
            pairs_threshold = folder.manifest().get("threshold")
            found = gallery_threshold(gallery, cohort, gallery.false_accepts, pairs_threshold)
            gallery = gallery._replace(threshold=found.cosine)
        copy_rest(root, partial)
        write_known(partial, folder, gallery, cohort)
        if (root / MODEL_SOFTMAX).is_file() and gallery.people:
            write_softmax(partial, gallery, cohort)
        kept = keep_photos(partial, kept_photos(root), gallery.photos)
        _write_manifest(partial, gallery, kept)
    return gallery


def _write_manifest(partial: Path, gallery: Gallery, kept: int) -> None:
    """What the manifest said of the model, but no longer of what was enrolled from where."""
    made = read_manifest(partial)
    fixed = {key: made[key] for key in ("alignment", "embedding_dim", "threshold") if key in made}
    counts = {"people": len(gallery.people), "photos": len(gallery.photos), "kept_photos": kept}
    write_manifest(partial, "people", {}, {}, gallery_threshold=gallery.threshold, **counts, **fixed)


def _listed(root: Path, gallery: Gallery) -> PeopleResult:
    people = [
        Person(name, class_id, int((gallery.person == class_id).sum()))
        for class_id, name in enumerate(gallery.people)
    ]
    return PeopleResult(root, people, gallery.threshold)
