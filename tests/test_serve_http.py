"""The HTTP side of serve: who is let in, what they may ask, and what becomes of those who ask badly."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import pty
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rendered_video import write_video
from small_export import write_export

from facetpu.board.enrol import imprint
from facetpu.board.enrolment import Enrolled, Remark
from facetpu.cli import main
from facetpu.errors import FacetpuError
from facetpu.portraits import write_people
from facetpu.serve import answers, connection, limits, models, security, streams
from facetpu.serve.answers import Notice, Picture, Settings
from facetpu.serve.app import make_api, make_app
from facetpu.serve.house import House
from facetpu.serve.limits import Rate, client_of
from facetpu.serve.notices import WAITING
from facetpu.serve.security import Door, Sessions, open_token
from facetpu.serve.server import listening, make_server, serve, tls_context

TOKEN = "a-token-that-is-long-enough-for-all"
OURS = {"X-Facetpu": "1"}
BEARER = {"Authorization": f"Bearer {TOKEN}"}
# What stands for the parameters of each path.
PATHS = {"{name}": "Ana", "{id}": "1"}
BODIES = {
    "begin_session": {"token": TOKEN},
    "rename": {"name": "Anna"},
    "merge": {"into": "Bo"},
    "begin_enrolment": {"name": "Eve", "camera": "0"},
    "correct": {"name": None},
    "set_threshold": {"false_accepts": 0.02},
}


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The one line of an error."""
        said = self.json
        assert list(said) == ["error"]
        assert said["error"].isprintable()
        return said["error"]


class Server(NamedTuple):
    house: House
    door: Door
    port: int

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
        with self.open(path, headers, method, body) as got:
            return Reply(got.status, {key.lower(): value for key, value in got.getheaders()}, got.read())

    def raw(self, sent: bytes, timeout: float = 20) -> socket.socket:
        """A connection on which ``sent`` was sent."""
        link = socket.create_connection(("127.0.0.1", self.port), timeout)
        link.sendall(sent)
        return link

    def open(
        self, path: str, headers: dict[str, str] | None = None, method: str = "GET", body: Any = None
    ) -> http.client.HTTPResponse:
        """The reply, its body not read."""
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        headers = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        link.request(method, path, body, headers)
        return link.getresponse()


