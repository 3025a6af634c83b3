"""The people that a model knows: listed, forgotten, renamed.

Nothing is trained or measured again: the model's rows are made anew from the gallery, in which the
others' embeddings stay as they are.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import NamedTuple

from ..artefacts import new_folder, read_manifest, write_manifest
from ..errors import FacetpuError
from ..labels import check_distinct, check_name
from .folder import COHORT, ModelFolder
from .gallery import Gallery
from .recogniser import copy_rest, read_known, write_known
from .threshold import gallery_threshold, read_cohort


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
        width = max(len(person.name) for person in self.people)
        lines = [f"{person.name:{width}}  {person.photos} photos" for person in self.people]
        return "\n".join([*lines, f"threshold {self.threshold:.3f}"])


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
    folder = ModelFolder.find(model)
    gallery = read_known(folder)
    name = _known_name(folder, gallery, name)
    if len(gallery.people) == 1:
        raise FacetpuError(
            f"{folder.root}: knows nobody but {name}, and a model needs somebody; delete the folder"
        )
    return _rewrite(folder, gallery.without(name))


def rename_person(model: Path, name: str, new_name: str) -> PeopleResult:
    """Call ``name`` by ``new_name``; the class id stays.

    Raises:
        FacetpuError: nobody has that name, or the new one is unfit or another's.
    """
    folder = ModelFolder.find(model)
    gallery = read_known(folder)
    renamed = gallery.renamed(_known_name(folder, gallery, name), check_name(new_name, "the new name"))
    if len(set(renamed.people)) < len(renamed.people):
        raise FacetpuError(f"{folder.root}: knows {new_name} already; choose another name")
    check_distinct(renamed.people, str(folder.root))
    return _rewrite(folder, renamed)


def _known_name(folder: ModelFolder, gallery: Gallery, name: str) -> str:
    """``name`` as the gallery spells it: terminals differ in how they compose an accented letter."""
    normal = unicodedata.normalize("NFC", name)
    if normal not in gallery.people:
        raise FacetpuError(f"{folder.root}: knows no {name!r}, but {', '.join(gallery.people)}")
    return normal


def _rewrite(folder: ModelFolder, gallery: Gallery) -> PeopleResult:
    """Put a folder that knows ``gallery`` in the place of ``folder``, whole."""
    root = folder.root.resolve()
    pairs_threshold = folder.manifest().get("threshold")
    if (root / COHORT).is_file():
        cohort = read_cohort(root / COHORT, gallery.embeddings.shape[1])
        found = gallery_threshold(gallery, cohort, gallery.false_accepts, pairs_threshold)
        gallery = gallery._replace(threshold=found.cosine)
    with new_folder(root, overwrite=True) as partial:
        copy_rest(root, partial)
        write_known(partial, folder, gallery)
        _write_manifest(partial, gallery)
    return _listed(folder.root, gallery)


def _write_manifest(partial: Path, gallery: Gallery) -> None:
    """What the manifest said of the model, but no longer of what was enrolled from where."""
    made = read_manifest(partial)
    kept = {key: made[key] for key in ("alignment", "embedding_dim", "threshold") if key in made}
    counts = {"people": len(gallery.people), "photos": len(gallery.photos)}
    write_manifest(partial, "people", {}, {}, gallery_threshold=gallery.threshold, **counts, **kept)


def _listed(root: Path, gallery: Gallery) -> PeopleResult:
    people = [
        Person(name, class_id, int((gallery.person == class_id).sum()))
        for class_id, name in enumerate(gallery.people)
    ]
    return PeopleResult(root, people, gallery.threshold)
