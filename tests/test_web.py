"""The browser's folder: what is in it, and, in a headless Chromium, that it sees what Python sees.

The browser's part needs Chromium, Playwright and npm (or LITERT_JS, a node_modules with LiteRT.js).
"""

from __future__ import annotations

import base64
import functools
import http.server
import io
import json
import os
import re
import shutil
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from small_export import write_export
from standin_litert_js import write_packages

from facetpu.board.faces import FaceReader
from facetpu.board.threshold import score_threshold
from facetpu.errors import FacetpuError
from facetpu.image import read_image, resize_area
from facetpu.mtcnn import chains
from facetpu.mtcnn.weights import write_networks
from facetpu.portraits.folder import write_people
from facetpu.runtime import interpreter
from facetpu.web.bundle import LONGEST, MIN_FACE, VERSION, write_bundle
from facetpu.web.pyramid import GAP, lay_out, with_input_size

# --- the page of the pyramid


@given(st.integers(64, 2000), st.integers(20, 64))
def test_slots_lie_on_the_page_apart_and_at_even_pixels(longest, min_face):
    page = lay_out(longest, min_face)
    taken = np.zeros((page.height + GAP, page.width + GAP), int)
    for x, y, side in page.slots:
        assert (x % 2, y % 2) == (0, 0)
        assert (x + side <= page.width, y + side <= page.height) == (True, True)
        taken[y : y + side + GAP, x : x + side + GAP] += 1
    assert taken.max(initial=0) <= 1
    sides = [slot.side for slot in page.slots]
    assert sides == sorted(sides, reverse=True)


def run(model, pixels):
    model.resize_tensor_input(model.get_input_details()[0]["index"], pixels[None].shape)
    model.allocate_tensors()
    model.set_tensor(model.get_input_details()[0]["index"], pixels[None].astype(np.float32))
    model.invoke()
    return model.get_tensor(model.get_output_details()[0]["index"])[0]


