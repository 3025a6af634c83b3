"""The people of a running house: changed in the model, in the diary and for who looks, one change at a time.

The model comes first, then the diary. What is to be done with a person's name is written down before it
is begun, so that a house that is killed in the middle does it to its end when it is opened again. Where the
disk has no space for the diary's part, that is done as soon as it has, and before any other change.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import logging
import threading
from pathlib import Path
from typing import Callable, Iterator

from ..board.checks import Fault
from ..board.enrolment import Enrolled
from ..board.gallery import Gallery
from ..board.identify import Identifier
from ..board.intake import Candidate, look_at
from ..image import UnreadableImage, decode_image, resize
from ..mtcnn.detector import main_face
from .answers import Notice
from .audit import AuditLog
from .crops import face_picture
from .diary import Diary, Intent
from .enrolling import Enrolments, Shot, candidates_of
from .notices import Notices
from .refusals import Busy, Conflict, Full, Refused, Unknown
from .roster import Roster
from .worker import Worker

log = logging.getLogger(__name__)

MOST_PHOTOS = 10  # of one upload
MOST_PIXELS = 32_000_000  # of a photo
LONGEST_SIDE = 2048  # pixels that an upload is looked at with, so that the cameras do not wait for long


class Household:
    """Whom the house knows, and all that is known of them.

    Attributes:
        roster: the model's part of it.
        enrolments: those before cameras.
    """

    def __init__(
        self,
        roster: Roster,
        identifier: Identifier,
        diary: Diary,
        notices: Notices,
        audit: AuditLog,
        worker: Worker,
        begin_anew: Callable[[], None],
    ) -> None:
        """Finish what a house that was killed had begun.

        Args:
            roster: the people.
            identifier: what names them; for the thread of ``worker``.
            diary: what was seen of them.
            notices: whom to tell.
            audit: where it is written that somebody was changed.
            worker: the one that looks.
            begin_anew: forgets who is before the cameras now; for the thread of ``worker``.
        """
        self.roster, self._identifier, self._diary = roster, identifier, diary
        self._notices, self._audit, self._worker, self._begin_anew = notices, audit, worker, begin_anew
        self.enrolments = Enrolments(identifier.reader, roster.pairs_threshold())
        self._changing = threading.RLock()
        self._unwritten: list[Callable[[], None]] = []  # the diary's part of changes, oldest first
        self._followed: Gallery | None = None  # that the diary names the people of
        self._decoding = threading.Lock()
        self._finish_intents()
        identifier.know(roster.gallery)
        self._tidy()

    # --- names

    def change(self, intent: Intent) -> None:
        """Rename, merge or erase somebody."""
        with self._one_change():
            intent = intent._replace(id=self._diary.intend(*intent[1:]))
            try:
                self._change_roster(intent)
            except Exception:
                self._write_down(functools.partial(self._diary.done, intent.id))
                raise
            self.enrolments.forget(intent.name, intent.other)
            into = {} if intent.other is None else {"into": intent.other}
            self._audit.write(intent.action, name=intent.name, **into)
            with contextlib.ExitStack() as rest:  # the last first, whatever fails
                rest.callback(self._tell, f"{intent.action.rstrip('e')}ed", intent.name, intent.other)
                rest.callback(self._write_down, functools.partial(self._follow, intent))
                self._know_anew()

    def _change_roster(self, intent: Intent) -> None:
        if intent.other is None:
            self.roster.erase(intent.name)
        elif intent.action == "rename":
            self.roster.rename(intent.name, intent.other)
        else:
            self.roster.merge(intent.name, intent.other)

    def _follow(self, intent: Intent) -> None:
        """Have the diary follow the model; the intent is done with that."""
        people = self.roster.gallery.people
        if intent.name not in people:
            if intent.other is None:
                self._diary.erase(intent.name)
            elif intent.other in people:
                self._diary.rename(intent.name, intent.other)
        self._diary.done(intent.id)

    def _finish_intents(self) -> None:
        """Do to its end what a house that was killed had begun."""
        for intent in self._diary.intents():
            try:
                if intent.action != "correct" and intent.name in self.roster.gallery.people:
                    self._change_roster(intent)
                log.info("finished what was begun: %s %s", intent.action, intent.name)
            except (Unknown, Conflict, Refused) as error:
                log.warning("not done again: %s %s: %s", intent.action, intent.name, error)
            self._follow(intent)

    @contextlib.contextmanager
    def _one_change(self) -> Iterator[None]:
        """One change at a time, and none before the diary has all of those before it."""
        with self._changing:
            self._write_down()
            try:
                yield
                if self.roster.gallery is not self._followed:
                    self._write_down(self._tidy)
            except Full:
                self.roster.untold()  # what was done until then; ``look_around`` tells it
                raise

    def _write_down(self, *work: Callable[[], None]) -> None:
        """Do ``work`` with the diary, after what is left of earlier; what fails is left for the next time."""
        self._unwritten += work
        while self._unwritten:
            self._unwritten[0]()
            del self._unwritten[0]

    def _tidy(self) -> None:
        """Have what was seen follow the people, as when ``facetpu people`` renamed or removed somebody.

        Nothing is kept of those who are known no more.
        """
        gallery, before, now = self.roster.gallery, self._diary.owners(), self.roster.owners()
        heirs = _heirs(self._diary.names(), before, now)
        if heirs or now != before:  # else a full disk is no matter
            self._diary.follow(heirs, now)
        for name in heirs:
            self.enrolments.forget(name)
        self._followed = gallery

    def look_around(self) -> None:
        """Go on with what another program has made of the people, if one has; for the thread that looks."""
        if not self._changing.acquire(blocking=False):
            return
        try:
            with self._one_change():
                if self.roster.changed_elsewhere():
                    self._know_anew_here()
                    self._tidy()
                    self._tell("changed")
        finally:
            self._changing.release()

    def set_threshold(self, false_accepts: float) -> None:
        """See ``House.set_threshold``."""
        with self._one_change():
            self.roster.set_threshold(false_accepts)
            self._know_anew()
            self._audit.write("threshold", false_accepts=false_accepts)
            self._tell("threshold")

    def _know_anew(self) -> None:
        """Have the thread that looks go on with the people of now; if it is busy, in a moment."""
        try:
            self._worker.ask(self._know_anew_here)
        except Busy as error:
            log.warning("the cameras follow what was changed a little later: %s", error)
            self.roster.untold()

    def _know_anew_here(self) -> None:
        self._begin_anew()
        self._identifier.know(self.roster.gallery)

    def _tell(self, what: str, name: str | None = None, into: str | None = None) -> None:
        facts = {"what": what, "name": name, "into": into}
        self._notices.tell(Notice("people", {key: fact for key, fact in facts.items() if fact is not None}))

    # --- photos

    def finish(self, enrolment: str) -> Enrolled:
        """See ``House.finish``."""
        told: list[Enrolled] = []

        def enrol(name: str, shots: list[Shot]) -> None:
            pictures = {shot.pose: shot.picture for shot in shots}
            told.append(self._enrol(name, candidates_of(name, shots), pictures, "camera"))

        self.enrolments.finish(enrolment, enrol)
        return told[0]

    def enrol_photos(self, name: str, photos: list[bytes]) -> Enrolled:
        """See ``House.enrol_photos``."""
        name = self.roster.checked(name)
        if not 0 < len(photos) <= MOST_PHOTOS:
            raise Refused(f"{len(photos)} photos were given; give 1 to {MOST_PHOTOS}")
        read = [self._read_photo(name, f"photo {number}", data) for number, data in enumerate(photos, 1)]
        pictures = {candidate.photo: picture for candidate, picture in read if picture is not None}
        return self._enrol(name, [candidate for candidate, _ in read], pictures, "upload")

    def correct(self, event: int, name: str | None) -> str | None:
        """Say whose an event is, see ``House.correct``; why its crop did not become a photo of theirs."""
        with self._one_change():
            crop, refusal = self._diary.crop(event), None
            if name is None:
                self._disown(event, crop)
            else:
                name = self.roster.checked(name)
                refusal = self._own(event, crop, name)
            self._audit.write("correct", event=event, name=name)
            self._tell("corrected", name)
            return refusal

    def _enrol(self, name: str, candidates: list[Candidate], pictures: dict[str, bytes], by: str) -> Enrolled:
        """Enrol what can be; ``pictures`` are those of the candidates' faces, by the names of the photos."""
        with self._one_change():
            told = self.roster.enrol(name, candidates, by)
            if not told.added:
                return told
            self._know_anew()
            refused = {remark.photo for remark in told.refused}
            self._give_portrait(name, [pictures[photo] for photo in pictures if photo not in refused])
            self._audit.write("enrol", name=name, photos=told.added, by=by)
            self._tell("enrolled", name)
            return told

    def _give_portrait(self, name: str, pictures: list[bytes]) -> None:
        try:
            if pictures and name not in self._diary.with_portrait():
                self._diary.give_portrait(name, pictures[0])
        except Full as error:  # they are enrolled all the same
            log.warning("no portrait of %s: %s", name, error)

    def _read_photo(self, name: str, photo: str, data: bytes) -> tuple[Candidate, bytes | None]:
        """A photo file of ``name`` to be enrolled, and a picture of the face where it shows one."""
        candidate = Candidate(name, photo, Path(photo), hashlib.sha256(data).hexdigest(), None, [])
        try:
            with self._decoding:  # one at a time, to bound the memory; Python's warnings are no thread's own
                image = decode_image(io.BytesIO(data), candidate.path, MOST_PIXELS)
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
            refusal = self._hand_over(*self._read_photo(name, "the picture", crop))
        if name not in self.roster.gallery.people:
            raise Refused(f"nobody is called {name!r} yet, and this cannot be a first photo: it {refusal}")
        self._diary.correct(event, name)
        return refusal

    def _hand_over(self, photo: Candidate, picture: bytes | None) -> str | None:
        """Make the picture of an event a photo of its person; why not, where it cannot be one.

        Who has had it loses it, but not to somebody new who cannot be known by it; who has no other photo
        is one with the person then.
        """
        name, owner = photo.name, self.roster.owner_of(photo.digest)
        if owner == name:
            return None
        intent = None if owner is None else Intent(0, "correct", owner, name)
        if intent is not None:
            intent = intent._replace(id=self._diary.intend(*intent[1:]))
        try:
            told = self._enrol(name, [photo], {} if picture is None else {photo.photo: picture}, "correction")
            if not told.added and name in self.roster.gallery.people:
                self._take_away(photo.digest)
        finally:
            if intent is not None:
                self._write_down(functools.partial(self._follow, intent))
        return None if told.added else told.refused[0].text

    def _take_away(self, photo: str) -> None:
        """Have who was given the photo with this SHA-256, if anybody was, lose it."""
        if self.roster.take_away(photo) is not None:
            self._know_anew()

    def _disown(self, event: int, crop: bytes | None) -> None:
        """Make an event nobody's who is known; who was given its crop for a photo loses that."""
        if crop is not None:
            self._take_away(hashlib.sha256(crop).hexdigest())
        self._diary.correct(event, None)
        self._tidy()


def _heirs(names: set[str], before: dict[str, str], now: dict[str, str]) -> dict[str, str | None]:
    """Who those of ``names`` are now that are not who they were; None for nobody.

    Somebody is now who has all the photos that were theirs, whatever the name is; where nobody has, who
    bears the name, unless every photo of that one was somebody else's.

    Args:
        names: those to be told of.
        before: whose each photo was, by its SHA-256.
        now: whose each is.
    """
    holders = _others(before, now)
    givers = _others(now, before)
    heirs: dict[str, str | None] = {}
    for name in sorted(names):
        theirs, given = holders.get(name, set()), givers.get(name, set())
        if len(theirs) == 1 and None not in theirs:
            (heir,) = theirs
        else:
            heir = name if given & {name, None} or (given and not theirs) else None
        if heir != name:
            heirs[name] = heir
    return heirs


def _others(owners: dict[str, str], others: dict[str, str]) -> dict[str, set[str | None]]:
    """Whose the photos of each of ``owners`` are by ``others``; None for nobody's."""
    found: dict[str, set[str | None]] = {}
    for photo, owner in owners.items():
        found.setdefault(owner, set()).add(others.get(photo))
    return found
