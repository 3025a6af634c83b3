"""From a photo to the faces in it, each with its embedding: what enrolling and identifying share."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import FacetpuError
from ..image import Face, align_face, read_image
from ..mtcnn.detector import Detector, main_face
from . import ssd
from .embed import Embedder
from .folder import DETECTOR, ModelFolder
from .timing import Stopwatch

MIN_FACE = 20
NO_FACE = "shows no face; take another, with the face larger and from the front"


class NoFace(FacetpuError):
    """A photo shows no face.

    Attributes:
        reason: so, and what to do, without the path.
    """

    def __init__(self, path: Path) -> None:
        """Say of ``path`` that it shows no face."""
        self.reason = NO_FACE
        super().__init__(f"{path}: {self.reason}")


class Sighting(NamedTuple):
    """A face in a photo.

    Attributes:
        face: where it is.
        row: [D], what the base wrote for it, in the base's type.
        embedding: float32 [D], of length 1.
        others: how many more faces the photo has.
    """

    face: Face
    row: np.ndarray
    embedding: np.ndarray
    others: int


class KnownFace(NamedTuple):
    """A face and whose it is.

    Attributes:
        name: the person; None for a stranger.
        cosine: to the nearest person.
        threshold: the cosine from which the face is theirs.
        box: x1, y1, x2, y2 in pixels of the photo.
        landmarks: x, y of left eye, right eye, nose, left and right corner of the mouth.
        score: the detector's probability that it is a face.
        margin: by how much the nearest person is nearer than the second; None where only one is known.
    """

    name: str | None
    cosine: float
    threshold: float
    box: list[float]
    landmarks: list[list[float]]
    score: float
    margin: float | None = None

    def __str__(self) -> str:
        return f"{self.name or 'stranger'} {self.cosine:.2f}"


def open_detector(
    detector: Path | None, folder: ModelFolder, min_face: int = MIN_FACE, device: str | None = None
) -> Detector:
    """What finds faces.

    Args:
        detector: a folder of MTCNN's three networks, or an SSD model (.tflite), which proposes faces to
            the networks of ``folder``; ``folder``'s own MTCNN unless given.
        folder: the model's.
        min_face: the smallest face to look for, in pixels.
        device: what runs an SSD model: ``cpu``, or which Edge TPU.

    Raises:
        FacetpuError: there is no such detector, or it cannot be opened.
    """
    if detector is None:
        return Detector(folder.needed(DETECTOR, "facetpu export"), min_face)
    detector = Path(detector)
    if detector.suffix == ".tflite":
        return ssd.Detector(detector, folder.needed(DETECTOR, "facetpu export"), min_face, device)
    return Detector(detector, min_face)


class FaceReader:
    """Finds faces and embeds them, with the detector and the base of one model folder.

    Attributes:
        embedder: what gives the embeddings.
        detector: what finds the faces.
        stopwatch: how long each step took.
    """

    def __init__(
        self,
        model: Path,
        device: str | None = None,
        detector: Path | None = None,
        min_face: int = MIN_FACE,
    ) -> None:
        """Open the detector and the base of ``model``.

        Args:
            model: a folder that facetpu wrote, or a model in it.
            device: what runs the base, and an SSD detector: ``cpu``, or which Edge TPU.
            detector: another detector than the one in the folder, see ``open_detector``.
            min_face: the smallest face to look for, in pixels.

        Raises:
            FacetpuError: one of them is missing or cannot be opened on this machine.
        """
        folder = ModelFolder.find(model)
        self.embedder = Embedder(model, device=device)
        self.detector = open_detector(detector, folder, min_face, device)
        self.stopwatch = Stopwatch()

    def all_faces(self, image: np.ndarray) -> list[Sighting]:
        """Every face in ``image`` (uint8 [H, W, 3], RGB), the surest first."""
        with self.stopwatch.time("detect"):
            faces = self.detector.detect(image)
        return self._sightings(image, faces)

    def main_face(self, photo: Path) -> Sighting:
        """The face that ``photo`` is a portrait of.

        Raises:
            UnreadableImage: the file is no photo, or not a whole one.
            NoFace: it shows none.
        """
        image = read_image(photo)
        faces = self.detector.detect(image)
        if not faces:
            raise NoFace(photo)
        (sighting,) = self._sightings(image, [main_face(faces, image.shape)])
        return sighting._replace(others=len(faces) - 1)

    def _sightings(self, image: np.ndarray, faces: list[Face]) -> list[Sighting]:
        if not faces:
            return []
        self.stopwatch.faces(len(faces))
        with self.stopwatch.time("align"):
            crops = np.stack([align_face(image, face, *self.embedder.alignment) for face in faces])
        with self.stopwatch.time("base"):
            rows = self.embedder.run(crops)
            embeddings = self.embedder.dequantised(rows)
        return [Sighting(*found, others=len(faces) - 1) for found in zip(faces, rows, embeddings)]
