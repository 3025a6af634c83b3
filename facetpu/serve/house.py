"""The house: its cameras, its people, what was seen; and all that can be asked of it, without HTTP."""

from __future__ import annotations

import hashlib
import io
import logging
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from ..board.checks import Fault
from ..board.enrolment import Enrolled
from ..board.folder import ModelFolder
from ..board.identify import Identifier
from ..board.intake import Candidate, look_at
from ..board.video import opencv
from ..errors import FacetpuError, os_error
from ..image import UnreadableImage, decode_image, resize
from ..mtcnn.detector import main_face
from .answers import (
    CameraState,
    Enrolment,
    EventState,
    Notice,
    PersonState,
    Picture,
    Settings,
    ThresholdState,
)
from .audit import AuditLog
from .cameras import Eye, check_source
from .clock import HouseClock
from .crops import face_picture
from .diary import Diary, Intent
from .enrolling import Enrolments, Shot, candidates_of
from .nobody import new_house as new_house
from .notices import Notices, Subscription
from .refusals import Full, Refused, Unknown
from .roster import Roster
from .state import StateLock
from .watching import Watch
from .worker import Worker

log = logging.getLogger(__name__)

MOST_PHOTOS = 20  # of one upload
MOST_EVENTS_AT_ONCE = 200
LARGEST_PHOTO = 32_000_000  # pixels
LONGEST_SIDE = 2048  # pixels that an upload is looked at with, so that the cameras do not wait for long
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
        for camera in cameras:
            check_source(camera)
        if cameras:
            opencv()
        self._roster = Roster(model)
        self._identifier = Identifier(model, None, settings.device, settings.detector, settings.min_face)
        self._identifier.know(self._roster.gallery)
        self.state = default_state(model) if state is None else Path(state)
        self._claim = StateLock(self.state)
        self._diary, self._audit_log = Diary(self.state), AuditLog(self.state)
        self._clock = HouseClock(self._diary.left_at())
        self._keep = 3600.0 * settings.keep_events_hours
        self._notices = Notices()
        self._enrolments = Enrolments(self._identifier.reader, self._roster.pairs_threshold())
        self._worker = Worker(self._round)
        self._watches = {
            str(number): self._watch(str(number), camera) for number, camera in enumerate(cameras)
        }
        self._changing = threading.RLock()
        self._troubles: dict[str, str] = {}
        self._tended, self._swept = -TENDED_EVERY, -SWEPT_EVERY
        self._decoding = threading.Lock()
        self._finish_intents()
        self._tidy()

    def start(self) -> None:
        """Begin to watch. Cameras that are not there are tried again until they are."""
        for watch in self._watches.values():
            watch.eye.start()
        self._worker.start()

    def stop(self) -> None:
        """Watch no more: events end, subscriptions close, the state is given back."""
        for watch in self._watches.values():
            watch.eye.stop()
        self._worker.stop()
        try:
            for watch in self._watches.values():
                watch.begin_anew()
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
        problems = [*self._troubles.values(), *(watch.problem for watch in self._watches.values())]
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
        self._change_people(Intent(0, "rename", self._roster.known(name), self._roster.checked(new)))

    def merge(self, name: str, into: str) -> None:
        """Count all of ``name`` as ``into``'s: two names that were one person's.

        Raises:
            Unknown: nobody has one of the names.
            Conflict: they are the same.
        """
        self._change_people(Intent(0, "merge", self._roster.known(name), self._roster.known(into)))

    def erase(self, name: str) -> None:
        """Forget ``name``: model, gallery, photos, portrait, and crop and name of each event of theirs.

        Raises:
            Unknown: nobody has that name.
        """
        self._change_people(Intent(0, "erase", self._roster.known(name), None))

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
        return self._enrolments.begin(self._roster.checked(name), camera)

    def enrolment(self, id: str) -> Enrolment:
        """How far an enrolment is; one that nobody asks after for a minute is given up.

        Raises:
            Unknown: there is none such, or no more.
        """
        return self._enrolments.state(id)

    def take(self, id: str) -> Enrolment:
        """Look at the newest frame for the pose wanted; its ``refusal`` says why it was not taken.

        Raises:
            Unknown: there is no such enrolment.
            Busy: too much is waiting to be looked at.
        """
        watch = self._camera(self._enrolments.state(id).camera)

        def look() -> None:
            image, faces = watch.newest or (np.zeros((1, 1, 3), np.uint8), [])
            self._enrolments.look(id, image, faces, by_itself=False)

        self._worker.ask(look)
        return self._enrolments.state(id)

    def finish(self, id: str) -> Enrolled:
        """Enrol the poses that were taken; those refused at last, beside all others, have their reasons.

        When not one can be used, ``added`` is 0 and nothing has changed.

        Raises:
            Unknown: there is no such enrolment.
            Conflict: too few poses are taken.
            Full: the disk is full; the enrolment is open still.
        """
        told: list[Enrolled] = []

        def enrol(name: str, shots: list[Shot]) -> None:
            pictures = {shot.pose: shot.picture for shot in shots}
            told.append(self._enrol(name, candidates_of(name, shots), pictures, by="camera"))

        self._enrolments.finish(id, enrol)
        return told[0]

    def cancel(self, id: str) -> None:
        """Give an enrolment up; nothing of it is left.

        Raises:
            Unknown: there is no such enrolment.
        """
        self._enrolments.cancel(id)

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
        name = self._roster.checked(name)
        if not 0 < len(photos) <= MOST_PHOTOS:
            raise Refused(f"{len(photos)} photos were given; give 1 to {MOST_PHOTOS}")
        read = [self._read_photo(name, f"photo {number}", data) for number, data in enumerate(photos, 1)]
        pictures = {candidate.photo: picture for candidate, picture in read if picture is not None}
        return self._enrol(name, [candidate for candidate, _ in read], pictures, by="upload")

    # --- events

    def events(self, before: int | None = None, limit: int = 50, name: str | None = None) -> list[EventState]:
        """Events, the newest first.

        Args:
            before: only those with a smaller id than this.
            limit: as many at most.
            name: only those that are this person's.
        """
        return self._diary.events(before, max(1, min(limit, MOST_EVENTS_AT_ONCE)), name)

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
        with self._changing:
            self._diary.event(event)
            crop = self._diary.crop(event)
            if name is None:
                refusal = None
                self._disown(event, crop)
            else:
                name = self._roster.checked(name)
                refusal = self._own(event, crop, name)
            self.audit("correct", event=event, name=name)
            self._tell_people("corrected", name)
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
        with self._changing:
            self._roster.set_threshold(false_accepts)
            self._know_anew()
            self.audit("threshold", false_accepts=false_accepts)
            self._tell_people("threshold")
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
        try:
            self._audit_log.write(action, **facts)
            self._troubles.pop("audit", None)
        except OSError as error:
            self._trouble("audit", str(os_error(error)))

    # --- one thread looks

    def _watch(self, id: str, source: str) -> Watch:
        eye = Eye(id, source, self._worker.wake)
        return Watch(eye, self._identifier, self._diary, self._notices, self._clock.now)

    def _round(self) -> None:
        """Look at the newest frame of each camera, where there is one."""
        for watch in self._watches.values():
            try:
                frame = watch.eye.take()
                if frame is None:
                    watch.rest()
                    continue
                watch.look(frame)
                enrolment = self._enrolments.at(watch.eye.id)
                if enrolment is not None and watch.newest is not None:
                    self._enrolments.look(enrolment, *watch.newest)
                self._troubles.pop("looking", None)
            except Exception as error:  # one frame that cannot be looked at must not blind the house
                log.exception("camera %s", watch.eye.id)
                self._trouble("looking", f"camera {watch.eye.id}: {error}; see the log")
        now = time.monotonic()
        if now - self._tended >= TENDED_EVERY:
            self._tended = now
            self._tend(now)

    def _tend(self, now: float) -> None:
        """See whether another program has changed the people; and now and then, what is to be forgotten."""
        try:
            if self._changing.acquire(blocking=False):
                try:
                    self._take_over()
                finally:
                    self._changing.release()
            if now - self._swept >= SWEPT_EVERY:
                self._swept = now
                self._clock.look()
                self._diary.forget_before(self._clock.now() - self._keep)
                self._diary.leave_at(self._clock.now())
            self._troubles.pop("tending", None)
        except FacetpuError as error:
            self._trouble("tending", str(error))

    def _take_over(self) -> None:
        """Go on with what another program has made of the people, if one has."""
        if self._roster.changed_elsewhere():
            self._know_anew_here()
            self._tidy()
            self._tell_people("changed")

    def _trouble(self, what: str, problem: str) -> None:
        if self._troubles.get(what) != problem:
            log.warning("%s", problem)
        self._troubles[what] = problem

    def _camera(self, id: str) -> Watch:
        if id not in self._watches:
            raise Unknown(f"there is no camera {id!r}")
        return self._watches[id]

    # --- people change

    def _change_people(self, intent: Intent) -> None:
        """Rename, merge or erase somebody: in the gallery first, then in the diary, or neither."""
        with self._changing:
            intent = intent._replace(id=self._diary.intend(*intent[1:]))
            try:
                self._change_roster(intent)
            except FacetpuError:
                self._diary.done(intent.id)
                raise
            self._know_anew()
            self._change_diary(intent)
            into = {} if intent.other is None else {"into": intent.other}
            self.audit(intent.action, name=intent.name, **into)
            self._tell_people(f"{intent.action.rstrip('e')}ed", intent.name, intent.other)

    def _change_roster(self, intent: Intent) -> None:
        if intent.other is None:
            self._roster.erase(intent.name)
        elif intent.action == "rename":
            self._roster.rename(intent.name, intent.other)
        else:
            self._roster.merge(intent.name, intent.other)

    def _change_diary(self, intent: Intent) -> None:
        if intent.other is None:
            self._diary.erase(intent.name)
        else:
            self._diary.rename(intent.name, intent.other)
        self._enrolments.forget(intent.name, intent.other)
        self._diary.done(intent.id)

    def _finish_intents(self) -> None:
        """Do to its end what a house that was killed had begun."""
        for intent in self._diary.intents():
            try:
                if intent.name in self._roster.gallery.people:
                    self._change_roster(intent)
                if intent.other is None or intent.other in self._roster.gallery.people:
                    self._change_diary(intent)
                    log.info("finished what was begun: %s %s", intent.action, intent.name)
            except Refused as error:
                log.warning("not done again: %s %s: %s", intent.action, intent.name, error)
            self._diary.done(intent.id)
        self._identifier.know(self._roster.gallery)

    def _tidy(self) -> None:
        """Keep nothing of those who are known no more, as when ``facetpu people`` removed them."""
        for name in sorted(self._diary.names() - set(self._roster.gallery.people)):
            self._diary.erase(name)
            self._enrolments.forget(name)

    def _know_anew(self) -> None:
        self._worker.ask(self._know_anew_here)

    def _know_anew_here(self) -> None:
        """Have the thread that looks go on with the people of now."""
        for watch in self._watches.values():
            watch.begin_anew()
        self._identifier.know(self._roster.gallery)

    def _tell_people(self, what: str, name: str | None = None, into: str | None = None) -> None:
        facts = {"what": what, "name": name, "into": into}
        self._notices.tell(Notice("people", {key: fact for key, fact in facts.items() if fact is not None}))

    # --- people are enrolled

    def _enrol(
        self,
        name: str,
        candidates: list[Candidate],
        pictures: dict[str, bytes],
        by: str,
        trusted: bool = False,
    ) -> Enrolled:
        """Enrol what can be; ``pictures`` are those of the candidates' faces, by the names of the photos."""
        with self._changing:
            told = self._roster.enrol(name, candidates, trusted)
            if not told.added:
                return told
            self._know_anew()
            refused = {remark.photo for remark in told.refused}
            taken = [picture for photo, picture in pictures.items() if photo not in refused]
            if taken and name not in self._diary.with_portrait():
                self._diary.give_portrait(name, taken[0])
            self.audit("enrol", name=name, photos=told.added, by=by)
            self._tell_people("enrolled", name)
            return told

    def _read_photo(self, name: str, photo: str, data: bytes) -> tuple[Candidate, bytes | None]:
        """A photo file of ``name`` to be enrolled, and a picture of the face where it shows one."""
        candidate = Candidate(name, photo, Path(photo), hashlib.sha256(data).hexdigest(), None, [])
        try:
            with self._decoding:  # one at a time, to bound the memory; Python's warnings are no thread's own
                image = decode_image(io.BytesIO(data), candidate.path, LARGEST_PHOTO)
        except UnreadableImage as error:
            return candidate._replace(faults=[Fault("unreadable", error.reason)]), None
        share = LONGEST_SIDE / max(image.shape[:2])
        if share < 1:
            image = resize(image, round(image.shape[0] * share), round(image.shape[1] * share))

        def look() -> tuple[Candidate, bytes | None]:
            reader = self._identifier.reader
            faces = reader.detector.detect(image)
            found, faults = look_at(reader, image, faces)
            picture = face_picture(image, main_face(faces, image.shape).box) if faces else None
            return candidate._replace(look=found, faults=faults), picture

        return self._worker.ask(look)

    def _own(self, event: int, crop: bytes | None, name: str) -> str | None:
        """Make an event ``name``'s, and its crop a photo of theirs; why not, where it cannot be one."""
        refusal: str | None = "there is no picture of it any more"
        if crop is not None:
            candidate, picture = self._read_photo(name, "the picture", crop)
            if candidate.digest in self._roster.photos_of(name):
                refusal = None
            else:
                owner = self._roster.take_away(candidate.digest)
                pictures = {} if picture is None else {candidate.photo: picture}
                told = self._enrol(name, [candidate], pictures, by="correction", trusted=True)
                refusal = None if told.added else told.refused[0].text
                if owner is not None and owner not in self._roster.gallery.people:
                    self._diary.rename(owner, name)
        if name not in self._roster.gallery.people:
            raise Refused(f"nobody is called {name!r} yet, and this cannot be a first photo: it {refusal}")
        self._diary.correct(event, name)
        return refusal

    def _disown(self, event: int, crop: bytes | None) -> None:
        """Make an event nobody's who is known; who was given its crop for a photo loses that."""
        owner = None if crop is None else self._roster.take_away(hashlib.sha256(crop).hexdigest())
        self._diary.correct(event, None)
        if owner is not None:
            self._know_anew()
            self._tidy()
