"""The page of ``facetpu serve`` in a headless Chromium, on the real server; its cameras are films of rendered people.

All but one of these take long; they need Chromium and Playwright.
"""

from __future__ import annotations

import io
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from rendered_video import RATE, Scene, write_video
from small_export import write_export

from facetpu.board.enrol import imprint
from facetpu.portraits import draw_people
from facetpu.portraits.render import Sitter
from facetpu.portraits.shot import Shot

pytest.importorskip("fastapi", reason="the extra serve is not installed")

PAGE = Path(__file__).parents[1] / "facetpu" / "serve" / "page"
# Yaw and pitch of a head, in the order in which the poses are asked for; left is the person's own.
POSES = {"front": (0.0, 0.0), "left": (0.38, 0.0), "right": (-0.38, 0.0), "up": (0.0, 0.4), "down": (0.0, -0.4)}
PHONE = {"width": 390, "height": 844}
LONG = 60_000  # milliseconds: the machine has other work
ANA, BO = 0, 2  # of four drawn people, whom the small base of seed 2 tells apart


# --- what the page is made of


def sources() -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(PAGE.iterdir())}


def test_the_page_is_whole_and_loads_nothing_from_elsewhere() -> None:
    files = sources()
    index, scripts = files["index.html"], {name for name in files if name.endswith(".js")}
    loaded = {name for text in files.values() for name in re.findall(r"from '\./(\w+\.js)'", text)}
    assert loaded | {"main.js"} == scripts
    assert set(re.findall(r'(?:src|href)="([^"#]+)"', index)) == {
        f"/static/{name}" for name in ("style.css", "icon.svg", "main.js")
    }
    ids = set(re.findall(r'id="([\w-]+)"', index))
    asked = {name for script in scripts for name in re.findall(r"element\('([\w-]+)'\)", files[script])}
    assert asked - ids == set()
    assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", "".join(files.values())) == []


def test_nothing_in_the_page_runs_or_styles_from_the_markup() -> None:
    files = sources()
    assert re.findall(r"<script(?! type=\"module\" src=)|<style|\sstyle=|\son\w+=|javascript:", files["index.html"]) == []
    scripts = "".join(text for name, text in files.items() if name.endswith(".js"))
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", scripts) == []


# --- films


def portraits(person: int) -> dict[str, np.ndarray]:
    """A person in every pose, uint8 [200, 200, 3]."""
    sitter = Sitter(list(draw_people(4, seed=3).values())[person], 200)
    shot = Shot.draw(np.random.default_rng(1))._replace(roll=0)
    return {
        pose: sitter.portrait(shot._replace(yaw=yaw, pitch=pitch), np.random.default_rng(2)).image
        for pose, (yaw, pitch) in POSES.items()
    }


def before_the_camera(portrait: np.ndarray, seconds: float) -> list[Scene]:
    """Somebody who does not stand quite still."""
    return [[(portrait, 60 + step % 3, 20)] for step in range(round(RATE * seconds))]


def wall(seconds: float) -> list[Scene]:
    return [[]] * round(RATE * seconds)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """``posing``: Ana takes the five poses, again and again. ``door``: Ana and Bo come and go in turn."""
    folder = tmp_path_factory.mktemp("films")
    ana, bo = (portraits(person) for person in (ANA, BO))
    posing = [scene for portrait in ana.values() for scene in before_the_camera(portrait, 1.5)]
    door = [*before_the_camera(ana["front"], 3), *wall(1.5), *before_the_camera(bo["front"], 3), *wall(1.5)]
    return {
        "posing": write_video(folder / "posing.avi", posing),
        "door": write_video(folder / "door.avi", door),
        "ana": write_video(folder / "ana.avi", before_the_camera(ana["front"], 3)),
    }


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_export(tmp_path_factory.mktemp("export") / "model", seed=2)


def jpeg(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=95)
    return out.getvalue()


def photos(person: int) -> list[bytes]:
    """A photo of each pose of a person."""
    return [jpeg(portrait) for portrait in portraits(person).values()]


