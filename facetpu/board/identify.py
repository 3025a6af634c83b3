"""Who is in a photo (1:N); and whether two photos show one person (1:1)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..artefacts import MANIFEST, check_new, new_folder
from ..errors import FacetpuError
from ..image import UnreadableImage, read_image, write_png
from ..people import photos_under
from ..progress import progress
from .draw import draw_faces
from .faces import MIN_FACE, FaceReader, KnownFace, Sighting
from .folder import ModelFolder
from .gallery import Gallery, Match
from .match import Matcher
from .recogniser import read_known
from .timing import Profile

log = logging.getLogger(__name__)


class PhotoFaces(NamedTuple):
    """The faces of a photo, the surest first; or the reason why it could not be read."""

    photo: Path
    faces: list[KnownFace]
    error: str | None = None

    def __str__(self) -> str:
        return f"{self.photo}: {self.error or _listed(self.faces) or 'no face'}"


class IdentifyResult(NamedTuple):
    """What each photo shows; and the time of each step, where it was asked for."""

    photos: list[PhotoFaces]
    profile: Profile | None = None

    @property
    def problem(self) -> str | None:
        """How many photos could not be read, where there are such."""
        unreadable = [photo for photo in self.photos if photo.error]
        if not unreadable:
            return None
        return f"{len(unreadable)} of {len(self.photos)} photos cannot be read, {unreadable[0].photo} for one"

    def __str__(self) -> str:
        return "\n".join(str(part) for part in [*self.photos, self.profile] if part is not None)


class VerifyResult(NamedTuple):
    """Whether two photos show one person: the cosine of their main faces reaches the threshold."""

    same: bool
    cosine: float
    threshold: float

    def __str__(self) -> str:
        verdict = "the same person" if self.same else "different people"
        return f"{verdict}: cosine {self.cosine:.3f}, threshold {self.threshold:.3f}"


class Identifier:
    """Names the faces in pictures, by the people that a model knows.

    Attributes:
        gallery: whom it knows.
        threshold: cosine from which a face is known.
        reader: what finds and embeds the faces.
        stopwatch: how long each step took.
    """

    def __init__(
        self,
        model: Path,
        threshold: float | None = None,
        device: str | None = None,
        detector: Path | None = None,
        min_face: int = MIN_FACE,
    ) -> None:
        """Open ``model``, an imprinted folder.

        Args:
            model: the folder, or a model in it.
            threshold: cosine from which a face is known; the gallery's unless given.
            device: what runs the base: ``cpu``, or which Edge TPU, see ``devices.check_device``.
            detector: another detector than the folder's, see ``faces.open_detector``.
            min_face: the smallest face to look for, in pixels.

        Raises:
            FacetpuError: the model, its detector or its gallery is missing, damaged or another's.
        """
        self.know(read_known(ModelFolder.find(model)), threshold)
        self.reader = FaceReader(model, device, detector, min_face)
        self.stopwatch = self.reader.stopwatch

    def know(self, gallery: Gallery, threshold: float | None = None) -> None:
        """Name faces by ``gallery`` from now on, which is of the same base."""
        self.gallery = gallery
        self.threshold = gallery.threshold if threshold is None else threshold
        self._match = Matcher(gallery)

    def faces(self, image: np.ndarray) -> list[KnownFace]:
        """Every face in ``image`` (uint8 [H, W, 3], RGB), the surest first."""
        return self.recognise(image)[0]

    def recognise(self, image: np.ndarray) -> tuple[list[KnownFace], np.ndarray]:
        """Every face in ``image`` (uint8 [H, W, 3], RGB), the surest first, and their embeddings [n, D]."""
        sightings = self.reader.all_faces(image)
        embeddings = np.array([sighting.embedding for sighting in sightings])
        with self.stopwatch.time("head"):
            matches = self._match(embeddings)
        return [self._named(*found) for found in zip(sightings, matches)], embeddings

    def _named(self, sighting: Sighting, match: Match) -> KnownFace:
        second = match.second_cosine
        return KnownFace(
            name=match.name if match.cosine >= self.threshold else None,
            cosine=round(match.cosine, 6),
            threshold=self.threshold,
            box=np.round(sighting.face.box, 2).tolist(),
            landmarks=np.round(sighting.face.landmarks, 2).tolist(),
            score=round(float(sighting.face.score), 6),
            margin=None if second is None else round(match.cosine - second, 6),
        )


def identify(
    model: Path,
    photos: list[Path],
    threshold: float | None = None,
    draw: Path | None = None,
    overwrite: bool = False,
    profile: bool = False,
    **opening: Any,
) -> IdentifyResult:
    """Say who is in ``photos``.

    A photo that cannot be read is listed with its reason and stops nothing; it is the result's
    ``problem``, for which the command exits 1 when all others are done.

    Args:
        model: an imprinted folder, or a model in it.
        photos: files, and folders whose photos are taken.
        threshold: cosine from which a face is known; the gallery's unless given.
        draw: folder for copies of the photos with boxes and names.
        overwrite: replace what facetpu wrote to ``draw`` before.
        profile: give the time of each step.
        opening: device, detector and min_face, as ``Identifier`` takes them.

    Raises:
        FacetpuError: the model cannot be used, a folder holds no photo, or ``draw`` exists.
    """
    files = _expanded(photos)
    if draw is not None:
        check_new(draw, overwrite)
    identifier = Identifier(model, threshold, **opening)
    if draw is None:
        found = _in_photos(identifier, files, None)
    else:
        with new_folder(draw, overwrite) as partial:
            found = _in_photos(identifier, files, partial)
            # A manifest lets the folder be replaced.
            (partial / MANIFEST).write_text('{"stage": "identify"}\n', encoding="utf-8")
    return IdentifyResult(found, identifier.stopwatch.profile() if profile else None)


def verify(
    model: Path, photo: Path, other: Path, threshold: float | None = None, **opening: Any
) -> VerifyResult:
    """Say whether the main faces of ``photo`` and ``other`` are one person's.

    Args:
        model: an export folder or an imprinted one, or a model in it.
        photo: a photo.
        other: another.
        threshold: cosine from which they are; the model's 1:1 threshold unless given.
        opening: device, detector and min_face, as ``FaceReader`` takes them.

    Raises:
        FacetpuError: a photo cannot be read or shows no face, or the model has no 1:1 threshold.
    """
    folder = ModelFolder.find(model)
    reader = FaceReader(model, **opening)
    known = folder.manifest().get("threshold") if threshold is None else threshold
    if known is None:
        raise FacetpuError(f"{folder.root / MANIFEST}: has no threshold for two photos; pass --threshold")
    first, second = (reader.main_face(Path(path)) for path in (photo, other))
    for path, sighting in ((photo, first), (other, second)):
        if sighting.others:
            log.warning("%s: shows %d faces; the main one is taken", path, sighting.others + 1)
    cosine = float(first.embedding @ second.embedding)
    return VerifyResult(cosine >= known, round(cosine, 6), float(known))


def _expanded(photos: list[Path]) -> list[Path]:
    """``photos`` with each folder among them replaced by the photos in it."""
    files = []
    for path in map(Path, photos):
        files += photos_under(path) if path.is_dir() else [path]
    return files


def _in_photos(identifier: Identifier, files: list[Path], draw: Path | None) -> list[PhotoFaces]:
    """The faces of each file, drawn into the folder ``draw`` where it is given."""
    found = []
    for number, file in enumerate(progress(files, "identify"), 1):
        identifier.stopwatch.picture()
        try:
            with identifier.stopwatch.time("read"):
                image = read_image(file)
        except UnreadableImage as error:
            found.append(PhotoFaces(file, [], error.reason))
            continue
        faces = identifier.faces(image)
        found.append(PhotoFaces(file, faces))
        if draw is not None:
            # Numbered, since photos of several folders may share a name.
            write_png(draw / f"{number:0{len(str(len(files)))}d}-{file.stem}.png", draw_faces(image, faces))
    return found


def _listed(faces: list[KnownFace]) -> str:
    return ", ".join(map(str, faces))
