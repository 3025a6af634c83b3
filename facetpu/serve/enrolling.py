"""Enrolling in front of a camera: five poses in turn, each taken by itself once it is good."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from pathlib import Path
from statistics import median
from typing import Callable, NamedTuple

import numpy as np

from ..board.faces import FaceReader, KnownFace
from ..board.intake import Candidate, Look, look_at
from ..image import Face
from ..mtcnn.detector import main_face
from ..quality import SAME_PICTURE, distance
from .answers import POSES, Enrolment
from .crops import face_picture
from .poses import LEVEL, TASKS, nose_height, pose_fault
from .refusals import Busy, Conflict, Unknown

OPEN = 4  # enrolments at once
UNASKED = 60.0  # seconds until one that nobody asks after is given up
LONGEST = 600.0  # seconds that one may take
ENOUGH = 3  # poses: not everybody can nod
APART = 0.7  # seconds between two poses, for the person to see that one was taken
LIKE = 0.75  # of the model's 1:1 threshold: what the poses of one person are to each other at the least

# What to do about a fault of the picture, for who stands before a camera.
_ADVICE = {
    "no face": "nobody is in the picture; come before the camera",
    "several faces": "several people are in the picture; stand there alone",
    "tiny": "come nearer to the camera",
    "turned away": "turn your head back a little",
    "dark": "it is too dark; turn on a light",
    "bright": "it is too bright; turn away from the light",
    "flat": "the picture has too little contrast; wipe the lens or turn to the light",
    "blurred": "hold still",
}


class Shot(NamedTuple):
    """A pose that was taken: the face as it is enrolled, its landmarks, and a picture of it."""

    pose: str
    look: Look
    landmarks: np.ndarray
    picture: bytes
    digest: str


class _Open:
    """An enrolment that is under way."""

    def __init__(self, name: str, camera: str) -> None:
        self.id, self.name, self.camera = secrets.token_urlsafe(12), name, camera
        self.shots: list[Shot] = []
        self.refusal: str | None = None
        self.begun = self.asked = time.monotonic()
        self.taken_at = 0.0

    @property
    def pose(self) -> str | None:
        return POSES[len(self.shots)] if len(self.shots) < len(POSES) else None

    def state(self) -> Enrolment:
        pose = self.pose
        task = "all poses are taken: finish" if pose is None else TASKS[pose]
        taken = [shot.pose for shot in self.shots]
        can_finish = len(taken) >= ENOUGH
        return Enrolment(self.id, self.name, self.camera, pose, task, taken, self.refusal, can_finish)


class Enrolments:
    """Those that are under way; for any thread, but ``look`` for that which looks at the cameras only."""

    def __init__(self, reader: FaceReader, pairs_threshold: float | None) -> None:
        """Nobody is being enrolled yet.

        Args:
            reader: embeds the faces.
            pairs_threshold: cosine from which two faces are one person's; None where it is not known.
        """
        self._reader = reader
        self._least = -1.0 if pairs_threshold is None else LIKE * pairs_threshold
        self._lock = threading.Lock()
        self._open: dict[str, _Open] = {}

    def begin(self, name: str, camera: str) -> Enrolment:
        """Begin to enrol ``name``, a checked one, before ``camera``.

        Raises:
            Conflict: the camera enrols somebody already.
            Busy: as many are open as may be.
        """
        with self._lock:
            self._give_up()
            if any(other.camera == camera for other in self._open.values()):
                raise Conflict(f"camera {camera} enrols somebody already; finish that first, or cancel it")
            if len(self._open) >= OPEN:
                raise Busy(f"{OPEN} people are being enrolled already; try again in a minute")
            enrolment = _Open(name, camera)
            self._open[enrolment.id] = enrolment
            return enrolment.state()

    def state(self, id: str) -> Enrolment:
        """How far one is.

        Raises:
            Unknown: there is none such, or no more.
        """
        with self._lock:
            return self._asked(id).state()

    def cancel(self, id: str) -> None:
        """Give one up.

        Raises:
            Unknown: there is none such, or no more.
        """
        with self._lock:
            self._asked(id)
            del self._open[id]

    def finish(self, id: str, enrol: Callable[[str, list[Shot]], None]) -> None:
        """Have ``enrol`` do with the name and the poses what it does; the enrolment is over if it succeeds.

        Raises:
            Unknown: there is none such, or no more.
            Conflict: too few poses are taken.
        """
        with self._lock:
            enrolment = self._asked(id)
            if len(enrolment.shots) < ENOUGH:
                raise Conflict(f"{len(enrolment.shots)} poses are taken; {ENOUGH} at least are needed")
            del self._open[id]  # so that nobody else finishes it too
        try:
            enrol(enrolment.name, enrolment.shots)
        except BaseException:
            with self._lock:
                self._open[id] = enrolment
            raise

    def forget(self, name: str, new: str | None = None) -> None:
        """Give up those of ``name``; or go on with them as ``new``."""
        with self._lock:
            for enrolment in [one for one in self._open.values() if one.name == name]:
                if new is None:
                    del self._open[enrolment.id]
                else:
                    enrolment.name = new

    def at(self, camera: str) -> str | None:
        """The id of the enrolment before ``camera``, for which ``look`` is to be called."""
        with self._lock:
            self._give_up()
            return next((one.id for one in self._open.values() if one.camera == camera), None)

    def look(self, id: str, image: np.ndarray, faces: list[KnownFace], by_itself: bool = True) -> None:
        """Take the pose that is wanted from a frame, if it is there; else say why not.

        Args:
            id: of the enrolment; nothing happens where it is over.
            image: uint8 [H, W, 3] RGB.
            faces: those on it.
            by_itself: nobody asked for it now; there are pauses between two poses then.
        """
        with self._lock:
            enrolment = self._open.get(id)
            if enrolment is None or enrolment.pose is None:
                return
            if by_itself and time.monotonic() - enrolment.taken_at < APART:
                return
            pose, shots, name = enrolment.pose, list(enrolment.shots), enrolment.name
        shot, refusal = self._judged(pose, shots, name, image, faces)
        with self._lock:
            if enrolment.pose != pose:  # taken meanwhile
                return
            enrolment.refusal = refusal
            if shot is not None:
                enrolment.shots.append(shot)
                enrolment.taken_at = time.monotonic()

    def _judged(
        self, pose: str, shots: list[Shot], name: str, image: np.ndarray, faces: list[KnownFace]
    ) -> tuple[Shot | None, str | None]:
        """The frame as ``pose`` of ``name``, who has taken ``shots``; or why it is none."""
        found = [Face(_box(face), face.score, np.array(face.landmarks)) for face in faces]
        look, faults = look_at(self._reader, image, found, crops=True)
        if look is None or look.crop is None or faults:
            return None, _ADVICE[faults[0].kind]
        face = main_face(found, image.shape)
        heights = [nose_height(shot.landmarks) for shot in shots if shot.pose in LEVEL]
        refusal = (
            self._someone_else(look, faces[found.index(face)], shots, name)
            or pose_fault(pose, face.landmarks, median(heights) if heights else None)
            or _too_like(look, shots)
        )
        if refusal is not None:
            return None, refusal
        digest = hashlib.sha256(look.crop.tobytes()).hexdigest()
        return Shot(
            pose, look._replace(crop=None), face.landmarks, face_picture(image, face.box), digest
        ), None

    def _someone_else(self, look: Look, face: KnownFace, shots: list[Shot], name: str) -> str | None:
        """Why the face is probably not that of ``name``."""
        own = max((float(shot.look.embedding @ look.embedding) for shot in shots), default=-1.0)
        if face.name not in (None, name) and face.cosine > own:
            return f"this looks like {face.name}; is it {name}?"
        if shots and own < self._least:
            return "this looks like someone else than before; one person at a time"
        return None

    def _asked(self, id: str) -> _Open:
        self._give_up()
        if id not in self._open:
            raise Unknown("there is no such enrolment; it may have been given up: begin again")
        self._open[id].asked = time.monotonic()
        return self._open[id]

    def _give_up(self) -> None:
        now = time.monotonic()
        self._open = {
            id: one
            for id, one in self._open.items()
            if now - one.asked <= UNASKED and now - one.begun <= LONGEST
        }


def candidates_of(name: str, shots: list[Shot]) -> list[Candidate]:
    """The poses of ``name`` as photos to be enrolled, called by the poses."""
    return [Candidate(name, shot.pose, Path(shot.pose), shot.digest, shot.look, []) for shot in shots]


def _box(face: KnownFace) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = face.box
    return x1, y1, x2, y2


def _too_like(look: Look, shots: list[Shot]) -> str | None:
    if any(distance(look.fingerprint, shot.look.fingerprint) <= SAME_PICTURE for shot in shots):
        return "this is too like a pose that is taken; move a little"
    return None