def test_a_level_on_the_page_gives_what_it_gives_alone(tmp_path):
    write_networks(tmp_path)
    page = lay_out(320, 40)
    pixels = np.zeros((page.height, page.width, 3), np.uint8)
    random = np.random.default_rng(0)
    levels = [random.integers(0, 256, (slot.side - 1, slot.side, 3), np.uint8) for slot in page.slots]
    for slot, level in zip(page.slots, levels, strict=True):
        pixels[slot.y : slot.y + len(level), slot.x : slot.x + slot.side] = level
    fixed = interpreter(with_input_size(tmp_path / "pnet.tflite", page.height, page.width))
    assert fixed.get_input_details()[0]["shape"].tolist() == [1, page.height, page.width, 3]
    fixed.allocate_tensors()
    cells = run(fixed, pixels)
    for slot, level in zip(page.slots, levels, strict=True):
        alone = run(interpreter(tmp_path / "pnet.tflite"), level)
        rows, columns = alone.shape[0] - 1, alone.shape[1] - 1  # the last may see one pixel beyond
        on_page = cells[slot.y // 2 :, slot.x // 2 :][:rows, :columns]
        np.testing.assert_allclose(on_page, alone[:rows, :columns], atol=1e-3)


# --- the folder


@pytest.fixture
def packages(tmp_path):
    return write_packages(tmp_path / "node_modules")


def test_the_folder_holds_all_that_the_page_asks_for(tmp_path, packages):
    export = write_export(tmp_path / "export")
    bundle = write_bundle(export, tmp_path / "site", packages)
    site = bundle.folder
    about = json.loads((site / "model" / "model.json").read_text())
    assert about["alignment"] == {"template": "arcface", "size": 112, "margin": 44}
    assert about["embedding"] == {"dim": 32, "scale": pytest.approx(0.02), "zero_point": 120}
    assert about["strangers"] == [number // 2 for number in range(200)]
    assert (site / "model" / "strangers.bin").stat().st_size == 200 * 32 * 4
    assert (site / "litert" / "index.js").read_text() == 'import {x} from "./wasm-utils.js";\n'
    named = set()
    for file in site.glob("*.*"):
        named |= set(
            re.findall(
                r"""(?:from|src=|href=|Worker\()\s*["']\.?/?([\w.]+\.(?:js|css))["']""", file.read_text()
            )
        )
    assert named == {path.name for path in site.glob("*.js")} - {"recogniser.js"} | {"style.css"}
    assert re.findall(r"https?://(?!www\.w3\.org)", "".join(f.read_text() for f in site.glob("*.*"))) == []
    again = write_bundle(export, tmp_path / "site", packages)
    assert again == bundle
    with pytest.raises(FacetpuError, match="exists"):
        write_bundle(export, tmp_path / "site", packages, false_accepts=0.1)


def test_other_packages_are_refused(tmp_path, packages):
    export = write_export(tmp_path / "export")
    with pytest.raises(FacetpuError, match="is no npm package; run npm install"):
        write_bundle(export, tmp_path / "site", tmp_path)
    (packages / "@litertjs" / "core" / "package.json").write_text('{"version": "9.0.0"}')
    with pytest.raises(FacetpuError, match=f"is version 9.0.0; the page was written for {VERSION}"):
        write_bundle(export, tmp_path / "site", packages)
    assert not (tmp_path / "site").exists()


def test_without_npm_the_way_out_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FacetpuError, match=r"npm, which downloads .* is not installed; .* --litert-js"):
        write_bundle(write_export(tmp_path / "export"), tmp_path / "site")


# --- in a browser


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The address of a bundle of the small model, its folder, and rendered people with photos."""
    if not os.environ.get("LITERT_JS") and not shutil.which("npm"):
        pytest.skip("no npm to fetch LiteRT.js with")
    root = tmp_path_factory.mktemp("web")
    export = write_export(root / "export")
    given_packages = os.environ.get("LITERT_JS")
    try:
        write_bundle(export, root / "site", given_packages and root.__class__(given_packages))
    except FacetpuError as error:
        pytest.skip(str(error))
    write_people(root / "people", people=2, photos_each=3, seed=5, size=240)
    handler = functools.partial(QuietHandler, directory=str(root / "site"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", root
        server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def photos(root):
    """Of each of the rendered people the paths of their photos."""
    return [sorted(folder.iterdir()) for folder in sorted((root / "people").iterdir()) if folder.is_dir()]


LOOK = """async (url) => {
  const bitmap = await createImageBitmap(await (await fetch(url)).blob());
  const pen = new OffscreenCanvas(bitmap.width, bitmap.height).getContext('2d');
  pen.drawImage(bitmap, 0, 0);
  const image = pen.getImageData(0, 0, bitmap.width, bitmap.height);
  window.looking ??= new Worker('worker.js');
  const answer = await new Promise((resolve) => {
    window.looking.onmessage = ({data}) => resolve(data);
    window.looking.postMessage({id: 1, image});
  });
  if (answer.error) throw new Error(answer.error);
  return answer.answer.faces.map(({box, score, landmarks, embedding, crop}) =>
    ({box, score, landmarks, embedding: [...embedding], crop: [...crop.data]}));
}"""


def data_url(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def test_the_browser_sees_what_python_sees(site, open_browser, monkeypatch):
    url, root = site
    monkeypatch.setattr(chains, "compiled", None)  # TFLite on both sides: roundings tip pixels of a crop
    reader = FaceReader(root / "export")
    reader.detector.min_face = MIN_FACE
    browser = open_browser()
    page = browser.new_context(bypass_csp=True).new_page()
    page.goto(url)
    equal = 0
    for photo in [path for person in photos(root) for path in person]:
        image = read_image(photo)
        assert max(image.shape) <= LONGEST
        (seen,) = page.evaluate(LOOK, data_url(image))
        (expected,) = reader.all_faces(image)
        away = np.abs(np.subtract(seen["landmarks"], expected.face.landmarks)).max()
        # Ties in the rounding of a level's pixels tip now and then, and a box or two of P-Net with them.
        assert away < 0.05 * (expected.face.box[2] - expected.face.box[0])
        if away < 0.001:
            np.testing.assert_allclose(seen["box"], expected.face.box, atol=0.001)
            np.testing.assert_allclose(seen["embedding"], expected.embedding, atol=0.001)
            equal += 1
    assert equal >= 3
    browser.close()


def test_people_are_learned_named_renamed_and_erased(site, open_browser):
    url, root = site
    from playwright.sync_api import expect

    (one, same, _), (other, *_) = photos(root)
    browser = open_browser()
    page = browser.new_page(viewport={"width": 390, "height": 900})
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    requests = set()
    page.on("request", lambda request: requests.add(request.url.split("?")[0]))
    ready = "Ready. Nothing leaves this device."
    page.goto(url)
    expect(page.locator("#state")).to_have_text(ready, timeout=30000)
    seen, looked = page.locator("#seen"), iter(range(1, 99))

    def show(photo):
        page.set_input_files("#photo", photo)
        expect(page.locator("#picture")).to_have_attribute("data-looked-at", str(next(looked)), timeout=20000)

    show(one)
    expect(seen).to_have_text("face")
    page.fill("#name", "Ana <b>")
    page.click("#learn")
    expect(page.locator("#known")).to_contain_text("Ana <b>1 picture")
    show(one)
    expect(seen).to_have_text("Ana <b> 1.00")
    show(other)
    expect(seen).to_contain_text("stranger")
    page.once("dialog", lambda dialog: dialog.accept("Ben"))
    page.click("text=Rename")
    expect(page.locator("#known")).to_contain_text("Ben")
    page.reload()
    expect(page.locator("#state")).to_have_text(ready, timeout=30000)
    expect(page.locator("#known")).to_contain_text("Ben1 picture")
    looked = iter(range(1, 99))
    show(one)
    expect(seen).to_have_text("Ben 1.00")
    page.once("dialog", lambda dialog: dialog.accept())
    page.click("text=Erase")
    expect(page.locator("#known")).to_have_text("")
    show(same)
    expect(seen).to_have_text("face")
    page.set_input_files("#photo", {"name": "no.png", "mimeType": "image/png", "buffer": b"no picture"})
    expect(page.locator("#state")).to_have_text("no.png is no picture that this browser can read.")
    assert problems == []
    assert {address for address in requests if not address.startswith((url, "blob:" + url, "data:"))} == set()
    browser.close()


def write_y4m(path, frames):
    """A raw video as Chromium plays it for a camera: uint8 RGB frames of equal and even size."""
    height, width = frames[0].shape[:2]
    with open(path, "wb") as file:
        file.write(f"YUV4MPEG2 W{width} H{height} F10:1 Ip A1:1 C420jpeg\n".encode())
        for frame in frames:
            luma, *chroma = (np.asarray(plane) for plane in Image.fromarray(frame).convert("YCbCr").split())
            file.write(b"FRAME\n" + luma.tobytes())
            for plane in chroma:
                file.write(
                    plane.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3)).astype(np.uint8).tobytes()
                )


def test_the_camera_is_watched_and_a_person_learned_from_it(site, open_browser, tmp_path):
    url, root = site
    from playwright.sync_api import expect

    frame = np.full((480, 640, 3), 200, np.uint8)
    frame[:, 80:560] = resize_area(read_image(photos(root)[0][0]), 480, 480)
    write_y4m(tmp_path / "camera.y4m", [frame] * 5)
    browser = open_browser(
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={tmp_path / 'camera.y4m'}",
    )
    page = browser.new_page()
    page.goto(url)
    page.click("#camera")
    expect(page.locator("#seen")).to_have_text("face", timeout=30000)
    page.fill("#name", "Ana")
    page.click("#learn")
    expect(page.locator("#seen")).to_contain_text("Ana", timeout=30000)
    expect(page.locator("#speed")).to_have_text(re.compile(r"\d\.\d pictures/s"))
    page.click("#camera")
    expect(page.locator("#state")).to_have_text("Ready. Nothing leaves this device.")
    browser.close()


@pytest.mark.parametrize("count", [12, 300])
def test_the_browser_sets_the_threshold_that_the_board_sets(site, open_browser, count):
    url, _ = site
    scores = np.random.default_rng(count).normal(0.2, 0.1, count)
    browser = open_browser()
    page = browser.new_context(bypass_csp=True).new_page()
    page.goto(url)
    script = "async (scores) => (await import('/people.js')).scoreThreshold(scores, 0.01)"
    assert page.evaluate(script, scores.tolist()) == pytest.approx(score_threshold(scores, 0.01), abs=1e-6)
    browser.close()
