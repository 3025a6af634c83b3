"""Home Assistant's MQTT discovery: a retained topic for each thing to show, with JSON that describes it.

All things of one house are one device. https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery
"""

from __future__ import annotations

import json
import re
from typing import Any

from .. import __version__

DISCOVERY = "homeassistant"  # the prefix that Home Assistant listens to, unless somebody changed it there
EVENTS = ("appeared", "recognised", "left")


def filters(prefix: str) -> list[str]:
    """What matches every topic that ``person`` and ``camera`` may have named."""
    return [f"{DISCOVERY}/{kind}/{_node(prefix)}/+/config" for kind in ("binary_sensor", "sensor", "event")]


def person(prefix: str, state: str, availability: str, name: str) -> dict[str, str]:
    """A person: whether they are in front of a camera, and when they were last seen.

    Args:
        prefix: of the house's topics.
        state: their topic; its last level sets them apart.
        availability: the house's topic.
        name: theirs.
    """
    key = "person_" + state.rsplit("/", 1)[1]
    present = {
        "name": name,
        "device_class": "occupancy",
        "state_topic": state,
        "value_template": "{{ 'ON' if value_json.present else 'OFF' }}",
        "json_attributes_topic": state,
        "icon": "mdi:account",
    }
    seen = {
        "name": f"{name} last seen",
        "device_class": "timestamp",
        "state_topic": state,
        "value_template": "{{ value_json.last_seen }}",
        "icon": "mdi:account-clock",
    }
    return dict(
        [
            _thing(prefix, availability, "binary_sensor", key, present),
            _thing(prefix, availability, "sensor", key + "_seen", seen),
        ]
    )


def camera(prefix: str, state: str, events: str, availability: str, number: str) -> dict[str, str]:
    """A camera: its events, how many faces there are in front of it, and whether it works.

    Args:
        prefix: of the house's topics.
        state: the camera's topic.
        events: the topic of its events.
        availability: the house's topic.
        number: its id.
    """
    key = f"camera_{number}"
    event = {
        "name": f"Camera {number}",
        "event_types": list(EVENTS),
        "state_topic": events,
        "icon": "mdi:account-eye",
    }
    faces = {
        "name": f"Camera {number} faces",
        "state_class": "measurement",
        "state_topic": state,
        "value_template": "{{ value_json.faces }}",
        "json_attributes_topic": state,
        "icon": "mdi:face-recognition",
    }
    works = {
        "name": f"Camera {number} connected",
        "device_class": "connectivity",
        "entity_category": "diagnostic",
        "state_topic": state,
        "value_template": "{{ 'ON' if value_json.state == 'watching' else 'OFF' }}",
    }
    return dict(
        [
            _thing(prefix, availability, "event", key, event),
            _thing(prefix, availability, "sensor", key + "_faces", faces),
            _thing(prefix, availability, "binary_sensor", key + "_connected", works),
        ]
    )


def _thing(
    prefix: str, availability: str, component: str, key: str, about: dict[str, Any]
) -> tuple[str, str]:
    """The topic and the description of one thing to show."""
    node = _node(prefix)
    whole = {
        **about,
        "unique_id": f"{node}_{key}",
        "availability_topic": availability,
        "device": {
            "identifiers": [node],
            "name": prefix,
            "manufacturer": "facetpu",
            "model": "Face recogniser",
            "sw_version": __version__,
        },
        "origin": {"name": "facetpu", "sw_version": __version__},
    }
    return f"{DISCOVERY}/{component}/{node}/{key}/config", json.dumps(whole, ensure_ascii=False)


def _node(prefix: str) -> str:
    """``prefix`` as the one level of a topic that discovery gives a device: letters, digits, _ and -."""
    return re.sub("[^A-Za-z0-9_-]", "_", prefix)
