"""Photograph the page of `facetpu serve` at work, for the README: scripts/serve_pictures.py DEMO [OUT].

DEMO is a finished `facetpu demo`. A server starts on its model, with films of rendered people for cameras,
and is given photos of five of the demo's people; a headless Chromium (Playwright) looks at the page, as wide
as a desk and as a phone.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from playwright.sync_api import Locator, Page, expect, sync_playwright

from facetpu.people import people_under
from facetpu.portraits import Person, draw_people
from facetpu.portraits.render import Sitter
from facetpu.portraits.shot import Shot

RATE, WIDTH, HEIGHT = 5, 640, 480  # of the films
TRAINED_ON = 360  # people of the demo; those that it enrols come next, and then strangers
KNOWN, STRANGER, NEWCOMER = (
    0,
    12,
    17,
)  # of those: the two before one camera, and who is added before the other
ENROLLED = 5
POSES = ((0.0, 0.0), (0.32, 0.0), (-0.32, 0.0), (0.0, 0.4), (0.0, -0.4))  # yaw, pitch
DESK, PHONE = {"width": 1280, "height": 1010}, {"width": 390, "height": 800}
GAP, QUALITY, PAPER = 24, 86, (226, 222, 214)
LONG = 240_000  # milliseconds


def main(demo: Path, out: Path) -> None:
    """Write ``serve.jpg`` to ``out``."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        cast = list(draw_people(TRAINED_ON + NEWCOMER + 1).values())[TRAINED_ON:]
        door = write_film(root / "door.avi", list(at_the_door(cast[KNOWN], cast[STRANGER])))
        hall = write_film(root / "hall.avi", list(posing(cast[NEWCOMER])))
        with serving(demo / "model", root / "known", [door, hall]) as url, sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            shots = photographs(browser, url, people_under(demo / "photos" / "enrolled"))
    out.mkdir(exist_ok=True)
    sheet = side_by_side(shots)
    sheet.save(out / "serve.jpg", quality=QUALITY, optimize=True)
    print(f"{out / 'serve.jpg'}: {(out / 'serve.jpg').stat().st_size // 1024} KB")


def photographs(browser: Any, url: str, photos: dict[str, list[Path]]) -> list[Image.Image]:
    """The page at a desk, and on a phone: the live picture, and somebody new before the other camera."""
    expect.set_options(timeout=LONG)
    desk = window(browser, url, DESK)
    for name in list(photos)[:ENROLLED]:
        desk.click("#add")
        desk.fill("#new-name", name)
        desk.set_input_files("#photos", photos[name])
        expect(desk.locator("#upload-state")).to_contain_text(f"{name} is known now")
        desk.click("#close-new")
    desk.get_by_label("about 3 of 100").check()
    shown(
        desk,
        desk.locator("#faces .known"),
        desk.locator("#faces .stranger"),
        desk.locator("#seen .known, #seen .name"),
    )
    shots = [photograph(desk)]
    phone = window(browser, url, PHONE)
    shown(phone, phone.locator("#faces .known"), phone.locator("#seen li img").first)
    expect(phone.locator("#state")).to_contain_text("people known")
    shots.append(photograph(phone))
    phone.click("#add")
    phone.fill("#new-name", "Nora")
    phone.select_option("#new-camera", "1")
    phone.click("#by-camera")
    expect(phone.locator("#poses .taken")).to_have_count(2)
    shots.append(photograph(phone))
    return shots


def window(browser: Any, url: str, size: dict[str, int]) -> Page:
    """A window of its own."""
    context = browser.new_context(viewport=size, locale="en-GB", device_scale_factor=1 if size is DESK else 2)
    context.set_default_timeout(LONG)
    page = context.new_page()
    page.goto(url)
    return page


def shown(page: Page, *parts: Locator) -> None:
    """Wait for a live picture, and for these."""
    while not page.evaluate("document.querySelector('#picture').naturalWidth"):
        page.wait_for_timeout(200)
    for part in parts:
        expect(part.first).to_be_visible()
    expect(page.locator("#outcome")).to_have_text("")


def photograph(page: Page) -> Image.Image:
    """What is in the window."""
    return Image.open(io.BytesIO(page.screenshot()))


def side_by_side(shots: list[Image.Image]) -> Image.Image:
    """All at the height of the lowest."""
    height = min(shot.height for shot in shots)
    scaled = [
        shot.convert("RGB").resize((shot.width * height // shot.height, height), Image.LANCZOS)
        for shot in shots
    ]
    sheet = Image.new("RGB", (sum(s.width + GAP for s in scaled) + GAP, height + 2 * GAP), PAPER)
    left = GAP
    for shot in scaled:
        sheet.paste(shot, (left, GAP))
        left += shot.width + GAP
    return sheet


# --- films


def at_the_door(one: Person, other: Person) -> Iterator[np.ndarray]:
    """Two people side by side, who stay."""
    for left, right in zip(turning(one, [(0.0, 0.0)]), turning(other, [(0.0, 0.0)]), strict=True):
        yield np.hstack(
            [picture[:, (HEIGHT - WIDTH // 2) // 2 :][:, : WIDTH // 2] for picture in (left, right)]
        )


def posing(person: Person) -> Iterator[np.ndarray]:
    """Somebody who turns their head and nods."""
    for picture in turning(person, POSES):
        yield cv2.copyMakeBorder(
            picture, 0, 0, (WIDTH - HEIGHT) // 2, (WIDTH - HEIGHT) // 2, cv2.BORDER_REPLICATE
        )


def turning(person: Person, poses: Any) -> Iterator[np.ndarray]:
    """uint8 [HEIGHT, HEIGHT, 3]: two seconds a pose."""
    sitter, shot = Sitter(person, HEIGHT), Shot.draw(np.random.default_rng(person.seed))._replace(roll=0.0)
    for yaw, pitch in poses:
        picture = sitter.portrait(shot._replace(yaw=yaw, pitch=pitch), np.random.default_rng(0)).image
        for step in range(2 * RATE):
            yield np.roll(picture, step % 2, axis=1)


def write_film(path: Path, frames: list[np.ndarray]) -> Path:
    """A video of uint8 [HEIGHT, WIDTH, 3] RGB frames."""
    film = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), RATE, (WIDTH, HEIGHT))
    for frame in frames:
        film.write(np.ascontiguousarray(frame[:, :, ::-1]))
    film.release()
    return path


@contextmanager
def serving(export: Path, known: Path, films: list[Path]) -> Iterator[str]:
    """The address of a server that knows nobody yet."""
    cameras = [argument for film in films for argument in ("--camera", film.name)]
    command = [sys.executable, "-m", "facetpu", "serve", str(export.resolve()), "--new", known.name, *cameras]
    command += ["--port", "0", "-q"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=known.parent) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else ".readme"))
