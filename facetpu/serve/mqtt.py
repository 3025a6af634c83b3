"""The house on an MQTT broker: who is there as retained topics, who comes and goes as messages.

The topics are those of ``topics``.
"""

from __future__ import annotations

import logging
import queue
import ssl
import sys
import threading
import time
from collections import deque
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as paho

from ..errors import FacetpuError
from .answers import Notice
from .house import House
from .notices import Subscription
from .refusals import Busy
from .topics import Topics, as_json

log = logging.getLogger(__name__)

PORTS = {"mqtt": 1883, "mqtts": 8883}
PREFIX = "facetpu"
ONLINE, OFFLINE = "online", "offline"
KEEPALIVE = 30  # seconds; a broker that says nothing for 1.5 times this long is gone
LONGEST_PAUSE = 60  # seconds between two tries to connect; the first pause is one second, the next twice that
WAITING = 200  # events at most that wait for the broker; the oldest go first
IN_FLIGHT = 1000  # messages at most that a broker which takes nothing more leaves in the client
STRAYS = 10_000  # retained topics at most that are looked at in one connection
REFRESH = 15.0  # seconds after which the topics are looked through although nothing was told
TOLD_AT_ONCE = 100  # notices at most between two looks
NEVER = float("-inf")


class Broker(NamedTuple):
    """Where the broker is, and who facetpu is there."""

    host: str
    port: int
    encrypted: bool
    user: str | None
    password: str | None
    prefix: str

    @classmethod
    def parse(cls, url: str) -> Broker:
        """``mqtt://user:password@host:1883/prefix``; all but the scheme and the host may be left out.

        Raises:
            FacetpuError: it is no such URL; the message does not repeat it, since it may hold a password.
        """
        form = "mqtt://USER:PASSWORD@HOST:PORT/PREFIX, or mqtts:// for TLS"
        if "?" in url or "#" in url:  # they would end the host
            raise FacetpuError(
                f"--mqtt: has a ? or #, which a password must write as %3F and %23; give {form}"
            )
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise FacetpuError(
                f"--mqtt: the port is no number up to 65535; a password must write / as %2F; give {form}"
            ) from None
        if "@" in parts.path:  # user:12/34@host would be port 12 of the host user
            raise FacetpuError(
                f"--mqtt: has an @ behind a /; a password must write / as %2F, a prefix @ as %40; give {form}"
            )
        if parts.scheme not in PORTS or not parts.hostname:
            raise FacetpuError(f"--mqtt: is no address of a broker; give {form}")
        prefix = unquote(parts.path).strip("/") or PREFIX
        if any(c in "+#" or not c.isprintable() for c in prefix):
            raise FacetpuError(f"--mqtt: the prefix {prefix!r} may hold no + and no #; give {form}")
        user, password = (
            None if part is None else unquote(part) for part in (parts.username, parts.password)
        )
        return cls(
            parts.hostname, port or PORTS[parts.scheme], parts.scheme == "mqtts", user, password, prefix
        )

    def __repr__(self) -> str:
        """As an URL, without the password."""
        scheme = "mqtts" if self.encrypted else "mqtt"
        who = f"{self.user}@" if self.user else ""
        return f"{scheme}://{who}{self.host}:{self.port}/{self.prefix}"