@contextlib.contextmanager
def served(
    house: House,
    token: str | None = None,
    requests: Rate | None = None,
    tls: ssl.SSLContext | None = None,
) -> Iterator[Server]:
    with listening("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        door = Door(house.state, token, port, tls is not None, house.audit)
        server = make_server(house, "known", door, tls, requests=requests or Rate(1000, 1000))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield Server(house, door, port)
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows Ana and Bo."""
    folder = tmp_path_factory.mktemp("serve")
    write_people(folder / "people", 2, 1, size=160)
    for person, name in zip(sorted((folder / "people").iterdir()), ("Ana", "Bo"), strict=True):
        person.rename(folder / "people" / name)
    imprint(write_export(folder / "model"), folder / "people", folder / "known", accept_all=True)
    return folder / "known"


@pytest.fixture(scope="module")
def house(known: Path) -> Iterator[House]:
    """A house without a camera."""
    with House(known, [], None, Settings()) as house:
        yield house


@pytest.fixture(scope="module")
def local(house: House) -> Iterator[Server]:
    """A server for this machine alone."""
    with served(house) as server:
        yield server


@pytest.fixture(scope="module")
def closed(house: House) -> Iterator[Server]:
    """A server that asks for a token."""
    with served(house, TOKEN) as server:
        server.door._refusals = Rate(1000, 1000)
        yield server


@pytest.fixture
def unchanged(house: House) -> Iterator[None]:
    """That the people and the threshold are the same after the test as before it."""
    before = house.people(), house.threshold()
    yield
    assert (house.people(), house.threshold()) == before


@pytest.fixture
def watched(house: House, monkeypatch: pytest.MonkeyPatch) -> int:
    """Stands in for a camera: 20 pictures a second, which are large noise; gives their size."""

    def picture(camera: str, after: int = -1, timeout: float = 10.0) -> Picture:
        time.sleep(0.05)
        return Picture(after + 1, b"\xff\xd8" + bytes(300_000) + b"\xff\xd9")

    monkeypatch.setattr(house, "picture", picture)
    return 300_004


@functools.cache
def operations() -> list[tuple[str, str, str]]:
    """Every route of the OpenAPI description: its name, method and path."""
    described = make_api().openapi()["paths"]
    return [
        (operation["operationId"], method.upper(), path)
        for path, methods in described.items()
        for method, operation in methods.items()
    ]


def filled(path: str) -> str:
    if path.startswith("/api/cameras/"):
        return path.replace("{id}", "0")
    for parameter, value in PATHS.items():
        path = path.replace(parameter, value)
    return path


def upload(*photos: bytes, field: str = "photos") -> tuple[bytes, dict[str, str]]:
    """A form with files, and its headers."""
    part = b'--x\r\nContent-Disposition: form-data; name="%s"; filename="a.jpg"\r\n\r\n%s\r\n'
    form = b"".join(part % (field.encode(), photo) for photo in photos) + b"--x--\r\n"
    return form, {**OURS, "Content-Type": "multipart/form-data; boundary=x"}


# --- the description


@pytest.mark.parametrize(
    ("model", "answer"),
    [
        (models.Camera, answers.CameraState),
        (models.Person, answers.PersonState),
        (models.Enrolment, answers.Enrolment),
        (models.Enrolled, Enrolled),
        (models.Remark, Remark),
        (models.Event, answers.EventState),
        (models.Threshold, answers.ThresholdState),
        (models.ThresholdChoice, answers.ThresholdChoice),
    ],
)
def test_the_description_has_every_field_of_the_answers(model: Any, answer: Any) -> None:
    assert list(model.model_fields) == list(answer._fields)


def test_the_description_is_had_by_who_may_ask(closed: Server) -> None:
    assert closed.ask("GET", "/openapi.json").status == 401
    described = closed.ask("GET", "/openapi.json", headers=BEARER)
    assert described.json == json.loads(json.dumps(make_api().openapi()))
    assert len(operations()) == 25
    assert len({name for name, _, _ in operations()}) == 25


# --- who is let in


@pytest.mark.usefixtures("unchanged")
def test_every_route_asks_for_the_token(closed: Server) -> None:
    told = {}
    for name, method, path in operations():
        wrong = {"Authorization": f"Bearer {TOKEN[:-1]}x", **OURS}
        without, with_wrong = (
            closed.ask(method, filled(path), BODIES.get(name), headers) for headers in (OURS, wrong)
        )
        told[name] = without.status, with_wrong.status
        for reply in (without, with_wrong):
            if reply.status == 401:
                assert "token" in reply.error
    in_the_open = {"session": (200, 401), "begin_session": (204, 401), "end_session": (204, 401)}
    assert told == {name: in_the_open.get(name, (401, 401)) for name, _, _ in operations()}


def test_every_route_answers_who_says_the_token(known: Path, tmp_path: Path) -> None:
    shutil.copytree(known, tmp_path / "known")
    told = {}
    with House(tmp_path / "known", [], None, Settings()) as house, served(house, TOKEN) as server:
        for name, method, path in operations():
            reply = server.open(filled(path), BEARER, method, BODIES.get(name))
            told[name] = reply.status
            reply.close()
    none_such = {  # for there is no camera, no event, no enrolment, and Ana is called Anna by then
        *("picture", "stream", "begin_enrolment", "enrolment", "cancel", "take", "finish"),
        *("crop", "correct", "forget", "portrait", "merge", "erase"),
    }
    assert {name for name, status in told.items() if status == 404} == none_such
    others = {name: status for name, status in told.items() if status != 404}
    assert others.pop("enrol_photos") == 422  # without photos
    assert set(others.values()) == {200, 204}


@pytest.mark.parametrize(
    "path", ["/api", "/api/", "/api/none", "/docs", "/redoc", "/none", "//", "/API/people"]
)
def test_what_is_no_route_asks_for_the_token_too(closed: Server, path: str) -> None:
    assert closed.ask("GET", path).status == 401
    assert closed.ask("GET", path, headers=BEARER).status == 404


def test_the_page_is_there_for_everybody_to_say_the_token_on(closed: Server) -> None:
    page = closed.ask("GET", "/")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    for name in re.findall(rb'(?:src|href)="/?(static/[^"]+)"', page.body):
        assert closed.ask("GET", "/" + name.decode()).status == 200
    assert closed.ask("GET", "/static/none.js").error == "the page has no such file"


def test_a_cookie_stands_for_the_token(closed: Server) -> None:
    assert closed.ask("GET", "/api/session").json == {"token_needed": True, "inside": False}
    assert closed.ask("POST", "/api/session", {"token": "x" * 43}, OURS).status == 401
    begun = closed.ask("POST", "/api/session", {"token": TOKEN}, OURS)
    said, *attributes = begun.headers["set-cookie"].split("; ")
    assert sorted(attributes) == ["HttpOnly", "Max-Age=7776000", "Path=/", "SameSite=strict"]
    assert said.startswith(f"facetpu-{closed.port}=")
    cookie = {"Cookie": said}
    assert closed.ask("GET", "/api/session", headers=cookie).json == {"token_needed": True, "inside": True}
    assert closed.ask("GET", "/api/people", headers=cookie).status == 200

    change = "PUT", "/api/threshold", {"false_accepts": 0.05}
    before = closed.house.threshold()
    assert closed.ask(*change, cookie).status == 403
    for origin in ("http://evil.example", "null", f"https://127.0.0.1:{closed.port}", "http://127.0.0.1:1"):
        foreign = {**cookie, **OURS, "Origin": origin}
        assert closed.ask(*change, foreign).status == 403
    assert closed.house.threshold() == before
    ours = {**cookie, **OURS, "Origin": f"http://127.0.0.1:{closed.port}"}
    assert closed.ask(*change, ours).status == 200
    assert closed.house.threshold().false_accepts == 0.05

    with served(closed.house, TOKEN) as later:  # started again, on another port
        kept = {"Cookie": said.replace(str(closed.port), str(later.port))}
        assert later.ask("GET", "/api/people", headers=kept).status == 200
        assert later.ask("DELETE", "/api/session", headers={**kept, **OURS}).status == 204
        assert later.ask("GET", "/api/people", headers=kept).status == 401


def test_a_new_token_makes_all_cookies_void(tmp_path: Path) -> None:
    path = tmp_path / "sessions.json"
    cookie = Sessions(path, TOKEN).begin()
    assert path.stat().st_mode & 0o777 == 0o600
    assert cookie not in path.read_text()
    assert Sessions(path, TOKEN).knows(cookie)
    assert not Sessions(path, TOKEN + "2").knows(cookie)


def test_sessions_are_few_and_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "_MOST_SESSIONS", 3)
    sessions = Sessions(tmp_path / "sessions.json", TOKEN)
    cookies = [sessions.begin() for _ in range(4)]
    assert [sessions.knows(cookie) for cookie in cookies] == [False, True, True, True]
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 91 * 24 * 3600)
    assert not sessions.knows(cookies[-1])
    monkeypatch.setattr(time, "time", lambda: 0.0)  # a board without a battery, before it hears the time
    assert sessions.knows(cookies[-1])
    (tmp_path / "sessions.json").write_text("[1]")
    assert not Sessions(tmp_path / "sessions.json", TOKEN).knows(cookies[-1])


def test_wrong_tokens_are_few_and_written_down(house: House) -> None:
    log = house.state / "audit.log"
    before = len(log.read_text().splitlines()) if log.exists() else 0
    with served(house, TOKEN) as server:
        wrong = {"Authorization": "Bearer wrong"}
        told = [server.ask("GET", "/api/people", headers=wrong).status for _ in range(12)]
        assert told == [401] * 10 + [429] * 2
        assert server.ask("POST", "/api/session", {"token": TOKEN}, OURS).status == 429
    lines = [json.loads(line) for line in log.read_text().splitlines()[before:]]
    assert [(line["action"], line["client"]) for line in lines] == [("token refused", "127.0.0.1")] * 10


def test_the_token_is_compared_in_constant_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(security.hmac, "compare_digest", compare)
    Door(tmp_path, TOKEN).check(TOKEN, "1.2.3.4")
    with pytest.raises(Exception, match="not the token"):
        Door(tmp_path, TOKEN).check("täken", "1.2.3.4")
    assert compared == [(TOKEN.encode(), TOKEN.encode()), ("täken".encode(), TOKEN.encode())]


def test_the_token_is_made_once_and_is_its_owners(tmp_path: Path) -> None:
    token, fresh = open_token(tmp_path)
    path = tmp_path / "token"
    assert (len(token), fresh, path.stat().st_mode & 0o777) == (43, True, 0o600)
    path.chmod(0o644)
    assert open_token(tmp_path) == (token, False)
    assert path.stat().st_mode & 0o777 == 0o600
    for damaged in (b"", b"short", b"\xff" * 40, b"two lines of text\nthat are none of a token"):
        path.write_bytes(damaged)
        with pytest.raises(FacetpuError, match="token: is damaged; delete it"):
            open_token(tmp_path)


def test_no_token_stands_in_a_log(
    closed: Server,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(0)
    closed.ask("GET", "/api/people", headers=BEARER)
    cookie = closed.ask("POST", "/api/session", {"token": TOKEN}, OURS).headers["set-cookie"]
    closed.ask("POST", "/api/session", {"token": TOKEN + "x"}, OURS)
    closed.ask("POST", "/api/session", {"token": [TOKEN]}, OURS)
    monkeypatch.setattr(closed.house, "people", lambda: 1 / 0)
    assert closed.ask("GET", "/api/people", headers=BEARER).status == 500
    out, err = capfd.readouterr()
    audit = (closed.house.state / "audit.log").read_text()
    for secret in (TOKEN, cookie.split("=")[1].split(";")[0]):
        assert secret not in caplog.text + out + err + audit


# --- pages of other sites


def test_on_this_machine_all_is_open_to_its_own_page(local: Server) -> None:
    assert local.ask("GET", "/api/session").json == {"token_needed": False, "inside": True}
    for host in (f"localhost:{local.port}", "localhost:9000", "127.0.0.1", "[::1]:8000", "LOCALHOST"):
        assert local.ask("GET", "/api/people", headers={"Host": host}).status == 200
    assert local.ask("PUT", "/api/threshold", {"false_accepts": 0.02}, OURS).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "192.168.1.2",
        "[::2]",
        "",
        "127.0.0.1@x",
        "[",
        "0.0.0.0",
        "localhost@evil.example",
    ],
)
def test_a_name_that_was_made_to_point_here_is_refused(local: Server, host: str) -> None:
    for path in ("/", "/api/people", "/openapi.json"):
        assert local.ask("GET", path, headers={"Host": host}).status in (400, 403)


@pytest.mark.usefixtures("unchanged")
def test_the_pages_of_other_sites_change_nothing(local: Server) -> None:
    body, form = upload(b"x")
    form.pop("X-Facetpu")
    assert local.ask("POST", "/api/people/Ana/photos", body, form).status == 403
    for headers in ({}, {**OURS, "Origin": "http://evil.example"}, {**OURS, "Sec-Fetch-Site": "cross-site"}):
        for method, path, sent in (
            ("DELETE", "/api/people/Ana", None),
            ("PUT", "/api/threshold", {"false_accepts": 0.5}),
            ("POST", "/api/events/1/correction", {"name": "Bo"}),
        ):
            assert local.ask(method, path, sent, headers).status == 403
    assert local.ask("GET", "/api/cameras", headers={"Sec-Fetch-Site": "cross-site"}).status == 403
    assert (
        local.ask("GET", "/", headers={"Sec-Fetch-Site": "cross-site"}).status == 200
    )  # a link may lead here
    asked = local.ask("OPTIONS", "/api/people/Ana", headers={"Origin": "http://evil.example"})
    assert asked.status == 405
    assert [name for name in asked.headers if name.startswith("access-control")] == []


def test_every_reply_says_what_browsers_may_do_with_it(closed: Server) -> None:
    for path, headers in (("/", {}), ("/api/people", {}), ("/api/people", BEARER), ("/static/none", {})):
        said = closed.ask("GET", path, headers=headers).headers
        assert said["content-security-policy"].startswith("default-src 'none'; script-src 'self'; style-src")
        assert "unsafe" not in said["content-security-policy"]
        assert said["x-content-type-options"] == "nosniff"
        assert said["cache-control"] == "no-store"
        assert said["referrer-policy"] == "no-referrer"
        assert "server" not in said


# --- paths


@pytest.mark.parametrize(
    "path",
    [
        "/static/../../../../../../etc/passwd",
        "/static/..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/static/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/static//etc/passwd",
        "/static/..\\..\\etc\\passwd",
        "/static/index.html%00.js",
        "/static/%c0%ae%c0%ae/passwd",
        "/../../../../etc/passwd",
        "/etc/passwd",
        "/api/people/..%2f..%2ftoken/portrait.jpg",
        "/api/people/%2e%2e/portrait.jpg",
        "/api/cameras/..%2f0/picture.jpg",
        "/api/events/..%2f..%2ftoken/crop.jpg",
    ],
)
def test_no_path_leads_to_the_disk(local: Server, path: str) -> None:
    (local.house.state / "token").write_text("secret", encoding="utf-8")
    reply = local.ask("GET", path)
    assert reply.status in (404, 422)
    assert reply.error
    assert b"root:" not in reply.body
    assert b"secret" not in reply.body


def test_a_host_with_a_path_in_it_opens_nothing(closed: Server) -> None:
    for host in ("x/static/y?", "x/api/session#", "localhost/static/"):
        with closed.raw(f"GET /api/people HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()) as link:
            assert b" 40" in link.recv(100)[:14]


# --- too much, too slow, malformed


@pytest.mark.usefixtures("unchanged")
def test_odd_requests_are_refused_in_one_line(local: Server) -> None:
    photo = b"\xff\xd8 no photo"
    form, headers = upload(photo)
    where = "/api/people/Ana/photos"
    large, many = upload(bytes((10 << 20) + 1))[0], upload(*[photo] * 11)[0]
    cases = [
        ("POST", where, large, headers, 413),
        ("POST", where, many, headers, 422),
        ("POST", where, upload(photo, field="other")[0], headers, 422),
        ("POST", where, form[:40], headers, 422),
        ("POST", where, form, {**headers, "Content-Type": "multipart/form-data"}, 400),
        ("POST", where, form, {**OURS, "Content-Type": "text/plain"}, 422),
        ("POST", where, b"", headers, 422),
        ("POST", where, {"photos": ["x"]}, OURS, 422),
        ("POST", "/api/enrolments", b"{", {**OURS, "Content-Type": "application/json"}, 422),
        ("POST", "/api/enrolments", b"\xff\xfe", {**OURS, "Content-Type": "application/json"}, 422),
        ("POST", "/api/enrolments", b"[" * 10000, {**OURS, "Content-Type": "application/json"}, 400),
        ("PATCH", "/api/people/Ana", {"name": "../x"}, OURS, 422),
        ("PATCH", "/api/people/Ana", {"name": "a\nb"}, OURS, 422),
        ("PATCH", "/api/people/Ana", {"name": "\ud800"}, OURS, 422),
        ("PATCH", "/api/people/Ana", {"name": "x" * 201}, OURS, 422),
        ("PATCH", "/api/people/Ana", {"name": "x" * 20000}, OURS, 413),
        (
            "PUT",
            "/api/threshold",
            b'{"false_accepts": NaN}',
            {**OURS, "Content-Type": "application/json"},
            422,
        ),
        ("PUT", "/api/threshold", {"false_accepts": 1e400}, OURS, 422),
        ("PUT", "/api/threshold", {"false_accepts": 0}, OURS, 422),
        ("GET", "/api/events?limit=0", None, {}, 422),
        ("GET", f"/api/events?before={10**30}", None, {}, 422),
        ("GET", "/api/events/99999999999999999999/crop.jpg", None, {}, 422),
        ("GET", "/api/events/7777/crop.jpg", None, {}, 404),
        ("POST", "/api/enrolments", {"name": "Eve", "camera": "0"}, OURS, 404),
        ("GET", "/api/cameras/9/stream", None, {}, 404),
        ("GET", "/api/people/Nobody/portrait.jpg", None, {}, 404),
        ("POST", "/api/people/Ana/merge", {"into": "Ana"}, OURS, 409),
        ("PUT", "/api/people", {}, OURS, 405),
    ]
    told = []
    for method, path, body, sent, _ in cases:
        reply = local.ask(method, path, body, sent)
        told.append((method, path, reply.status))
        assert reply.error
    assert told == [(method, path, status) for method, path, _, _, status in cases]


@pytest.mark.usefixtures("unchanged")
def test_an_upload_without_a_length_is_cut_off_where_it_is_too_large(local: Server) -> None:
    head = b"POST /api/people/Ana/photos HTTP/1.1\r\nHost: localhost\r\nX-Facetpu: 1\r\n"
    head += b"Content-Type: multipart/form-data; boundary=x\r\nTransfer-Encoding: chunked\r\n\r\n"
    start = b'--x\r\nContent-Disposition: form-data; name="photos"; filename="a"\r\n\r\n'
    with local.raw(head + b"%x\r\n%s\r\n" % (len(start), start)) as link:
        megabyte = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
        with contextlib.suppress(OSError):  # it is over in the middle
            for _ in range(60):
                link.sendall(megabyte)
        with contextlib.suppress(OSError):
            assert link.recv(20).startswith(b"HTTP/1.1 413")
    with local.raw(head.replace(b"Transfer-Encoding: chunked", b"Content-Length: 50000000")) as link:
        assert link.recv(20).startswith(b"HTTP/1.1 413")


def test_two_uploads_are_read_at_once(local: Server) -> None:
    head = b"POST /api/people/Ana/photos HTTP/1.1\r\nHost: localhost\r\nX-Facetpu: 1\r\n"
    head += b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 5\r\n\r\n"
    with local.raw(head), local.raw(head):
        time.sleep(0.2)
        with local.raw(head + b"12345") as third:
            assert third.recv(20).startswith(b"HTTP/1.1 503")
    time.sleep(0.2)
    with local.raw(head + b"12345") as fourth:
        assert fourth.recv(20).startswith(b"HTTP/1.1 400")


def test_too_many_requests_are_refused(house: House) -> None:
    with served(house, requests=Rate(0.001, 5)) as server:
        told = [server.ask("GET", "/api/people") for _ in range(6)]
    assert [reply.status for reply in told] == [200] * 5 + [429]
    assert told[-1].error == "too many requests; ask less often"


def test_a_rate_is_each_clients_own() -> None:
    clock = [0.0]
    rate = Rate(2, 3, lambda: clock[0])
    assert [rate.take("a") for _ in range(4)] == [True, True, True, False]
    assert rate.take("b")
    clock[0] = 1.0
    assert [rate.take("a") for _ in range(3)] == [True, True, False]
    clock[0] = 1e6
    assert [rate.take("a") for _ in range(4)] == [True, True, True, False]
    for number in range(5000):
        rate.take(str(number))
    assert len(rate._clients) == limits._CLIENTS


def test_a_client_is_an_address_or_a_network_of_ipv6() -> None:
    clients = ["1.2.3.4", "::1", "::ffff:1.2.3.4", "2001:db8::1", "2001:db8::ffff:2", "fe80::1%eth0"]
    assert [client_of({"client": (host, 1)}) for host in clients] == [
        "1.2.3.4",
        "::1",
        "1.2.3.4",
        "2001:db8::/64",
        "2001:db8::/64",
        "fe80::/64",
    ]


def test_a_slow_body_ends(local: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_BODY_SECONDS", 0.3)
    head = b"PUT /api/threshold HTTP/1.1\r\nHost: localhost\r\nX-Facetpu: 1\r\n"
    head += b"Content-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
    with local.raw(head) as link:
        assert link.recv(20).startswith(b"HTTP/1.1 408")


def test_a_connection_that_asks_nothing_ends(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_IDLE", 0.5)
    with served(house) as server:
        with server.raw(b"GET / HTTP/1.1\r\nHost: loc") as link:
            told = []
            with contextlib.suppress(ConnectionError):
                for number in range(50):
                    time.sleep(0.1)
                    link.sendall(b"x")
                    told.append(number)
            assert 0 < len(told) < 20
        with server.raw(b"GET /api/people HTTP/1.1\r\nHost: localhost\r\n\r\n") as link:
            assert link.recv(20).startswith(b"HTTP/1.1 200")


# --- streams


def pictures(reply: http.client.HTTPResponse, count: int) -> list[bytes]:
    """The next parts of a Motion JPEG stream."""
    found = []
    while len(found) < count:
        line = reply.readline().strip()
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
            reply.readline()
            found.append(reply.read(length))
    return found


@pytest.mark.usefixtures("watched")
def test_a_stream_shows_one_picture_after_the_other(local: Server) -> None:
    reply = local.open("/api/cameras/0/stream")
    assert reply.getheader("content-type") == "multipart/x-mixed-replace; boundary=facetpu-picture"
    seen = pictures(reply, 3)
    assert all(picture.startswith(b"\xff\xd8") and picture.endswith(b"\xff\xd9") for picture in seen)
    reply.close()
    assert local.ask("GET", "/api/cameras/0/picture.jpg").body.startswith(b"\xff\xd8")


@pytest.mark.usefixtures("watched")
def test_streams_are_few_and_their_places_come_back(local: Server) -> None:
    opened = [local.open("/api/notices") for _ in range(streams._MOST_A_CLIENT)]
    assert [reply.status for reply in opened] == [200] * streams._MOST_A_CLIENT
    refused = local.ask("GET", "/api/cameras/0/stream")
    assert (refused.status, refused.error) == (429, "too many streams are open; close one")
    for reply in opened:
        reply.close()
    end = time.monotonic() + 10
    while local.house._notices._listeners and time.monotonic() < end:
        time.sleep(0.05)
    assert local.house._notices._listeners == []
    again = local.open("/api/cameras/0/stream")
    assert (again.status, len(pictures(again, 1))) == (200, 1)
    again.close()


def test_notices_are_told_and_a_slow_listener_is_told_so(
    local: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_HEARTBEAT", 0.1)
    monkeypatch.setattr(streams, "_SLICE", 0.1)
    reply = local.open("/api/notices")
    assert reply.getheader("content-type").startswith("text/event-stream")
    assert [reply.readline() for _ in range(4)] == [b"retry: 3000\n", b"\n", b":\n", b"\n"]
    local.house._notices.tell(Notice("people", {"what": "renamed", "name": "Ána\nB"}))
    line = b":\n"
    while line in (b":\n", b"\n"):
        line = reply.readline()
    data = reply.readline().decode()
    assert (line, json.loads(data.removeprefix("data: "))) == (
        b"event: people\n",
        {"what": "renamed", "name": "Ána\nB"},
    )
    for number in range(10 * WAITING):
        local.house._notices.tell(Notice("people", {"number": number}))
    last = reply.read().decode().split("\n\n")[-2].strip()
    assert last.startswith('event: dropped\ndata: {"reason": "100 notices were waiting; listen again')


def test_who_reads_nothing_is_cut_off_and_delays_nobody(
    house: House, watched: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_BLOCKED", 1.0)
    with served(house) as server:
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", server.port))
        slow.settimeout(10)
        slow.sendall(b"GET /api/cameras/0/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        watcher = server.open("/api/cameras/0/stream")
        began = time.monotonic()
        assert len(pictures(watcher, 40)) == 40
        took = time.monotonic() - began
        watcher.close()
        assert took < 6  # 40 pictures at 20 a second
        read = 0
        with contextlib.suppress(ConnectionError):
            while data := slow.recv(1 << 16):
                read += len(data)
        assert read < 40 * watched / 2
        slow.close()


# --- what goes wrong behind


def test_a_full_disk_and_our_own_faults_are_one_line(local: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(name: str) -> None:
        raise OSError(28, "No space left on device", "/var/lib/known")

    monkeypatch.setattr(local.house, "erase", full)
    erased = local.ask("DELETE", "/api/people/Ana", headers=OURS)
    assert (erased.status, erased.error) == (507, "the disk is full; free some space and try again")
    monkeypatch.setattr(local.house, "people", lambda: 1 / 0)
    failed = local.ask("GET", "/api/people")
    assert (failed.status, failed.error) == (500, "the server failed; its log says how")
    assert failed.headers["x-content-type-options"] == "nosniff"


# --- fuzzed

FUZZED = [(method, path) for name, method, path in operations() if name not in ("stream", "notices")]


@pytest.fixture(scope="module")
def described(known: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The OpenAPI description of a house, as schemathesis reads it and asks by it, in this process."""
    openapi = pytest.importorskip("schemathesis").openapi
    copy = tmp_path_factory.mktemp("fuzzed") / "known"
    shutil.copytree(known, copy)
    with House(copy, [], None, Settings()) as house:
        door = Door(house.state, TOKEN)
        door._refusals = Rate(1e9, 10**9)
        app = make_app(house, "known", door, requests=Rate(1e9, 10**9))
        yield openapi.from_asgi("/openapi.json", app, headers=BEARER)


def ask_oddly(described: Any, method: str, path: str, examples: int) -> None:
    """Ask what the description allows, and what it does not: each reply must be one that it tells of."""
    from schemathesis import GenerationMode
    from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

    operation = described[path][method]
    # What is a name can be said in words, but not in a schema; what is in a file has no type; and what else
    # is in a query is not looked at.
    excluded = [positive_data_acceptance] + [negative_data_rejection] * path.endswith(("/photos", "/events"))
    modes = GenerationMode.POSITIVE, GenerationMode.NEGATIVE

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck), database=None)
    @given(st.one_of([operation.as_strategy(mode) for mode in modes]))
    def ask(case: Any) -> None:
        case.call_and_validate(headers=BEARER, excluded_checks=excluded)

    ask()


