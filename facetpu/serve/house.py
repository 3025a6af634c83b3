"""The house: its cameras, its people, what was seen; and all that can be asked of it, without HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..board.enrolment import Enrolled
from .answers import (
    CameraState,
    Enrolment,
    EventState,
    PersonState,
    Picture,
    Settings,
    ThresholdState,
)
from .notices import Subscription


def default_state(model: Path) -> Path:
    """The folder for what the house knows beside its model: ``NAME.state`` beside the folder ``model``."""
    raise NotImplementedError


def new_house(model: Path, out: Path) -> None:
    """Write to ``out`` a folder that knows nobody, from the export folder ``model``.

    Raises:
        FacetpuError: the model cannot be imprinted, or ``out`` exists.
    """
    raise NotImplementedError


class House:
    """All that happens, for any number of threads to ask and tell.

    A thread a camera keeps its newest frame; one thread looks at these in turn, and at what is to be
    enrolled. Errors that a user causes are those of ``refusals``.

    Attributes:
        state: the folder of events, crops, portraits and the audit log, mode 0700.
    """

    def __init__(self, model: Path, cameras: list[str], state: Path | None, settings: Settings) -> None:
        """Open the model and the state, and mend what a killed house left behind.

        Args:
            model: an imprinted folder, which is changed in place.
            cameras: see ``board.camera.Camera``; or video files, which are shown again and again.
            state: the folder to keep events in, made where it is missing; ``default_state`` unless given.
            settings: the rest.

        Raises:
            FacetpuError: the model has no gallery, a camera is no camera at all, or another house has
                the same state open.
        """
        raise NotImplementedError

    def start(self) -> None:
        """Begin to watch. Cameras that are not there are tried again until they are."""
        raise NotImplementedError

    def stop(self) -> None:
        """Watch no more: events end, subscriptions close, the state is given back."""
        raise NotImplementedError

    def __enter__(self) -> House:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- cameras

    def problem(self) -> str | None:
        """What is wrong with the house as a whole, in one line, such as a full disk; None for nothing."""
        raise NotImplementedError

    def cameras(self) -> list[CameraState]:
        """The cameras as they are now."""
        raise NotImplementedError

    def picture(self, camera: str, after: int = -1, timeout: float = 10.0) -> Picture | None:
        """The newest frame with boxes and names, encoded once however many ask; waits for it.

        Args:
            camera: its id.
            after: the number of a picture; wait for a later one.
            timeout: seconds to wait.

        Returns:
            None when there is none in time, as from a lost camera.

        Raises:
            Unknown: there is no such camera.
        """
        raise NotImplementedError

    # --- people

    def people(self) -> list[PersonState]:
        """Everyone, in the order of their class ids."""
        raise NotImplementedError

    def portrait(self, name: str) -> bytes | None:
        """A JPEG of ``name``; None where there is none.

        Raises:
            Unknown: nobody has that name.
        """
        raise NotImplementedError

    def rename(self, name: str, new: str) -> None:
        """Call ``name`` by ``new``, on past events too.

        Raises:
            Unknown: nobody has that name.
            Conflict: ``new`` is taken or too like another's.
            Refused: ``new`` is no name.
        """
        raise NotImplementedError

    def merge(self, name: str, into: str) -> None:
        """Count all of ``name`` as ``into``'s: two names that were one person's.

        Raises:
            Unknown: nobody has one of the names.
            Conflict: they are the same.
        """
        raise NotImplementedError

    def erase(self, name: str) -> None:
        """Forget ``name``: model, gallery, photos, portrait, and crop and name of each event of theirs.

        Raises:
            Unknown: nobody has that name.
        """
        raise NotImplementedError

    # --- enrolling

    def begin_enrolment(self, name: str, camera: str) -> Enrolment:
        """Begin to enrol ``name``, new or known, in front of ``camera``: five poses, taken by themselves.

        Raises:
            Unknown: there is no such camera.
            Refused: it is no name.
            Conflict: the name is too like another's, or the camera enrols somebody already.
            Busy: as many are open as may be.
        """
        raise NotImplementedError

    def enrolment(self, id: str) -> Enrolment:
        """How far an enrolment is; one that nobody asks after for a minute is given up.

        Raises:
            Unknown: there is none such, or no more.
        """
        raise NotImplementedError

    def take(self, id: str) -> Enrolment:
        """Look at the newest frame for the pose wanted; its ``refusal`` says why it was not taken.

        Raises:
            Unknown: there is no such enrolment.
            Busy: too much is waiting to be looked at.
        """
        raise NotImplementedError

    def finish(self, id: str) -> Enrolled:
        """Enrol the poses that were taken; those refused at last, beside all others, have their reasons.

        When not one can be used, ``added`` is 0 and nothing has changed.

        Raises:
            Unknown: there is no such enrolment.
            Conflict: too few poses are taken.
            Full: the disk is full; the enrolment is open still.
        """
        raise NotImplementedError

    def cancel(self, id: str) -> None:
        """Give an enrolment up; nothing of it is left.

        Raises:
            Unknown: there is no such enrolment.
        """
        raise NotImplementedError

    def enrol_photos(self, name: str, photos: list[bytes]) -> Enrolled:
        """Enrol ``name``, new or known, by photo files; each refused one has its reason.

        When not one can be used, ``added`` is 0 and nothing has changed.

        Args:
            name: theirs.
            photos: the files' bytes; they are called ``photo 1``, ``photo 2`` and so on in the answer.

        Raises:
            Refused: it is no name, or there is no photo.
            Conflict: the name is too like another's.
            Busy: too much is waiting to be looked at.
            Full: the disk is full.
        """
        raise NotImplementedError

    # --- events

    def events(self, before: int | None = None, limit: int = 50, name: str | None = None) -> list[EventState]:
        """Events, the newest first.

        Args:
            before: only those with a smaller id than this.
            limit: as many at most.
            name: only those that are this person's.
        """
        raise NotImplementedError

    def crop(self, event: int) -> bytes | None:
        """A JPEG of the face of an event; None where there is none.

        Raises:
            Unknown: there is no such event.
        """
        raise NotImplementedError

    def correct(self, event: int, name: str | None) -> EventState:
        """Say whose an event is: ``name``, new or known, or nobody's who is known.

        The crop becomes a photo of ``name``, unless something speaks against the picture: then ``refusal``
        of the answer says what. Whom an earlier correction gave the photo to loses it.

        Raises:
            Unknown: there is no such event.
            Refused: it is no name; or the name is new, and the crop cannot be a first photo of theirs.
            Conflict: the name is too like another's.
            Full: the disk is full.
        """
        raise NotImplementedError

    def forget(self, event: int) -> None:
        """Delete an event and its crop.

        Raises:
            Unknown: there is no such event.
        """
        raise NotImplementedError

    # --- threshold

    def threshold(self) -> ThresholdState:
        """From when on a face is somebody's, and what else could be chosen."""
        raise NotImplementedError

    def set_threshold(self, false_accepts: float) -> ThresholdState:
        """Let this share of strangers through.

        Raises:
            Refused: it is no share between 0 and 1, or the model has no strangers to set it by.
        """
        raise NotImplementedError

    # --- telling

    def subscribe(self) -> Subscription:
        """What happens from now on, to be closed when it is no longer wanted.

        Raises:
            Busy: as many listen as may.
        """
        raise NotImplementedError

    def audit(self, action: str, **facts: Any) -> None:
        """Add a line to the audit log: when, ``action``, and ``facts`` that JSON can say."""
        raise NotImplementedError
