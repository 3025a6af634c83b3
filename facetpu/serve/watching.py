"""One camera as the house sees it: who is before it, since when, and what is written down of that."""

from __future__ import annotations

import time
from collections import deque
from statistics import median
from typing import Any, Callable, NamedTuple

import numpy as np

from ..board.faces import KnownFace
from ..board.gallery import NOBODY_NEAR
from ..board.identify import Identifier
from ..board.tracking import Event, Tracker
from .answers import CameraState, Notice
from .cameras import LOST, Eye, Taken
from .crops import face_picture
from .diary import Diary, Seen
from .live import Live
from .notices import Notices
from .refusals import Full, Unknown

_RATED = 5.0  # seconds over which the rate is counted
_LATENCIES = 50


class Presence(NamedTuple):
    """Somebody before the camera.

    Attributes:
        event: the id of their event; 0 as long as it is not written down.
        began: when, by the wall clock.
        moment: when, by the monotonic clock.
        name: whom they were taken for last; None for a stranger all the time.
        cosine: to whom they were nearest then.
    """

    event: int
    began: float
    moment: float
    name: str | None
    cosine: float


class Watch:
    """One camera: its frames are looked at by one thread, and any other may ask how it is.

    Attributes:
        eye: its newest frame.
        live: what is shown of it.
        newest: the last frame that was looked at, and the faces on it.
        problem: why events cannot be written down, in one line.
    """

    def __init__(
        self, eye: Eye, identifier: Identifier, diary: Diary, notices: Notices, kept_from: Callable[[], float]
    ) -> None:
        """Nobody has been seen yet; ``kept_from`` is the house's clock."""
        self.eye, self.live = eye, Live()
        self.newest: tuple[np.ndarray, list[KnownFace]] | None = None
        self.problem: str | None = None
        self._identifier, self._diary, self._notices, self._clock = identifier, diary, notices, kept_from
        self._tracker = Tracker(eye.id)
        self._present: dict[int, Presence] = {}
        self._leavings: list[tuple[int, float, int]] = []  # that the diary had no space for
        self._now: list[tuple[int, KnownFace]] = []
        self._moments: deque[float] = deque(maxlen=1000)
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)
        self._looked = 0
        self._told_state: tuple[str, str | None] | None = None

    def look(self, frame: Taken) -> None:
        """See who is on a frame."""
        self._tell_state()
        self._end_events()
        faces, embeddings = self._identifier.recognise(frame.image)
        self.newest = frame.image, faces
        events = self._tracker.update(frame.number, frame.moment, faces, embeddings)
        self._now = self._tracker.now(frame.number)
        for event in events:
            self._happened(event, frame)
        self.live.show(self._looked, frame.image, [face for _, face in self._now])
        self._looked += 1
        now = time.monotonic()
        self._moments.append(now)
        self._latencies.append(now - frame.moment)

    def rest(self) -> None:
        """There is no frame: who was there has left after a while, and a lost camera shows nothing."""
        self._tell_state()
        self._end_events()
        now = time.monotonic()
        if self._moments and now - self._moments[-1] > self._tracker.patience:
            for event in self._tracker.let_go(now):
                self._happened(event, None)
            self._now = []
            if self.eye.state()[0] == LOST:
                self.live.clear()
                self.newest = None

    def begin_anew(self) -> None:
        """Forget who is there, as when people were changed: they appear again under the names of now."""
        for event in self._tracker.end():
            self._happened(event, None)
        self._tracker = Tracker(self.eye.id)
        self._present, self._now, self.newest = {}, [], None
        self.live.clear()

    def state(self) -> CameraState:
        """How it is now."""
        state, problem = self.eye.state()
        since = time.monotonic() - _RATED
        recent = [moment for moment in list(self._moments) if moment > since]
        rate = (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 else 0.0
        latencies = list(self._latencies)
        latency = round(1000 * median(latencies), 1) if latencies else None
        now = self._now if state != LOST else []
        names = [face.name for _, face in now if face.name is not None]
        return CameraState(
            self.eye.id, self.eye.source, state, round(rate, 1), latency, len(now), names, problem
        )

    def _tell_state(self) -> None:
        state = self.eye.state()
        if state != self._told_state:
            self._told_state = state
            self._notices.tell(Notice("camera", self.state()._asdict()))

    def _end_events(self) -> None:
        """Write down who has left, where there was no space for it."""
        try:
            while self._leavings:
                self._diary.end(*self._leavings[0])
                del self._leavings[0]
        except Full:
            return
        if not self._present:
            self.problem = None

    def _happened(self, event: Event, frame: Taken | None) -> None:
        """Write down what happened to a track, and tell it."""
        presence = self._present.get(event.track)
        if presence is None:
            presence = Presence(0, time.time(), event.seconds, event.name, event.cosine)
        if event.name is not None or presence.name is None:  # who turns away has not become a stranger
            presence = presence._replace(name=event.name, cosine=event.cosine)
        ended = presence.began + event.seconds - presence.moment
        cosine = presence.cosine if presence.cosine > NOBODY_NEAR else None
        seen = Seen(presence.name, cosine, ended, event.event != "left", event.sightings)
        told: dict[str, Any] | None
        try:
            presence = self._written(event, seen, presence, frame)
            told = self._diary.event(presence.event)._asdict()
            self.problem = None
        except Unknown:  # it was deleted meanwhile; of the visit only the end is told
            told = None if seen.present else self._unwritten(event, seen, presence._replace(event=0))
        except Full as error:  # it is told all the same, and tried again at the next news of it or look
            self.problem = str(error)
            if presence.event and not seen.present:
                self._leavings.append((presence.event, seen.ended, seen.sightings))
            told = self._unwritten(event, seen, presence)
        if seen.present:
            self._present[event.track] = presence
        else:
            self._present.pop(event.track, None)
        if told is not None:
            self._notices.tell(Notice("seen", {"what": event.event, **told}))

    def _unwritten(self, event: Event, seen: Seen, presence: Presence) -> dict[str, Any]:
        """What to tell where the diary says nothing."""
        told: dict[str, Any] = {"id": presence.event or None, "camera": self.eye.id, "track": event.track}
        told.update(corrected=False, corrected_name=None, began=presence.began, crop=False, refusal=None)
        return {**told, **seen._asdict()}

    def _written(self, event: Event, seen: Seen, presence: Presence, frame: Taken | None) -> Presence:
        if presence.event:
            self._diary.go_on(presence.event, seen)
            return presence
        crop = None if frame is None else face_picture(frame.image, event.box)
        number = self._diary.begin(self.eye.id, event.track, seen, presence.began, crop, self._clock())
        return presence._replace(event=number)
