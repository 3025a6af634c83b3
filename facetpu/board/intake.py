"""The photos of people to enrol: the face in each, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..artefacts import digest
from ..errors import FacetpuError
from ..image import ARCFACE_SIZE, Face, UnreadableImage, align_face, read_image
from ..mtcnn.detector import main_face
from ..people import people_under
from ..progress import progress
from ..quality import fingerprint
from .checks import Fault, picture_faults
from .faces import NO_FACE, FaceReader
from .gallery import Gallery


class Look(NamedTuple):
    """The main face of a photo, as it is enrolled.

    Attributes:
        row: [D], what the base wrote for it, in the base's type.
        embedding: float32 [D], of length 1.
        fingerprint: of its crop.
        faces: how many the photo has.
        crop: uint8 [112, 112, 3], where crops were asked for.
    """

    row: np.ndarray
    embedding: np.ndarray
    fingerprint: int
    faces: int
    crop: np.ndarray | None


class Candidate(NamedTuple):
    """A photo that was given.

    Attributes:
        name: whose.
        photo: which, named relative to the folder of people.
        path: its file; of one that is in memory only what messages call it.
        digest: SHA-256 of the file.
        look: the face in it; None where it cannot be enrolled at all.
        faults: what speaks against it; none for a good one.
    """

    name: str
    photo: str
    path: Path
    digest: str
    look: Look | None
    faults: list[Fault]

    @property
    def good(self) -> bool:
        """Whether it shows a face and nothing speaks against it."""
        return self.look is not None and not self.faults


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


def read_candidates(
    reader: FaceReader, root: Path, people: dict[str, list[Path]], known: Gallery, crops: bool
) -> list[Candidate]:
    """The main face of every photo in ``people``, with what is wrong with its picture.

    Args:
        reader: finds and embeds it.
        root: the folder the photos are in.
        people: their photos, by name.
        known: whom the model knows already; a photo that is in it is not taken twice.
        crops: keep the crops.

    Raises:
        FacetpuError: a photo stands for two people.
    """
    owners = {sha: known.people[person] for sha, person in zip(known.photos, known.person)}
    listing = [(name, photo) for name, photos in people.items() for photo in photos]
    candidates = []
    for name, path in progress(listing, "enrol"):
        sha = digest(path)
        owner = owners.get(sha, name)
        if owner != name:
            raise FacetpuError(f"{path}: is the same photo as one of {owner}; remove it from one of the two")
        look, faults = None, [Fault("known", "is enrolled already")]
        if sha not in owners:
            look, faults = _looked_at(reader, path, crops)
        if look is not None:
            owners[sha] = name
        candidates.append(Candidate(name, path.relative_to(root).as_posix(), path, sha, look, faults))
    return candidates


def _looked_at(reader: FaceReader, path: Path, crops: bool) -> tuple[Look | None, list[Fault]]:
    """The face in a photo and the faults of its picture; no face where there is none to enrol."""
    try:
        image = read_image(path)
    except UnreadableImage as error:
        return None, [Fault("unreadable", error.reason)]
    return look_at(reader, image, reader.detector.detect(image), crops)


def look_at(
    reader: FaceReader, image: np.ndarray, faces: list[Face], crops: bool = False
) -> tuple[Look | None, list[Fault]]:
    """The main one of ``faces`` and the faults of its picture; no look where there is none to enrol.

    Args:
        reader: embeds it.
        image: uint8 [H, W, 3] RGB.
        faces: all those in it.
        crops: keep the crop.
    """
    if not faces:
        return None, [Fault("no face", NO_FACE)]
    face = main_face(faces, image.shape)
    row = reader.embedder.run(align_face(image, face, *reader.embedder.alignment)[None])
    crop = align_face(image, face, "arcface", ARCFACE_SIZE)  # of whatever form the model takes
    embedding = reader.embedder.dequantised(row)[0]
    look = Look(row[0], embedding, fingerprint(crop), len(faces), crop if crops else None)
    return look, picture_faults(face, faces, crop)
