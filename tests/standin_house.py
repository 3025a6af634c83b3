"""A stand-in for the house, until there is one: it keeps people and events in dicts, and sees nothing."""

from __future__ import annotations

import io
import json
import threading
import time
from pathlib import Path
from typing import Any

from PIL import Image

from facetpu.board.enrolment import Enrolled, Remark
from facetpu.errors import FacetpuError
from facetpu.labels import check_name
from facetpu.serve.answers import (
    CameraState, Enrolment, EventState, Notice, PersonState, Picture, ThresholdChoice, ThresholdState,
)
from facetpu.serve.notices import Notices, Subscription
from facetpu.serve.refusals import Busy, Conflict, Refused, Unknown


def a_jpeg(shade: int, size: int = 64) -> bytes:
    out = io.BytesIO()
    Image.effect_noise((size, size), shade).convert("RGB").save(out, "JPEG")
    return out.getvalue()


class StandInHouse:
    def __init__(self, state: Path) -> None:
        self.state = state
        state.mkdir(mode=0o700, exist_ok=True)
        self.known = {"Ana": 5, "Bo": 3}
        self.seen = {n: EventState(n, "0", n, "Ana", False, None, 0.8, 1.0, 2.0, False, 3, True) for n in range(1, 6)}
        self.open: dict[str, Enrolment] = {}
        self.share = 0.01
        self.notices = Notices()
        self.number = 0
        self.jpeg = a_jpeg(50, 640)
        self.running = threading.Event()

    def problem(self) -> str | None:
        return None

    def _name(self, name: str) -> str:
        try:
            return check_name(name, "name")
        except FacetpuError as error:
            raise Refused(str(error)) from None

    def cameras(self) -> list[CameraState]:
        return [CameraState("0", "film", "watching", 9.0, 50.0, 1, ["Ana"], None)]

    def picture(self, camera: str, after: int = -1, timeout: float = 10.0) -> Picture | None:
        if camera != "0":
            raise Unknown(f"there is no camera {camera}")
        time.sleep(0.05)
        return Picture(int(time.monotonic() * 20), self.jpeg)

    def people(self) -> list[PersonState]:
        return [PersonState(n, p, None, True) for n, p in self.known.items()]

    def _known(self, name: str) -> None:
        if name not in self.known:
            raise Unknown(f"nobody is called {name!r}")

    def portrait(self, name: str) -> bytes | None:
        self._known(name)
        return a_jpeg(3)

    def rename(self, name: str, new: str) -> None:
        self._known(name)
        new = self._name(new)
        if new in self.known:
            raise Conflict("taken")
        self.known[new] = self.known.pop(name)
        self.notices.tell(Notice("people", {"what": "renamed", "name": new}))

    def merge(self, name: str, into: str) -> None:
        self._known(name)
        self._known(into)
        if name == into:
            raise Conflict("same")
        self.known[into] += self.known.pop(name)

    def erase(self, name: str) -> None:
        self._known(name)
        del self.known[name]

    def begin_enrolment(self, name: str, camera: str) -> Enrolment:
        if camera != "0":
            raise Unknown("no camera")
        e = Enrolment("abc%d" % len(self.open), self._name(name), camera, "front", "look", [], None, False)
        if len(self.open) > 3:
            raise Busy("many")
        self.open[e.id] = e
        return e

    def enrolment(self, id: str) -> Enrolment:
        if id not in self.open:
            raise Unknown("no such enrolment")
        return self.open[id]

    take = enrolment

    def finish(self, id: str) -> Enrolled:
        e = self.enrolment(id)
        raise Conflict(f"too few poses of {e.name}")

    def cancel(self, id: str) -> None:
        self.enrolment(id)
        del self.open[id]

    def enrol_photos(self, name: str, photos: list[bytes]) -> Enrolled:
        name = self._name(name)
        refused = []
        for number, photo in enumerate(photos, 1):
            try:
                Image.open(io.BytesIO(photo)).load()
            except OSError:
                refused.append(Remark(f"photo {number}", ["unreadable"], "is no photo"))
        self.known[name] = self.known.get(name, 0) + len(photos) - len(refused)
        return Enrolled(name, self.known[name], len(photos) - len(refused), refused, [])

    def events(self, before: int | None = None, limit: int = 50, name: str | None = None) -> list[EventState]:
        return [e for e in reversed(self.seen.values()) if before is None or e.id < before][:limit]

    def _event(self, event: int) -> EventState:
        if event not in self.seen:
            raise Unknown(f"there is no event {event}")
        return self.seen[event]

    def crop(self, event: int) -> bytes | None:
        self._event(event)
        return a_jpeg(9)

    def correct(self, event: int, name: str | None) -> EventState:
        e = self._event(event)._replace(corrected=True, corrected_name=None if name is None else self._name(name))
        self.seen[event] = e
        return e

    def forget(self, event: int) -> None:
        self._event(event)
        del self.seen[event]

    def threshold(self) -> ThresholdState:
        return ThresholdState(0.5, self.share, "x", [ThresholdChoice(0.01, 0.5)])

    def set_threshold(self, false_accepts: float) -> ThresholdState:
        self.share = false_accepts
        return self.threshold()

    def subscribe(self) -> Subscription:
        return self.notices.subscribe()

    def audit(self, action: str, **facts: Any) -> None:
        with open(self.state / "audit.log", "a") as log:
            log.write(json.dumps({"action": action, **facts}) + "\n")

    def start(self) -> None: ...
    def stop(self) -> None: ...