class Mqtt:
    """Tells a broker of a house for as long as it is open; a context manager.

    A broker that is away, or goes away, is tried again and again. What is retained there is made to agree
    with the house at each connection: people who were erased meanwhile vanish.
    """

    def __init__(self, house: House, broker: Broker) -> None:
        """Make ready to tell ``broker`` of ``house``.

        Raises:
            FacetpuError: the system's certificates cannot be read (``mqtts``).
        """
        self._house, self._broker = house, broker
        self._topics = Topics(broker.prefix)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)
        self._subscription: Subscription | None = None
        self._connections = 0  # that were accepted; the thread compares it with those it has greeted
        self._connected = False
        self._found: queue.Queue[str] = queue.Queue(STRAYS)  # topics of ours that the broker had retained
        self._retained: dict[str, str] | None = None  # what this connection has published
        self._events: deque[tuple[str | None, str, str]] = deque(maxlen=WAITING)  # who, topic, payload
        self._who: dict[tuple[str, int], str | None] = {}  # whom each track was last said to be
        self._client = self._new_client()

    def start(self) -> None:
        """Begin to connect and to tell; returns at once."""
        self._client.connect_async(self._broker.host, self._broker.port, KEEPALIVE)
        self._client.loop_start()
        self._thread.start()

    def stop(self) -> None:
        """Say that facetpu is offline, and close the connection; takes a few seconds at most."""
        self._stopping.set()
        subscription = self._subscription
        if subscription is not None:
            subscription.close()  # so that nobody waits for its next notice
        if self._thread.is_alive():
            self._thread.join(10)
        if self._connected:
            sent = self._client.publish(self._topics.availability, OFFLINE, qos=1, retain=True)
            if sent.rc == paho.MQTT_ERR_SUCCESS:
                sent.wait_for_publish(2)
        self._client.disconnect()
        self._client.loop_stop()

    def __enter__(self) -> Mqtt:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- the connection, whose callbacks run in the client's own thread

    def _new_client(self) -> Any:
        version = getattr(paho, "CallbackAPIVersion", None)  # paho-mqtt 2 asks for it, 1 does not know it
        client = paho.Client(*([version.VERSION2] if version else []))
        if self._broker.user is not None:
            client.username_pw_set(self._broker.user, self._broker.password)
        if self._broker.encrypted:
            try:
                client.tls_set_context(ssl.create_default_context())
            except OSError as error:
                raise FacetpuError(f"the certificates for mqtts cannot be read: {error}") from None
        client.will_set(self._topics.availability, OFFLINE, qos=1, retain=True)
        client.reconnect_delay_set(1, LONGEST_PAUSE)
        client.max_queued_messages_set(IN_FLIGHT)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_connect_fail, client.on_message = self._on_connect_fail, self._on_message
        return client

    def _on_connect(self, client: Any, _: object, __: object, reason: Any, *___: object) -> None:
        if reason != 0:
            text = paho.connack_string(reason) if isinstance(reason, int) else str(reason)
            log.warning("%s: the broker refuses: %s; trying again", self._broker, text)
            return
        log.info("%s: connected", self._broker)
        self._connections += 1
        self._connected = True
        client.subscribe([(topic, 0) for topic in self._topics.filters()])

    def _on_disconnect(self, *_: object) -> None:
        if self._connected and not self._stopping.is_set():
            log.warning("%s: the connection is lost; trying again", self._broker)
        self._connected = False

    def _on_connect_fail(self, *_: object) -> None:
        reason = sys.exc_info()[1] or "no answer"  # the client calls this where it catches the error
        log.warning("%s: cannot be reached: %s; trying again", self._broker, reason)

    def _on_message(self, _: object, __: object, message: Any) -> None:
        if message.retain and message.payload and not self._found.full():
            self._found.put(message.topic)

    # --- telling, in this object's thread

    def _run(self) -> None:
        greeted, looked = 0, NEVER
        while not self._stopping.is_set():
            if self._subscription is None or self._subscription.closed:
                self._subscription, looked = self._subscribe(), NEVER
                continue
            notices = self._wait(self._subscription)
            for notice in notices:
                self._take(notice)
            if notices:
                looked = NEVER
            if not self._connected:
                continue
            if greeted != self._connections:
                greeted, looked, self._retained = self._connections, NEVER, None
                self._client.publish(self._topics.availability, ONLINE, qos=1, retain=True)
            if time.monotonic() - looked >= REFRESH:
                self._agree()
                looked = time.monotonic()
            self._forget_strays()
            while self._events and self._connected:
                _, topic, payload = self._events.popleft()
                self._publish(topic, payload, qos=1)
        if self._subscription is not None:
            self._subscription.close()

    def _subscribe(self) -> Subscription | None:
        self._who = {}
        try:
            return self._house.subscribe()
        except Busy as error:
            log.warning("mqtt: %s", error)
            self._stopping.wait(5)
            return None

    def _wait(self, subscription: Subscription) -> list[Notice]:
        """What is told within a second: all that waits already, or else the first that comes."""
        notices: list[Notice] = []
        while len(notices) < TOLD_AT_ONCE:
            notice = subscription.next(0 if notices else 1)
            if notice is None:
                break
            notices.append(notice)
        return notices

    def _take(self, notice: Notice) -> None:
        """Put what is an event to those that wait; forget those of a person who is erased."""
        if notice.kind == "people" and notice.data["what"] == "erased":
            kept = [event for event in self._events if event[0] != notice.data["name"]]
            self._events = deque(kept, maxlen=WAITING)
        if notice.kind != "seen":
            return
        data = notice.data
        who = data["corrected_name"] if data["corrected"] else data["name"]
        track, what = (data["camera"], data["track"]), data["what"]
        if what == "seen":
            if self._who.get(track) == who:
                return
            what = "recognised"
        self._who[track] = who
        if what == "left":
            del self._who[track]
        event = {"event_type": what, "who": who}
        event.update((name, data[name]) for name in ("id", "camera", "track", "cosine", "began", "ended"))
        self._events.append((who, self._topics.events(data["camera"]), as_json(event)))

    def _agree(self) -> None:
        """Publish those retained topics that are not as the house is; clear those that it has no more."""
        try:
            wanted = self._topics.retained(self._house)
        except FacetpuError as error:
            log.warning("mqtt: %s", error)
            return
        published = self._retained or {}
        for topic, payload in wanted.items():
            if published.get(topic) != payload:
                self._publish(topic, payload, retain=True)
        for topic in published.keys() - wanted.keys():
            self._publish(topic, "", retain=True)
        self._retained = wanted

    def _forget_strays(self) -> None:
        """Clear what an earlier facetpu left on the broker and this one does not know."""
        while self._retained is not None and not self._found.empty():
            topic = self._found.get()
            if topic not in self._retained:
                self._publish(topic, "", retain=True)

    def _publish(self, topic: str, payload: str, qos: int = 0, retain: bool = False) -> None:
        # Retained topics go once: a connection that breaks brings them all anew, and no old one after them.
        sent = self._client.publish(topic, payload, qos=qos, retain=retain)
        if sent.rc == paho.MQTT_ERR_QUEUE_SIZE:
            log.warning("%s: takes no more messages; one to %s is lost", self._broker, topic)
