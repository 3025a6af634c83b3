"""The board's Pythons, with the extra ``serve`` as pip resolves it there: the server from start to end."""

from __future__ import annotations

import http.client
import json
import signal
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from rendered_video import write_video
from small_export import write_export
from test_board_pythons import CACHE, ROOT, install
from test_serve_http import started

from facetpu.board.enrol import imprint
from facetpu.image import read_image
from facetpu.portraits import write_people


@pytest.fixture(scope="module", params=["3.7", "3.9", "3.13"])
def facetpu(request: pytest.FixtureRequest) -> Path:
    """The ``facetpu`` command as installed for one of the board's Pythons; kept for the next run."""
    return install(CACHE / f"serve-python{request.param}", request.param, ["-e", f"{ROOT}[serve]"])


@pytest.fixture
def house(tmp_path: Path) -> tuple[Path, Path]:
    """A model that knows Ana, and a film of her."""
    write_people(tmp_path / "people", 1, 1, size=160)
    next((tmp_path / "people").iterdir()).rename(tmp_path / "people" / "Ana")
    imprint(write_export(tmp_path / "model"), tmp_path / "people", tmp_path / "known", accept_all=True)
    portrait = read_image(tmp_path / "people" / "Ana" / "000.jpg")
    film = write_video(tmp_path / "film.avi", [[(portrait, 40 + 2 * step, 20)] for step in range(40)])
    return tmp_path / "known", film


@pytest.mark.slow
def test_a_house_is_served(facetpu: Path, house: tuple[Path, Path]) -> None:
    known, film = house
    command = [facetpu, "serve", known, "--camera", film, "--port", "0", "--json"]
    with started(command) as process:
        address = urlsplit(json.loads(process.stdout.readline())["url"])

        def ask(method: str, path: str, body: object = None) -> http.client.HTTPResponse:
            link = http.client.HTTPConnection("127.0.0.1", address.port or 0, timeout=60)
            headers = {"X-Facetpu": "1", "Content-Type": "application/json"}
            link.request(method, path, None if body is None else json.dumps(body), headers)
            return link.getresponse()

        notices = ask("GET", "/api/notices")
        stream = ask("GET", "/api/cameras/0/stream")
        assert stream.status == 200
        assert stream.readline() == b"--facetpu-picture\r\n"
        line = notices.readline()
        while not line.startswith(b"event: seen"):
            line = notices.readline()
        assert json.loads(notices.readline()[6:])["camera"] == "0"
        assert b"<title>" in ask("GET", "/").read()
        assert [event["camera"] for event in json.load(ask("GET", "/api/events"))["events"]][:1] == ["0"]
        assert json.load(ask("GET", "/openapi.json"))["openapi"] == "3.1.0"
        assert ask("PATCH", "/api/people/Ana", {"name": "Çelik"}).status == 204
        assert [one["name"] for one in json.load(ask("GET", "/api/people"))["people"]] == ["Çelik"]
        assert ask("DELETE", "/api/people/Ana").status == 404
        assert ask("PUT", "/api/threshold", {"false_accepts": 2}).status == 422
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    lines = [line for line in err.splitlines() if not line.startswith("INFO:")]
    assert (process.returncode, out, lines) == (0, "", [])
