"""The house on an MQTT broker: what is retained, what is told, and what comes of it when things go wrong."""

from __future__ import annotations

import json
import logging
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from facetpu.errors import FacetpuError
from facetpu.serve.answers import CameraState, EventState, Notice, PersonState
from facetpu.serve.notices import Notices, Subscription
from facetpu.serve.refusals import Busy
from facetpu.serve.topics import Topics, key_of

paho = pytest.importorskip("paho.mqtt.client")

from facetpu.serve.mqtt import WAITING, Broker, Mqtt  # noqa: E402

MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
needs_a_broker = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto, the broker, is not installed")
PASSWORD = "open:se/same@#?"
QUOTED = "open%3Ase%2Fsame%40%23%3F"


class StandInHouse:
    """A stand-in for the house: what it answers is set by the test."""

    def __init__(self) -> None:
        self.notices = Notices()
        self.known = [PersonState("Ann", 5, None, True), PersonState("Zoë/+#", 2, 1000.0, False)]
        self.now: list[EventState] = []
        self.problem: FacetpuError | None = None

    def subscribe(self) -> Subscription:
        return self.notices.subscribe()

    def people(self) -> list[PersonState]:
        if self.problem:
            raise self.problem
        return self.known

    def present(self) -> list[EventState]:
        return self.now

    def cameras(self) -> list[CameraState]:
        return [CameraState("0", "/dev/video0", "watching", 9.5, 80.0, len(self.now), [], None)]

    def see(self, what: str, name: str | None = "Ann", track: int = 1, **fields: Any) -> None:
        """Have somebody appear, be seen or leave, and tell of it."""
        event = EventState(track, "0", track, name, False, None, 0.7, 990.0, 1000.0, what != "left", 3, True)
        event = event._replace(**fields)
        self.now = [each for each in self.now if each.track != track] + ([event] if event.present else [])
        self.notices.tell(Notice("seen", {"what": what, **event._asdict()}))

    def erase(self, name: str) -> None:
        self.known = [person for person in self.known if person.name != name]
        self.notices.tell(Notice("people", {"what": "erased", "name": name}))


class RunningBroker:
    """A mosquitto of the test's own, on a port of localhost, with a user ``door``."""

    def __init__(self, folder: Path, *settings: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.config = folder / "mosquitto.conf"
        passwords = folder / "passwords"
        subprocess.run(["mosquitto_passwd", "-b", "-c", passwords, "door", PASSWORD], check=True)
        passwords.chmod(0o644)  # the broker reads it as its own user
        lines = [f"listener {self.port} 127.0.0.1", "allow_anonymous false", f"password_file {passwords}"]
        self.config.write_text("\n".join([*lines, "user root", *settings]) + "\n")
        self.start()

    def start(self) -> None:
        command = [str(MOSQUITTO), "-c", str(self.config)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self._answers)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)

    def _answers(self) -> bool:
        with socket.socket() as trial:
            return trial.connect_ex(("127.0.0.1", self.port)) == 0

    @property
    def url(self) -> str:
        return f"mqtt://door:{QUOTED}@127.0.0.1:{self.port}/porch/left"


