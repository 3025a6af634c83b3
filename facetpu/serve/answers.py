"""What the house tells of itself. Every field is what JSON can say, but for pictures, which are JPEG bytes.

Times are Unix seconds by the wall clock, for people to read; nothing is counted by them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from ..board.faces import MIN_FACE

POSES = ("front", "left", "right", "up", "down")


class Settings(NamedTuple):
    """How the house is run.

    Attributes:
        keep_events_hours: until an event and its crop are forgotten.
        device: what runs the base, see ``board.devices.check_device``.
        detector: another detector than the model's, see ``board.faces.open_detector``.
        min_face: the smallest face to look for, in pixels.
    """

    keep_events_hours: float = 72.0
    device: str | None = None
    detector: Path | None = None
    min_face: int = MIN_FACE


class CameraState(NamedTuple):
    """A camera as it is now.

    Attributes:
        id: ``0``, ``1`` and so on, in the order they were given in.
        source: what was given, a password in it masked.
        state: ``starting``, ``watching`` or ``lost``; a lost one is opened again and again.
        frames_per_second: that are looked at.
        latency_ms: from having a frame to knowing who is on it, the median; None before the first.
        faces: in the picture now.
        people: the names of those of them who are known.
        problem: why it is lost, in one line.
    """

    id: str
    source: str
    state: str
    frames_per_second: float
    latency_ms: float | None
    faces: int
    people: list[str]
    problem: str | None


class Picture(NamedTuple):
    """A frame that was looked at, with boxes and names: its number, which only grows, and the JPEG."""

    number: int
    jpeg: bytes


class PersonState(NamedTuple):
    """A person.

    Attributes:
        name: theirs.
        photos: that they were enrolled with.
        last_seen: when an event of theirs was last; None for never.
        portrait: whether there is a picture of them.
    """

    name: str
    photos: int
    last_seen: float | None
    portrait: bool


class Enrolment(NamedTuple):
    """An enrolment by camera that is under way.

    Attributes:
        id: hard to guess.
        name: whom it enrols.
        camera: the camera's id.
        pose: that is wanted now, of ``POSES``; None when all are taken, or it is over.
        task: what to do now, in words.
        taken: the poses that there are, in the order they were taken in.
        refusal: what was wrong with the newest picture, in words; None for nothing.
        can_finish: whether the poses are enough.
    """

    id: str
    name: str
    camera: str
    pose: str | None
    task: str
    taken: list[str]
    refusal: str | None
    can_finish: bool


class EventState(NamedTuple):
    """Somebody was in the picture for a while.

    Attributes:
        id: grows from event to event.
        camera: the camera's id.
        track: the number of the face on its camera.
        name: whom the model took them for; None for a stranger.
        corrected: whether somebody said who it was.
        corrected_name: whom they named; None for nobody who is known.
        cosine: to the nearest person; None where nobody was enrolled.
        began: when.
        ended: when they were last seen.
        present: whether they are in the picture still.
        sightings: frames that they were on.
        crop: whether there is a picture.
        refusal: of a correction, why the crop did not become a photo of the person; None where it did.
    """

    id: int
    camera: str
    track: int
    name: str | None
    corrected: bool
    corrected_name: str | None
    cosine: float | None
    began: float
    ended: float
    present: bool
    sightings: int
    crop: bool
    refusal: str | None = None

    @property
    def who(self) -> str | None:
        """Whose event it is: as corrected, else as recognised."""
        return self.corrected_name if self.corrected else self.name


class ThresholdChoice(NamedTuple):
    """A share of strangers that would be let through, and the cosine that stands for it."""

    false_accepts: float
    cosine: float


class ThresholdState(NamedTuple):
    """From when on a face is somebody's.

    Attributes:
        cosine: to a person; None as long as nobody is enrolled.
        false_accepts: share of strangers that reach it.
        source: where it is from, in words.
        choices: others, by the same strangers; none without strangers or people.
    """

    cosine: float | None
    false_accepts: float
    source: str
    choices: list[ThresholdChoice]


class Notice(NamedTuple):
    """Something that happened just now.

    Attributes:
        kind: ``seen``, ``people``, ``camera``; or ``dropped``, the last one for a subscriber too slow.
        data: of ``seen`` an ``EventState`` and ``what``: ``appeared``, ``seen`` or ``left`` (its ``id`` is
            None where it could not be written down); of ``people`` a ``what`` (``enrolled``, ``renamed``,
            ``merged``, ``erased``, ``corrected``, ``threshold``, ``changed``) and the ``name`` it is
            about, with ``into`` where there are two; of ``camera`` a ``CameraState``.
    """

    kind: str
    data: dict[str, Any]
