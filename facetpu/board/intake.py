"""The photos of people to enrol: which are taken, which refused, and why."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..artefacts import digest
from ..errors import FacetpuError
from ..image import UnreadableImage
from ..people import people_under
from ..progress import progress
from .faces import FaceReader, NoFace, Sighting
from .gallery import Gallery


class Remark(NamedTuple):
    """Something to know about a photo, which is named relative to the folder of people."""

    photo: str
    text: str


class Portrait(NamedTuple):
    """A photo that was taken: whose, which, its SHA-256, and the face in it."""

    name: str
    photo: str
    digest: str
    sighting: Sighting


class Intake(NamedTuple):
    """What came of the photos; ``refused`` has every person's name for a key."""

    portraits: list[Portrait]
    refused: dict[str, list[Remark]]


def photos_of_people(root: Path) -> dict[str, list[Path]]:
    """The photos of each person in ``root``, by name.

    Raises:
        FacetpuError: there are none, a person's folder has none, or a name is unfit or double.
    """
    people = people_under(root)
    with_photos = {photos[0].relative_to(root).parts[0] for photos in people.values()}
    for entry in sorted(Path(root).iterdir()):
        if entry.is_dir() and not entry.name.startswith(".") and entry.name not in with_photos:
            raise FacetpuError(
                f"{entry}: holds no photo; put photos of {entry.name} there or remove the folder"
            )
    return people


def read_portraits(reader: FaceReader, root: Path, people: dict[str, list[Path]], known: Gallery) -> Intake:
    """The main face of every photo in ``people``.

    Args:
        reader: finds and embeds it.
        root: the folder the photos are in.
        people: their photos, by name.
        known: whom the model knows already; a photo that is in it is not taken twice.

    Raises:
        FacetpuError: a photo stands for two people, or no photo of a new person can be used.
    """
    owners = {sha: known.people[person] for sha, person in zip(known.photos, known.person)}
    intake = Intake([], {name: [] for name in people})
    listing = [(name, photo) for name, photos in people.items() for photo in photos]
    for name, photo in progress(listing, "enrol"):
        _take(intake, reader, name, photo, photo.relative_to(root).as_posix(), owners)
    taken = set(owners.values())
    for name, refused in intake.refused.items():
        if name not in taken:
            reasons = "; ".join(f"{remark.photo} {remark.text}" for remark in refused[:3])
            raise FacetpuError(f"{Path(root) / name}: no photo of {name} can be used: {reasons}")
    return intake


def _take(
    intake: Intake, reader: FaceReader, name: str, photo: Path, shown: str, owners: dict[str, str]
) -> None:
    """Add one photo to ``intake``, and to ``owners`` (by SHA-256) if it is taken."""
    sha = digest(photo)
    owner = owners.get(sha, name)
    if owner != name:
        raise FacetpuError(f"{photo}: is the same photo as one of {owner}; remove it from one of the two")
    if sha in owners:
        intake.refused[name].append(Remark(shown, "is enrolled already"))
        return
    try:
        sighting = reader.main_face(photo)
    except (UnreadableImage, NoFace) as error:
        intake.refused[name].append(Remark(shown, error.reason))
        return
    owners[sha] = name
    intake.portraits.append(Portrait(name, shown, sha, sighting))