class Listener:
    """A client that notes what is retained on the broker and what comes by."""

    def __init__(self, port: int) -> None:
        version = getattr(paho, "CallbackAPIVersion", None)
        self.client = paho.Client(*([version.VERSION2] if version else []))
        self.client.username_pw_set("door", PASSWORD)
        self.retained: dict[str, Any] = {}
        self.messages: list[tuple[str, Any]] = []
        self.client.on_message = self._note
        self.client.connect("127.0.0.1", port)
        self.client.subscribe("#")
        self.client.loop_start()

    def _note(self, _: object, __: object, message: Any) -> None:
        text = message.payload.decode()
        payload = json.loads(text) if text.startswith("{") else text
        self.messages.append((message.topic, payload))
        if "/events/" in message.topic:
            return
        if text:
            self.retained[message.topic] = payload
        else:
            self.retained.pop(message.topic, None)

    def events(self) -> list[dict[str, Any]]:
        return [payload for topic, payload in self.messages if topic == "porch/left/events/0"]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def wait_for(met: Callable[[], object], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    running = RunningBroker(tmp_path_factory.mktemp("broker"))
    yield running
    running.stop()


@pytest.fixture
def listener(broker: RunningBroker) -> Iterator[Listener]:
    listening = Listener(broker.port)
    yield listening
    listening.close()


# --- the address


def test_an_address_has_parts_with_defaults() -> None:
    assert Broker.parse("mqtt://host") == Broker("host", 1883, False, None, None, "facetpu")
    assert Broker.parse(f"mqtts://me:{QUOTED}@host/front%20door/") == Broker(
        "host", 8883, True, "me", PASSWORD, "front door"
    )
    assert Broker.parse("mqtt://[::1]:99/a/b").port == 99
    assert Broker.parse("mqtt://me:1@host/a%40b") == Broker("host", 1883, False, "me", "1", "a@b")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("host:1883", "is no address of a broker"),
        ("http://me:secret@host", "is no address of a broker"),
        ("mqtt:///prefix", "is no address of a broker"),
        ("mqtt://me:secret@host:port", "the port is no number"),
        ("mqtt://me:secret#@host", "must write as %3F and %23"),
        ("mqtt://me:1?secret@host", "must write as %3F and %23"),
        ("mqtt://me:secret/@host", "must write / as %2F"),
        ("mqtt://me:12/secret@host", "must write / as %2F"),
        ("mqtt://secret/@host", "must write / as %2F"),
        ("mqtt://host/a/%23", r"may hold no \+ and no #"),
    ],
)
def test_a_wrong_address_is_one_line_without_its_password(url: str, reason: str) -> None:
    with pytest.raises(FacetpuError, match=reason) as caught:
        Broker.parse(url)
    assert "secret" not in str(caught.value)


def test_a_password_is_never_shown() -> None:
    broker = Broker.parse("mqtt://me:secret@host/x")
    assert f"{broker} {broker!r} {[broker]}" == " ".join(["mqtt://me@host:1883/x"] * 2) + (
        " [mqtt://me@host:1883/x]"
    )


# --- the topics


def test_a_name_makes_one_level_of_a_topic_of_its_own() -> None:
    keys = [key_of(name) for name in ("Ann", "ann", "Zoë/+#", "李雷", "a b", "a_b", "a/b")]
    assert keys[0].startswith("ann_")
    assert keys[2].startswith("zoe_")
    assert len(set(keys)) == len(keys)
    assert all(key.isascii() and key.replace("_", "").isalnum() for key in keys)


def test_the_topics_say_who_is_there_and_how_to_show_it() -> None:
    house = StandInHouse()
    house.see("appeared", ended=1000.5)
    house.known[0] = house.known[0]._replace(last_seen=1000.5)
    topics = {topic: json.loads(text) for topic, text in Topics("porch/left").retained(house).items()}
    ann, zoe = f"porch/left/people/{key_of('Ann')}", f"porch/left/people/{key_of('Zoë/+#')}"
    assert topics[ann] == {
        "name": "Ann",
        "present": True,
        "cameras": ["0"],
        "last_seen": "1970-01-01T00:16:30+00:00",
    }
    house.known[0] = house.known[0]._replace(last_seen=1139.9)
    later = json.loads(Topics("porch/left").retained(house)[ann])
    assert later["last_seen"] == "1970-01-01T00:18:00+00:00"  # to the minute, as long as she is there
    assert topics[zoe] == {
        "name": "Zoë/+#",
        "present": False,
        "cameras": [],
        "last_seen": "1970-01-01T00:16:40+00:00",
    }
    assert topics["porch/left/cameras/0"] == {
        "state": "watching",
        "problem": None,
        "faces": 1,
        "people": ["Ann"],
    }
    things = {topic: about for topic, about in topics.items() if topic.startswith("homeassistant/")}
    kinds = sorted(topic.split("/")[1] for topic in things)
    assert kinds == ["binary_sensor"] * 3 + ["event"] + ["sensor"] * 3
    assert len({about["unique_id"] for about in things.values()}) == len(things)
    filters = Topics("porch/left").filters()
    for topic, about in things.items():
        assert any(paho.topic_matches_sub(each, topic) for each in filters)
        assert about["availability_topic"] == "porch/left/availability"
        assert about["device"]["identifiers"] == ["porch_left"]
        assert about["state_topic"] in {*topics, "porch/left/events/0"}
    event = things["homeassistant/event/porch_left/camera_0/config"]
    assert event["event_types"] == ["appeared", "recognised", "left"]


# --- a real broker