@pytest.fixture(scope="module")
def knowing_ana(export: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows Ana."""
    folder = tmp_path_factory.mktemp("known")
    (folder / "people" / "Ana").mkdir(parents=True)
    for number, photo in enumerate(photos(ANA)):
        (folder / "people" / "Ana" / f"{number}.jpg").write_bytes(photo)
    imprint(export, folder / "people", folder / "known")
    return folder / "known"


@pytest.fixture
def known(knowing_ana: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(knowing_ana, tmp_path / "known"))


# --- the server and the browser


class Served(NamedTuple):
    """A server that runs: its address, as it gave it, and its process."""

    url: str
    process: subprocess.Popen[str]


@contextmanager
def serving(*arguments: Any, port: int = 0, host: str = "127.0.0.1") -> Iterator[Served]:
    """``facetpu serve`` with these arguments, once it listens; SIGTERM at the end, and it ends well."""
    command = [sys.executable, "-m", "facetpu", "serve", *map(str, arguments), "--port", str(port), "--host", host, "-q"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        url = process.stdout.readline().strip()
        assert url.startswith("http"), process.wait()
        yield Served(url, process)
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()


@pytest.fixture(scope="module")
def browser(open_browser: Callable[..., Any]) -> Iterator[Any]:
    opened = open_browser()
    yield opened
    opened.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a page in a window of its own; at the end no page has done what it must not."""
    contexts, troubles = [], []

    def open_page(url: str, viewport: dict[str, int] = PHONE, context: Any = None) -> Any:
        if context is None:
            context = browser.new_context(viewport=viewport, locale="en-GB")
            context.set_default_timeout(LONG)
            contexts.append(context)
        page = context.new_page()
        origin = re.match(r"https?://[^/]+/", url).group()
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda message: "Content Security" in message.text and troubles.append(message.text))
        page.on(
            "request",
            lambda request: request.url.startswith((origin, f"blob:{origin}")) or troubles.append(request.url),
        )
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert troubles == []


def expect(locator: Any) -> Any:
    from playwright.sync_api import expect as expected

    expected.set_options(timeout=LONG)
    return expected(locator)


def file(name: str, content: bytes, kind: str = "image/jpeg") -> dict[str, Any]:
    return {"name": name, "mimeType": kind, "buffer": content}


def begin(page: Any, name: str) -> None:
    page.click("#add")
    page.fill("#new-name", name)


# --- from end to end


def test_a_person_is_added_by_photos_and_recognised(export, films, tmp_path, visit) -> None:
    bare_wall = jpeg(np.full((200, 200, 3), 120, np.uint8))
    with serving(export, "--new", tmp_path / "known", "--camera", films["ana"]) as served:
        page = visit(served.url)
        expect(page.locator("#nobody")).to_contain_text("Nobody is known yet. Add yourself")
        expect(page.locator("#faces")).to_have_text("1 face")
        begin(page, "Ana <b>")
        good = [file(f"{number}.jpg", photo) for number, photo in enumerate(photos(ANA))]
        page.set_input_files("#photos", [*good[:3], file("wall <i>.jpg", bare_wall), file("no.jpg", b"no picture")])
        expect(page.locator("#upload-state")).to_have_text("Ana <b> is known now, by 3 photos.")
        expect(page.locator("#uploaded li")).to_have_text(
            [
                "0.jpg✓ taken",
                "1.jpg✓ taken",
                "2.jpg✓ taken",
                re.compile("^wall <i>.jpgNot taken: it shows no face; take another"),
                re.compile("^no.jpgNot taken: it "),
            ]
        )
        page.click("#close-new")
        expect(page.locator("#known")).to_have_text(re.compile("Ana <b>3 photos · "))
        expect(page.locator("#faces")).to_have_text("Ana <b>")
        expect(page.locator("#seen li:has-text('here since')")).to_contain_text("Ana <b>")
        expect(page.locator("#state")).to_have_text("1 camera watching · 1 person known")
