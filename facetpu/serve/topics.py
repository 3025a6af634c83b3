"""What stands in the retained topics of a house on an MQTT broker, worked out anew from the house each time.

Below the prefix:

    availability           online or offline; the broker itself says offline when facetpu dies
    people/KEY             a person: name, present, cameras, last_seen
    cameras/ID             a camera: state, problem, faces, people
    events/ID              of that camera, not retained: who appeared, was recognised, or left

and what home automation needs to find them by itself, see ``home_assistant``.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
import unicodedata
from typing import Any

from . import home_assistant
from .answers import EventState
from .house import House

PRECISION = 60  # seconds to which last_seen is exact while somebody is present, to keep the topic quiet


class Topics:
    """The topics of one house below ``prefix``.

    Attributes:
        availability: the topic that says whether facetpu is there.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.availability = f"{prefix}/availability"

    def events(self, camera: str) -> str:
        """Where the events of a camera go."""
        return f"{self._prefix}/events/{camera}"

    def filters(self) -> list[str]:
        """What matches every topic that ``retained`` may ever have named, whoever the people were."""
        own = [f"{self._prefix}/{kind}/+" for kind in ("people", "cameras")]
        return own + home_assistant.filters(self._prefix)

    def retained(self, house: House) -> dict[str, str]:
        """Each retained topic with what is to stand in it now.

        Raises:
            FacetpuError: the house cannot say.
        """
        present = house.present()
        topics = {}
        for person in house.people():
            theirs = [event for event in present if event.who == person.name]
            topic = f"{self._prefix}/people/{key_of(person.name)}"
            topics[topic] = as_json(
                {
                    "name": person.name,
                    "present": bool(theirs),
                    "cameras": sorted({event.camera for event in theirs}),
                    "last_seen": _iso(_last_seen(person.last_seen, theirs)),
                }
            )
            topics.update(home_assistant.person(self._prefix, topic, self.availability, person.name))
        for camera in house.cameras():
            here = [event for event in present if event.camera == camera.id]
            topic = f"{self._prefix}/cameras/{camera.id}"
            told = {
                "state": camera.state,
                "problem": camera.problem,
                "faces": len(here),
                "people": _names(here),
            }
            topics[topic] = as_json(told)
            events = self.events(camera.id)
            topics.update(home_assistant.camera(self._prefix, topic, events, self.availability, camera.id))
        return topics


def key_of(name: str) -> str:
    """A name as a level of a topic: its ASCII letters and digits, and what sets it apart from all others."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode("ascii").lower()
    digest = hashlib.sha256(name.encode("utf-8")).hexdigest()[:8]
    return "_".join([*re.findall("[a-z0-9]+", plain), digest])


def as_json(value: dict[str, Any]) -> str:
    """A payload; names are readable in it."""
    return json.dumps(value, ensure_ascii=False)


def _names(events: list[EventState]) -> list[str]:
    return sorted({event.who for event in events if event.who is not None})


def _last_seen(exact: float | None, present: list[EventState]) -> float | None:
    """When a person was last seen; while they are present to ``PRECISION`` only, but never running back."""
    if exact is None or not present:
        return exact
    return max(exact - exact % PRECISION, *(event.began for event in present))


def _iso(seconds: float | None) -> str | None:
    """A time as home automation reads it."""
    if seconds is None:
        return None
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(seconds))