@needs_a_broker
def test_who_comes_and_goes_is_told(broker: RunningBroker, listener: Listener) -> None:
    house, ann = StandInHouse(), f"porch/left/people/{key_of('Ann')}"
    with Mqtt(house, Broker.parse(broker.url)):
        wait_for(lambda: listener.retained.get("porch/left/availability") == "online")
        wait_for(lambda: ann in listener.retained)
        assert not listener.retained[ann]["present"]
        house.see("appeared", None)
        house.see("seen", None)
        house.see("seen", "Ann")
        house.see("seen", "Ann")
        wait_for(lambda: listener.retained[ann]["present"])
        house.see("left", "Ann")
        wait_for(lambda: not listener.retained[ann]["present"])
        wait_for(lambda: len(listener.events()) == 3)
    assert [(event["event_type"], event["who"]) for event in listener.events()] == [
        ("appeared", None),
        ("recognised", "Ann"),
        ("left", "Ann"),
    ]
    assert set(listener.events()[0]) == {
        *("event_type", "who", "id", "camera", "track", "cosine", "began", "ended"),
    }
    wait_for(lambda: listener.retained["porch/left/availability"] == "offline")


@needs_a_broker
def test_an_erased_person_vanishes(broker: RunningBroker, listener: Listener) -> None:
    house = StandInHouse()
    key = key_of("Ann")
    with Mqtt(house, Broker.parse(broker.url)):
        wait_for(lambda: sum(key in topic for topic in listener.retained) == 3)
        house.erase("Ann")
        wait_for(lambda: not any(key in topic for topic in listener.retained))
        assert sum(key_of("Zoë/+#") in topic for topic in listener.retained) == 3


@pytest.mark.slow
@needs_a_broker
def test_a_person_erased_while_nobody_told_vanishes_at_the_next_start(
    broker: RunningBroker, listener: Listener
) -> None:
    house, key = StandInHouse(), key_of("Ann")
    with Mqtt(house, Broker.parse(broker.url)):
        wait_for(lambda: sum(key in topic for topic in listener.retained) == 3)
    listener.client.publish("porch/right/people/somebody", '{"another": "house"}', retain=True)
    house.erase("Ann")
    assert any(key in topic for topic in listener.retained)
    with Mqtt(house, Broker.parse(broker.url)):
        wait_for(lambda: not any(key in topic for topic in listener.retained))
    assert "porch/right/people/somebody" in listener.retained


@pytest.mark.slow
@needs_a_broker
def test_the_broker_says_offline_when_facetpu_dies(broker: RunningBroker, listener: Listener) -> None:
    with Mqtt(StandInHouse(), Broker.parse(broker.url)) as mqtt:
        wait_for(lambda: listener.retained.get("porch/left/availability") == "online")
        mqtt._client._sock.shutdown(socket.SHUT_RDWR)  # as when the power goes
        wait_for(lambda: ("porch/left/availability", "offline") in listener.messages)
        wait_for(lambda: listener.retained["porch/left/availability"] == "online")


@pytest.mark.slow
@needs_a_broker
def test_a_broker_that_goes_away_hears_of_it_all_when_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broker, house = RunningBroker(tmp_path), StandInHouse()
    caplog.set_level(logging.DEBUG)
    broker.stop()
    with Mqtt(house, Broker.parse(broker.url)):
        wait_for(lambda: "cannot be reached: [Errno 111] Connection refused; trying again" in caplog.text)
        for track in range(WAITING + 50):
            house.see("appeared", "Ann" if track % 2 else "Zoë/+#", track)
            house.see("left", "Ann" if track % 2 else "Zoë/+#", track)
            time.sleep(0.002)
        house.erase("Ann")
        broker.start()
        listener = Listener(broker.port)
        wait_for(lambda: listener.retained.get("porch/left/availability") == "online", 30)
        wait_for(lambda: listener.events())
        time.sleep(0.5)
        broker.stop()
        wait_for(lambda: "the connection is lost; trying again" in caplog.text)
        broker.start()
        again = Listener(broker.port)
        wait_for(lambda: again.retained.get("porch/left/availability") == "online", 30)
        wait_for(lambda: f"porch/left/people/{key_of('Zoë/+#')}" in again.retained)
        assert not any(key_of("Ann") in topic for topic in again.retained)
    listener.close()
    again.close()
    broker.stop()
    assert len(listener.events()) <= WAITING
    assert listener.events()[-1]["track"] == WAITING + 48  # the newest are kept, but for the erased person's
    assert {event["who"] for event in listener.events()} == {"Zoë/+#"}
    assert PASSWORD not in caplog.text
    assert QUOTED not in caplog.text


