"""The house: its cameras, its people, what was seen; and all that can be asked of it, without HTTP."""

from __future__ import annotations

import functools
import logging
import time
from pathlib import Path
from typing import Any, Callable

import numpy as np

from ..board.enrolment import Enrolled
from ..board.folder import ModelFolder
from ..board.identify import Identifier
from ..errors import FacetpuError
from .answers import (
    CameraState,
    Enrolment,
    EventState,
    PersonState,
    Picture,
    Settings,
    ThresholdState,
)
from .audit import AuditLog
from .cameras import Eye, Taken, check_sources
from .clock import HouseClock
from .diary import Diary, Intent
from .household import Household
from .nobody import new_house as new_house
from .notices import Notices, Subscription
from .refusals import Full, Unknown
from .roster import Roster, proper_name
from .state import StateLock
from .watching import Watch
from .worker import Worker

log = logging.getLogger(__name__)

MOST_EVENTS_AT_ONCE = 200
TENDED_EVERY = 2.0  # seconds
SWEPT_EVERY = 60.0  # seconds


def default_state(model: Path) -> Path:
    """The folder for what the house knows beside its model: ``NAME.state`` beside the folder ``model``."""
    root = ModelFolder.find(model).root.resolve()
    return root.with_name(f"{root.name}.state")


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
        check_sources(cameras)
        self._roster = Roster(model)
        self._identifier = Identifier(model, None, settings.device, settings.detector, settings.min_face)
        self.state = default_state(model) if state is None else Path(state)
        self._claim = StateLock(self.state)
        try:
            self._open(cameras, settings)
        except BaseException:
            self._claim.release()
            raise

    def _open(self, cameras: list[str], settings: Settings) -> None:
        self._diary, self._audit = Diary(self.state), AuditLog(self.state)
        self._clock = HouseClock(self._diary.left_at())
        self._keep = 3600.0 * settings.keep_events_hours
        self._notices = Notices()
        self._worker = Worker(self._round)
        self._watches = {
            str(number): self._watch(str(number), camera) for number, camera in enumerate(cameras)
        }
        self._troubles: dict[str, str] = {}
        self._stopped = False
        self._tended, self._swept = -TENDED_EVERY, -SWEPT_EVERY
        self._household = Household(
            self._roster,
            self._identifier,
            self._diary,
            self._notices,
            self._audit,
            self._worker,
            self._begin_anew,
        )

    def start(self) -> None:
        """Begin to watch. Cameras that are not there are tried again until they are."""
        for watch in self._watches.values():
            watch.eye.start()
        self._worker.start()

    def stop(self) -> None:
        """Watch no more: events end, subscriptions close, the state is given back."""
        if self._stopped:
            return
        self._stopped = True
        for watch in self._watches.values():
            watch.live.end()
            watch.eye.stop()
        self._worker.stop()
        try:
            self._begin_anew()
            self._diary.leave_at(self._clock.now())
        except Full as error:
            log.warning("%s", error)
        self._notices.end()
        self._diary.close()
        self._claim.release()

    def __enter__(self) -> House:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- cameras

    def problem(self) -> str | None:
        """What is wrong with the house as a whole, in one line, such as a full disk; None for nothing."""
        problems = [*list(self._troubles.values()), *(watch.problem for watch in self._watches.values())]
        return next((problem for problem in problems if problem is not None), None)

    def cameras(self) -> list[CameraState]:
        """The cameras as they are now."""
        return [watch.state() for watch in self._watches.values()]

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
        return self._camera(camera).live.picture(after, timeout)

    # --- people

    def people(self) -> list[PersonState]:
        """Everyone, in the order of their class ids."""
        gallery = self._roster.gallery
        counts = np.bincount(gallery.person, minlength=len(gallery.people)).tolist()
        seen, portraits = self._diary.last_seen(), self._diary.with_portrait()
        return [
            PersonState(name, photos, seen.get(name), name in portraits)
            for name, photos in zip(gallery.people, counts)
        ]

    def portrait(self, name: str) -> bytes | None:
        """A JPEG of ``name``; None where there is none.

        Raises:
            Unknown: nobody has that name.
        """
        return self._diary.portrait(self._roster.known(name))

    def rename(self, name: str, new: str) -> None:
        """Call ``name`` by ``new``, on past events too.

        Raises:
            Unknown: nobody has that name.
            Conflict: ``new`` is taken or too like another's.
            Refused: ``new`` is no name.
        """
        self._household.change(Intent(0, "rename", self._roster.known(name), proper_name(new)))

    def merge(self, name: str, into: str) -> None:
        """Count all of ``name`` as ``into``'s: two names that were one person's.

        Raises:
            Unknown: nobody has one of the names.
            Conflict: they are the same.
        """
        self._household.change(Intent(0, "merge", self._roster.known(name), self._roster.known(into)))

    def erase(self, name: str) -> None:
        """Forget ``name``: model, gallery, photos, portrait, and crop and name of each event of theirs.

        Raises:
            Unknown: nobody has that name.
        """
        self._household.change(Intent(0, "erase", self._roster.known(name), None))

    # --- enrolling

    def begin_enrolment(self, name: str, camera: str) -> Enrolment:
        """Begin to enrol ``name``, new or known, in front of ``camera``: five poses, taken by themselves.

        Raises:
            Unknown: there is no such camera.
            Refused: it is no name.
            Conflict: the name is too like another's, or the camera enrols somebody already.
            Busy: as many are open as may be.
        """
        self._camera(camera)
        return self._household.enrolments.begin(self._roster.checked(name), camera)

    def enrolment(self, id: str) -> Enrolment:
        """How far an enrolment is; one that nobody asks after for a minute is given up.

        Raises:
            Unknown: there is none such, or no more.
        """
        return self._with_camera(self._household.enrolments.state(id))

    def take(self, id: str) -> Enrolment:
        """Look at the newest frame for the pose wanted; its ``refusal`` says why it was not taken.

        Raises:
            Unknown: there is no such enrolment.
            Busy: too much is waiting to be looked at.
        """
        watch = self._camera(self._household.enrolments.state(id).camera)

        def look() -> None:
            image, faces = watch.newest or (np.zeros((1, 1, 3), np.uint8), [])
            self._household.enrolments.look(id, image, faces, by_itself=False)

        self._worker.ask(look)
        return self._with_camera(self._household.enrolments.state(id))

    def finish(self, id: str) -> Enrolled:
        """Enrol the poses that were taken; those refused at last, beside all others, have their reasons.

        When not one can be used, ``added`` is 0 and nothing has changed.

        Raises:
            Unknown: there is no such enrolment.
            Conflict: too few poses are taken.
            Full: the disk is full; the enrolment is open still.
        """
        return self._household.finish(id)

    def cancel(self, id: str) -> None:
        """Give an enrolment up; nothing of it is left.

        Raises:
            Unknown: there is no such enrolment.
        """
        self._household.enrolments.cancel(id)

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
        return self._household.enrol_photos(name, photos)

    # --- events

    def events(self, before: int | None = None, limit: int = 50, name: str | None = None) -> list[EventState]:
        """Events, the newest first.

        Args:
            before: only those with a smaller id than this.
            limit: as many at most.
            name: only those that are this person's.
        """
        return self._diary.events(before, max(1, min(limit, MOST_EVENTS_AT_ONCE)), name)

    def present(self) -> list[EventState]:
        """The events of those who are in the picture now, the newest first."""
        return self._diary.present()

    def crop(self, event: int) -> bytes | None:
        """A JPEG of the face of an event; None where there is none.

        Raises:
            Unknown: there is no such event.
        """
        self._diary.event(event)
        return self._diary.crop(event)

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
        self._diary.event(event)
        refusal = self._household.correct(event, name)
        return self._diary.event(event)._replace(refusal=refusal)

    def forget(self, event: int) -> None:
        """Delete an event and its crop.

        Raises:
            Unknown: there is no such event.
        """
        self._diary.event(event)
        self._diary.forget(event)

    # --- threshold

    def threshold(self) -> ThresholdState:
        """From when on a face is somebody's, and what else could be chosen."""
        return self._roster.threshold()

    def set_threshold(self, false_accepts: float) -> ThresholdState:
        """Let this share of strangers through.

        Raises:
            Refused: it is no share between 0 and 1, or the model has no strangers to set it by.
        """
        self._household.set_threshold(false_accepts)
        return self._roster.threshold()

    # --- telling

    def subscribe(self) -> Subscription:
        """What happens from now on, to be closed when it is no longer wanted.

        Raises:
            Busy: as many listen as may.
        """
        return self._notices.subscribe()

    def audit(self, action: str, **facts: Any) -> None:
        """Add a line to the audit log: when, ``action``, and ``facts`` that JSON can say."""
        self._audit.write(action, **facts)

    # --- one thread looks

    def _watch(self, id: str, source: str) -> Watch:
        eye = Eye(id, source, self._worker.wake)
        return Watch(eye, self._identifier, self._diary, self._notices, self._clock.now)

    def _round(self) -> None:
        """Look at the newest frame of each camera, where there is one."""
        for watch in self._watches.values():
            frame = watch.eye.take()
            if frame is None:
                self._attempt(f"camera {watch.eye.id} at rest", watch.rest)
            else:
                self._attempt(f"camera {watch.eye.id}", functools.partial(self._look, watch, frame))
        now = time.monotonic()
        if now - self._tended >= TENDED_EVERY:
            self._tended = now
            self._attempt("the people", self._household.look_around)
            self._attempt("the house", functools.partial(self._sweep, now))

    def _attempt(self, what: str, work: Callable[[], None]) -> None:
        """Do ``work``, and go on where it fails: the next frame may do, or the disk have space again."""
        try:
            work()
            self._troubles.pop(what, None)
            return
        except FacetpuError as error:
            problem, unforeseen = str(error), None
        except Exception as error:  # a fault of ours at one camera must not blind the others
            problem, unforeseen = f"{what}: {type(error).__name__}: {error}; see the log", error
        if self._troubles.get(what) != problem:
            log.warning("%s", problem, exc_info=unforeseen)
        self._troubles[what] = problem

    def _look(self, watch: Watch, frame: Taken) -> None:
        watch.look(frame)
        enrolment = self._household.enrolments.at(watch.eye.id)
        if enrolment is not None and watch.newest is not None:
            self._household.enrolments.look(enrolment, *watch.newest)

    def _begin_anew(self) -> None:
        for watch in self._watches.values():
            watch.begin_anew()

    def _sweep(self, now: float) -> None:
        """Now and then, forget what is to be forgotten."""
        if now - self._swept >= SWEPT_EVERY:
            self._swept = now
            self._clock.look()
            self._diary.forget_before(self._clock.now() - self._keep)
            self._diary.leave_at(self._clock.now())

    def _with_camera(self, enrolment: Enrolment) -> Enrolment:
        """An enrolment, which a lost camera keeps waiting."""
        _, problem = self._camera(enrolment.camera).eye.state()
        return enrolment if problem is None else enrolment._replace(refusal=problem)

    def _camera(self, id: str) -> Watch:
        if id not in self._watches:
            raise Unknown(f"there is no camera {id!r}")
        return self._watches[id]