@pytest.mark.parametrize(("method", "path"), FUZZED)
def test_odd_requests_get_replies_that_are_described(described: Any, method: str, path: str) -> None:
    ask_oddly(described, method, path, examples=5)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path"), FUZZED)
def test_many_odd_requests_get_replies_that_are_described(described: Any, method: str, path: str) -> None:
    ask_oddly(described, method, path, examples=60)


# --- the command


def run(*arguments: object) -> tuple[int, str]:
    """The exit code of ``facetpu serve``, and what it says on stderr."""
    done = CliRunner().invoke(main, ["serve", *map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done.exit_code, done.stderr


def test_a_port_in_use_is_one_line(known: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert run(known, "--port", port) == (
            1,
            f"Error: port {port} is in use; end what uses it, or pass another --port\n",
        )
    code, said = run(known, "--host", "192.0.2.1", "--port", "0")
    assert (code, said.startswith("Error: --host 192.0.2.1: "), said.count("\n")) == (1, True, 1)
    assert run(known, "--host", "no.such.host.invalid")[1].startswith("Error: --host no.such.host.invalid: ")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of localhost's, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl here to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    files = folder / "cert.pem", folder / "key.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    make += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-out", str(files[0])]
    subprocess.run([*make, "-keyout", str(files[1])], check=True, capture_output=True)
    return files


def test_certificates_that_cannot_be_used_are_one_line(
    known: Path, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    good, key = certificate
    locked = tmp_path / "locked.pem"
    make = ["openssl", "pkey", "-aes256", "-passout", "pass:secret", "-in", str(key), "-out", str(locked)]
    subprocess.run(make, check=True, capture_output=True)
    none = tmp_path / "none.pem"
    for chosen, said in (
        (["--certificate", good], "give --certificate and --key, both"),
        (["--key", key], "give --certificate and --key, both"),
        (["--certificate", good, "--key", none], f"{none}: no such file or directory"),
        (["--certificate", none, "--key", key], f"{none}: no such file or directory"),
        (["--certificate", key, "--key", key], f"{key} and {key}: "),
        (["--certificate", good, "--key", locked], f"{locked}: asks for a pass phrase; write it without"),
    ):
        code, told = run(known, *chosen)
        assert (code, told.count("\n")) == (1, 1)
        assert told.startswith(f"Error: {said}")


def test_https_takes_its_cookie_for_https_alone(house: House, certificate: tuple[Path, Path]) -> None:
    with served(house, TOKEN, tls=tls_context(*certificate)) as server:
        trusting = ssl.create_default_context(cafile=str(certificate[0]))
        link = http.client.HTTPSConnection("localhost", server.port, timeout=20, context=trusting)
        origin = {"Origin": f"https://localhost:{server.port}", "Content-Type": "application/json"}
        link.request("POST", "/api/session", json.dumps({"token": TOKEN}), {**OURS, **origin})
        reply = link.getresponse()
        assert reply.status == 204
        cookie = reply.getheader("set-cookie") or ""
        assert cookie.startswith(f"__Host-facetpu-{server.port}=")
        assert {"Secure", "HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
        link.close()


def test_without_fastapi_it_says_what_to_install(known: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facetpu.serve", sys.modules["facetpu.serve"])  # is to be this again afterwards
    for name in [name for name in sys.modules if name.split(".")[0] == "fastapi" or "facetpu.serve" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert run(known) == (1, "Error: fastapi is not installed: run pip install 'facetpu[serve]'\n")


def test_times_to_keep_events_are_checked(known: Path) -> None:
    for wrong in ("3", "0h", "-1h", "3 h", "1e9d", "h"):
        code, said = run(known, "--keep-events", wrong)
        assert (code, "write 30m, 72h or 14d" in said) == (2, True)


def test_nothing_is_made_before_the_cameras_are_checked(known: Path, tmp_path: Path) -> None:
    with pytest.raises(FacetpuError, match="'webcam' is no camera"):
        next(serve(known.parent / "model", ["webcam"], new=tmp_path / "kitchen", port=0))
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_no_localhost_takes_a_token(known: Path, tmp_path: Path) -> None:
    shutil.copytree(known, tmp_path / "known")
    address = "127.0.0.1", "0.0.0.0"
    told = []
    for host in address:
        serving = serve(tmp_path / "known", [], host=host, port=0)
        told.append(next(serving))
        serving.close()
    token = (tmp_path / "known.state" / "token").read_text().strip()
    assert [one.token_file for one in told] == [None, tmp_path / "known.state" / "token"]
    assert told[0].url.startswith("http://127.0.0.1:")
    assert token not in str(told)  # for nobody reads this on a terminal


@contextlib.contextmanager
def started(command: list[object], stdout: int = subprocess.PIPE) -> Iterator[Any]:
    """A process that is over when the block is."""
    words = list(map(str, command))
    with subprocess.Popen(words, stdout=stdout, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_it_begins_with_nobody_and_ends_with_streams_open(
    known: Path, tmp_path: Path, end: signal.Signals
) -> None:
    film = write_video(tmp_path / "film.avi", [[] for _ in range(20)])
    command = [sys.executable, "-m", "facetpu", "serve", known.parent / "model", "--camera", film, "--json"]
    with started([*command, "--new", tmp_path / "kitchen", "--port", "0"]) as process:
        said = json.loads(process.stdout.readline())
        server = Server(None, Door(tmp_path), int(re.search(r":(\d+)/$", said["url"])[1]))
        assert server.ask("GET", "/api/people").json == {"people": []}
        opened = [server.open(path) for path in ("/api/cameras/0/stream", "/api/notices")]
        assert len(pictures(opened[0], 2)) == 2
        process.send_signal(end)
        began = time.monotonic()
        out, err = process.communicate(timeout=30)
        assert time.monotonic() - began < 8
        for reply in opened:
            reply.close()
    lines = [line for line in err.splitlines() if not line.startswith("INFO:")]
    assert (process.returncode, out, lines) == (0, "", [])


@pytest.mark.slow
def test_the_token_is_shown_once_and_on_a_terminal_alone(known: Path, tmp_path: Path) -> None:
    shutil.copytree(known, tmp_path / "known")
    film = write_video(tmp_path / "film.avi", [[] for _ in range(20)])
    command = [sys.executable, "-m", "facetpu", "serve", tmp_path / "known", "--camera", film]
    shown = []
    for _ in range(2):
        ours, theirs = pty.openpty()
        with (
            started([*command, "--host", "0.0.0.0", "--port", "0"], theirs) as process,
            open(ours) as terminal,
        ):
            os.close(theirs)
            shown.append(terminal.readline().strip())
            process.send_signal(signal.SIGTERM)
            assert "in the clear" in process.communicate(timeout=30)[1]
    token = (tmp_path / "known.state" / "token").read_text().strip()
    assert [line.endswith(f"/#token={token}") for line in shown] == [True, False]
    assert token not in shown[1]