@pytest.mark.slow
@needs_a_broker
def test_a_refused_password_is_said_without_it(
    broker: RunningBroker, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = Broker.parse(broker.url)._replace(password="wrong-secret")
    with Mqtt(StandInHouse(), wrong):
        wait_for(lambda: "the broker refuses" in caplog.text)
    assert "ot authorised" in caplog.text.replace("authorized", "authorised")
    assert "wrong-secret" not in caplog.text


@pytest.mark.slow
@needs_a_broker
def test_a_broker_is_reached_by_tls_only_if_its_certificate_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    broker = RunningBroker(tmp_path, f"certfile {certificate}", f"keyfile {key}")
    url = broker.url.replace("mqtt:", "mqtts:")
    try:
        with Mqtt(StandInHouse(), Broker.parse(url)) as mqtt:
            wait_for(lambda: "cannot be reached: [SSL: CERTIFICATE_VERIFY_FAILED]" in caplog.text)
            assert not mqtt._connected
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with Mqtt(StandInHouse(), Broker.parse(url)) as mqtt:
            wait_for(lambda: mqtt._connected)
            assert mqtt._client.socket().version() in ("TLSv1.2", "TLSv1.3")
            assert isinstance(mqtt._client.socket(), ssl.SSLSocket)
    finally:
        broker.stop()


@pytest.mark.slow
@needs_a_broker
def test_a_house_that_cannot_say_or_drops_the_listener_is_asked_again(
    broker: RunningBroker, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    house, ann = StandInHouse(), f"porch/left/people/{key_of('Ann')}"
    with Mqtt(house, Broker.parse(broker.url)):
        wait_for(lambda: listener.retained.get("porch/left/availability") == "online")
        wait_for(lambda: ann in listener.retained)
        house.problem = Busy("too much to do")
        house.see("appeared")
        wait_for(lambda: "too much to do" in caplog.text)
        assert ann in listener.retained
        house.problem = None
        house.notices.end()  # as for a listener that was too slow
        wait_for(lambda: listener.retained[ann]["present"])
        house.see("left")
        wait_for(lambda: not listener.retained[ann]["present"])


def test_it_stops_soon_when_there_is_no_broker() -> None:
    threads = threading.active_count()
    began = time.monotonic()
    with Mqtt(StandInHouse(), Broker.parse("mqtt://127.0.0.1:1")):
        time.sleep(0.2)
    assert time.monotonic() - began < 5
    assert threading.active_count() == threads


# --- a real house


@pytest.mark.slow
@needs_a_broker
def test_a_real_house_tells_of_a_person_in_front_of_its_camera_until_she_is_erased(
    broker: RunningBroker, listener: Listener, tmp_path: Path
) -> None:
    from rendered_video import RATE, write_video
    from small_export import write_export

    from facetpu.board.enrol import imprint
    from facetpu.image import read_image
    from facetpu.portraits import write_people
    from facetpu.serve.answers import Settings
    from facetpu.serve.house import House

    write_people(tmp_path / "people", 2, 1, size=160)
    for folder, name in zip(sorted((tmp_path / "people").iterdir()), ("Ana", "Bo"), strict=True):
        folder.rename(folder.with_name(name))
    model = tmp_path / "known"
    imprint(write_export(tmp_path / "model"), tmp_path / "people", model, accept_all=True)
    ana = read_image(tmp_path / "people" / "Ana" / "000.jpg")
    scenes = [[(ana, 20 + 2 * step, 40)] for step in range(3 * RATE)] + [[]] * 4 * RATE
    film = write_video(tmp_path / "film.avi", scenes)
    topic, key = f"porch/left/people/{key_of('Ana')}", key_of("Ana")
    house = House(model, [str(film)], tmp_path / "state", Settings())
    with house, Mqtt(house, Broker.parse(broker.url)):
        wait_for(lambda: listener.retained.get(topic, {}).get("present"), 60)
        wait_for(lambda: any(event["who"] == "Ana" for event in listener.events()), 60)
        wait_for(lambda: not listener.retained[topic]["present"], 60)
        assert listener.retained[topic]["last_seen"] is not None
        assert listener.retained["porch/left/cameras/0"]["state"] == "watching"
        assert f"porch/left/people/{key_of('Bo')}" in listener.retained
        house.erase("Ana")
        wait_for(lambda: not any(key in topic for topic in listener.retained), 60)
        assert house.cameras()[0].problem is None
    assert listener.events()[0]["event_type"] == "appeared"
    wait_for(lambda: listener.retained["porch/left/availability"] == "offline")
