"""The page of ``facetpu serve`` in a headless Chromium, on the real server.

Films of rendered people are its cameras. All but a few of these take long; they need Chromium and Playwright.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
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

from facetpu.serve.diary import Diary, Seen

PAGE = Path(__file__).parents[1] / "facetpu" / "serve" / "page"
# Yaw and pitch of a head, in the order in which the poses are asked for; left is the person's own.
POSES = {
    "front": (0.0, 0.0),
    "left": (0.36, 0.0),
    "right": (-0.36, 0.0),
    "up": (0.0, 0.45),
    "down": (0.0, -0.45),
}
PHONE = {"width": 390, "height": 844}
LONG = 150_000  # milliseconds: the machine has other work
ANA, BO = 6, 4  # of ten drawn people, whom the small base of seed 4 tells apart


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
    assert (
        re.findall(
            r"<script(?! type=\"module\" src=)|<style|\sstyle=|\son\w+=|javascript:", files["index.html"]
        )
        == []
    )
    scripts = "".join(text for name, text in files.items() if name.endswith(".js"))
    assert (
        re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", scripts)
        == []
    )


# --- films


def portraits(person: int, extent: float = 1.0) -> dict[str, np.ndarray]:
    """A person in every pose, uint8 [200, 200, 3]; with a smaller ``extent`` the head is turned less."""
    sitter = Sitter(list(draw_people(10, seed=3).values())[person], 200)
    shot = Shot.draw(np.random.default_rng(1))._replace(roll=0)
    return {
        pose: sitter.portrait(
            shot._replace(yaw=extent * yaw, pitch=extent * pitch), np.random.default_rng(2)
        ).image
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
    posing = [scene for portrait in ana.values() for scene in before_the_camera(portrait, 2)]
    door = [*before_the_camera(ana["front"], 3), *wall(1.5), *before_the_camera(bo["front"], 3), *wall(1.5)]
    return {
        "posing": write_video(folder / "posing.avi", posing),
        "door": write_video(folder / "door.avi", door),
        "ana": write_video(folder / "ana.avi", before_the_camera(ana["front"], 3)),
    }


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_export(tmp_path_factory.mktemp("export") / "model", seed=4)
    about = json.loads((folder / "manifest.json").read_text())
    about["threshold"] = (
        0.2  # of two faces of one person: the small base finds poses less alike than a real one
    )
    (folder / "manifest.json").write_text(json.dumps(about))
    return folder


def jpeg(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=95)
    return out.getvalue()


def photos(person: int) -> list[bytes]:
    """A photo of each pose of a person; the small base knows no head that is turned far."""
    return [jpeg(portrait) for portrait in portraits(person, extent=0.4).values()]


@pytest.fixture(scope="module")
def knowing_ana(export: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows Ana."""
    folder = tmp_path_factory.mktemp("known")
    (folder / "people" / "Ana").mkdir(parents=True)
    for number, photo in enumerate(photos(ANA)):
        (folder / "people" / "Ana" / f"{number}.jpg").write_bytes(photo)
    imprint(export, folder / "people", folder / "known", accept_all=True)
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
    command = [
        sys.executable,
        "-m",
        "facetpu",
        "serve",
        *map(str, arguments),
        "--port",
        str(port),
        "--host",
        host,
    ]
    command += ["--min-face", "60", "-q"]  # so that a busy machine keeps up
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        url = process.stdout.readline().strip()
        assert url.startswith("http"), process.wait()
        yield Served(url, process)
        process.terminate()
        assert process.wait(60) == 0
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
        page.on(
            "console", lambda message: "Content Security" in message.text and troubles.append(message.text)
        )
        page.on(
            "request",
            lambda request: (
                request.url.startswith((origin, f"blob:{origin}")) or troubles.append(request.url)
            ),
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


def rename(served: Served, name: str, other: str) -> None:
    """As another device does."""
    headers = {"X-Facetpu": "1", "Content-Type": "application/json"}
    body = json.dumps({"name": other}).encode()
    change = urllib.request.Request(f"{served.url}api/people/{name}", body, headers, method="PATCH")
    urllib.request.urlopen(change).close()


def hold(page: Any, address: str) -> Callable[[], None]:
    """Have the next request for ``address`` wait; returns what lets it go on."""
    held: list[Any] = []
    page.route(address, lambda route: held.append(route), times=1)
    return lambda: held[0].continue_()


def wait_for_a_picture(page: Any) -> None:
    """Until the live picture shows; the page's own policy forbids Playwright's wait_for_function."""
    deadline = time.monotonic() + LONG / 1000
    while not page.evaluate("document.querySelector('#picture').naturalWidth"):
        assert time.monotonic() < deadline
        page.wait_for_timeout(100)


# --- from end to end


def test_a_person_is_added_by_photos_and_recognised(export, films, tmp_path, visit) -> None:
    bare_wall = jpeg(np.full((200, 200, 3), 120, np.uint8))
    with serving(export, "--new", tmp_path / "known", "--camera", films["ana"]) as served:
        page = visit(served.url)
        expect(page.locator("#nobody")).to_contain_text("Nobody is known yet. Add yourself")
        expect(page.locator("#faces")).to_have_text("1 face")
        begin(page, "Ana <b>")
        good = [file(f"{number}.jpg", photo) for number, photo in enumerate(photos(ANA))]
        page.set_input_files(
            "#photos", [*good[:3], file("wall <i>.jpg", bare_wall), file("no.jpg", b"no picture")]
        )
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


@pytest.mark.slow
def test_a_person_is_guided_through_the_poses_named_put_right_renamed_and_erased(
    export, films, tmp_path, visit
) -> None:
    with serving(export, "--new", tmp_path / "known", "--camera", films["posing"]) as served:
        page = visit(served.url)
        expect(page.locator("#faces")).to_have_text("1 face")
        begin(page, "Ana")
        page.click("#by-camera")
        expect(page.locator("#guide-title")).to_have_text("Getting to know Ana")
        expect(page.locator("#poses [aria-current=step]")).to_have_text(re.compile("Front, now"))
        expect(page.locator("#poses .taken")).to_have_count(2)
        expect(page.locator("#refusal")).not_to_have_text("")  # the film goes on in its own order
        expect(
            page.locator("#finish")
        ).to_be_enabled()  # three poses are enough; the film may not show all in order
        page.click("#finish")
        expect(page.locator("#outcome")).to_have_text(re.compile(r"^Ana is known now, by [345] photos\."))
        expect(page.locator("#guide")).to_be_hidden()
        expect(page.locator("#faces")).to_have_text("Ana")
        expect(page.locator("#known li img")).to_be_visible()

        event = page.locator("#seen li", has_text="Ana").first
        event.get_by_role("button").click()
        expect(page.locator("#correction-legend")).to_have_text("This was taken for Ana. It is:")
        page.click("#save-correction")
        expect(page.locator("#correction-problem")).to_have_text("Choose who it is.")
        page.get_by_label("not Ana, and nobody you know").check()
        page.click("#save-correction")
        expect(page.locator("#outcome")).to_have_text("Noted: it is nobody you know.")
        expect(page.locator("#seen")).to_contain_text("put right by hand; was taken for Ana")

        page.get_by_role("button", name="Change Ana").click()
        page.fill("#other-name", "Ann")
        page.get_by_role("button", name="Rename").click()
        expect(page.locator("#outcome")).to_have_text("Ana is called Ann now.")
        expect(page.locator("#faces")).to_have_text("Ann")

        page.get_by_role("button", name="Change Ann").click()
        page.click("#erase-person")
        expect(page.locator("#question-text")).to_contain_text("photos of Ann is lost, with the portrait")
        page.click("#no")
        expect(page.locator("#person")).to_be_visible()
        page.click("#erase-person")
        page.click("#yes")
        expect(page.locator("#outcome")).to_have_text("Ann is erased.")
        expect(page.locator("#nobody")).to_be_visible()
        expect(page.locator("#faces")).to_have_text("1 face")
        expect(page.locator("#seen")).not_to_contain_text("Ann")


@pytest.mark.slow
def test_a_stranger_is_given_a_name_from_an_event_and_recognised(known, films, visit) -> None:
    with serving(known, "--camera", films["door"]) as served:
        page = visit(served.url)
        expect(page.locator("#faces")).to_have_text("Ana")
        stranger = page.locator("#seen li", has_text="Stranger").filter(has_not_text="here since").first
        stranger.get_by_role("button", name="Say who this is").click()
        expect(page.locator("#candidates label")).to_have_text(["Ana", "somebody new"])
        expect(page.locator("#somebody-new")).to_be_hidden()
        page.get_by_label("somebody new").check()
        page.click("#save-correction")
        expect(page.locator("#correction-problem")).to_have_text("Give the new person a name.")
        page.fill("#somebody-new", "Bo")
        page.click("#save-correction")
        expect(page.locator("#outcome")).to_have_text(
            "Noted: it is Bo. The picture is one of Bo's photos now."
        )
        expect(page.locator("#known")).to_contain_text("Bo1 photo · ")
        expect(page.locator("#faces")).to_have_text("Bo")
        page.select_option("#whose", "Bo")
        expect(page.locator("#seen li", has_text="Ana")).to_have_count(0)
        event = page.locator("#seen li", has_text="put right by hand; was taken for a stranger")
        expect(event).to_have_count(1)
        event.get_by_role("button").click()
        page.click("#forget")
        page.click("#yes")
        expect(page.locator("#outcome")).to_have_text("The event is erased.")
        expect(event).to_have_count(0)
        expect(page.locator("#known")).to_contain_text("Bo1 photo")


@pytest.mark.slow
def test_two_names_of_one_person_are_merged_and_the_threshold_is_chosen(known, films, visit) -> None:
    with serving(known, "--camera", films["ana"]) as served:
        page = visit(served.url)
        expect(page.locator("#known")).to_contain_text("Ana")
        begin(page, "Ana")
        expect(page.locator("#new-note")).to_have_text(
            "Ana is known already, by 5 photos; yours are added to them."
        )
        page.fill("#new-name", "Bo")
        page.set_input_files("#photos", [file("bo.jpg", photos(BO)[0])])
        expect(page.locator("#upload-state")).to_have_text("Bo is known now, by 1 photo.")
        page.click("#close-new")
        page.get_by_role("button", name="Change Bo").click()
        page.select_option("#merge-into", "Ana")
        page.get_by_role("button", name="Merge").click()
        expect(page.locator("#question-title")).to_have_text("Are Bo and Ana one person?")
        page.click("#yes")
        expect(page.locator("#outcome")).to_have_text("Bo is Ana now.")
        expect(page.locator("#known li")).to_have_text([re.compile("^Ana6 photos · ")])

        choices = page.locator("#choices label")
        expect(choices.first).to_contain_text("about 1 of 1,000Strictest")
        with page.expect_response(
            lambda answer: answer.request.method == "GET" and "threshold" in answer.url
        ):
            page.get_by_label("about 3 of 100").check()
        page.wait_for_timeout(500)  # that others changed something is heard by this page as well
        expect(page.locator("#threshold-note")).to_have_text("Set. It holds from now on.")
        assert page.evaluate("document.activeElement.value") == "0.03"
        page.reload()
        expect(page.get_by_label("about 3 of 100")).to_be_checked()
        page.route("**/api/threshold", lambda route: route.abort())
        page.get_by_label("about 1 of 1,000").click()
        expect(page.locator("#threshold-note")).to_have_text(re.compile("^The server does not answer"))
        expect(page.get_by_label("about 3 of 100")).to_be_checked()


@pytest.mark.slow
def test_photos_that_cannot_be_sent_are_refused_before(known, films, visit) -> None:
    with serving(known, "--camera", films["ana"]) as served:
        page = visit(served.url)
        page.click("#add")
        page.set_input_files("#photos", [file("a.jpg", b"a")])
        assert page.evaluate("document.querySelector('#new-name').matches(':invalid')")
        page.fill("#new-name", "Bo")
        state = page.locator("#upload-state")
        page.set_input_files("#photos", [file(f"{number}.jpg", b"a") for number in range(11)])
        expect(state).to_have_text("These are 11 photos; choose 10 at most.")
        page.set_input_files("#photos", [file("huge.jpg", b"a" * (10 * 2**20 + 1))])
        expect(state).to_have_text("Huge.jpg has more than 10 MB; make it smaller.", ignore_case=True)
        page.set_input_files("#photos", [file(f"{number}.jpg", b"a" * (9 * 2**20)) for number in range(5)])
        expect(state).to_have_text("The photos have more than 40 MB in all; choose fewer.")
        page.set_input_files("#photos", [file("no.jpg", b"no picture")])
        expect(state).to_have_text("None of the photos could be used.")
        page.fill("#new-name", ".hidden")
        page.set_input_files("#photos", [file("bo.jpg", photos(BO)[0])])
        expect(state).to_have_text(re.compile("holds a slash or starts with a dot"))
        page.click("#close-new")
        expect(page.locator("#known li")).to_have_count(1)


@pytest.mark.slow
def test_the_older_events_are_shown_as_far_as_the_server_tells_them_at_once(known, tmp_path, visit) -> None:
    state = tmp_path / "state"
    state.mkdir()
    diary, now = Diary(state), time.time()
    for number in range(210):
        diary.begin("0", number, Seen("Ana", 0.7, now, False, 1), now, None, kept_from=now)
    diary.close()
    with serving(known, "--state", state) as served:
        page = visit(served.url)
        rows, older = page.locator("#seen li"), page.locator("#older")
        for count in [*range(12, 199, 12), 199]:
            expect(rows).to_have_count(count)
            if count < 199:
                older.click()
        expect(older).to_be_hidden()
        page.select_option("#whose", "Ana")
        expect(rows).to_have_count(12)


@pytest.mark.slow
def test_a_row_is_shown_anew_with_each_change_and_day_and_keeps_nothing_of_the_one_before(
    known, visit
) -> None:
    with serving(known) as served:
        page = visit(served.url)
        page.evaluate("""async () => {
            const {button, make, showRows} = await import('/static/dom.js');
            const list = document.body.appendChild(make('ul'));
            const row = () => make('li', {}, button('Do', () => {}));
            window.show = (seen) => showRows(list, [{id: 1, seen}], ({id}) => id, row);
            show(0);
            window.first = new WeakRef(list.firstChild);
            list.querySelector('button').focus();
            show(1);
            window.second = list.firstChild;
            window.focused = document.activeElement === window.second.querySelector('button');
            window.stays = () => (show(1), list.firstChild === window.second);
        }""")
        page.wait_for_timeout(100)  # a WeakRef holds on until its task is over
        page.context.new_cdp_session(page).send("HeapProfiler.collectGarbage")
        assert page.evaluate("[window.focused, window.first.deref() === undefined]") == [True, True]
        assert page.evaluate("window.stays()")
        page.clock.set_fixed_time(time.time() + 86400)
        assert not page.evaluate("window.stays()")


@pytest.mark.slow
def test_photos_chosen_while_others_are_looked_at_are_not_taken_without_a_word(known, visit) -> None:
    with serving(known) as served:
        page = visit(served.url)
        state = page.locator("#upload-state")
        expect(page.locator("#known")).to_contain_text("Ana")
        begin(page, "Bo")
        go_on = hold(page, "**/photos")
        with page.expect_request("**/photos"):
            page.set_input_files("#photos", [file("bo.jpg", photos(BO)[0])])
        page.click("#close-new")
        begin(page, "Cy")
        page.set_input_files("#photos", [file("cy.jpg", photos(BO)[1])])
        expect(state).to_have_text(
            "The photos before are still being looked at; choose again when they are done."
        )
        go_on()
        expect(page.locator("#outcome")).to_have_text("Bo is known now, by 1 photo.")
        expect(page.locator("#uploaded li")).to_have_count(0)
        page.set_input_files("#photos", [file("no.jpg", b"no picture")])
        expect(state).to_have_text("None of the photos could be used.")


@pytest.mark.slow
def test_who_changed_elsewhere_meanwhile_can_be_asked_to_be_erased_or_merged(known, visit) -> None:
    with serving(known) as served:
        page = visit(served.url)
        page.get_by_role("button", name="Change Ana").click()
        rename(served, "Ana", "Ann")
        expect(page.locator("#known")).to_contain_text("Ann")
        page.click("#erase-person")
        expect(page.locator("#question-title")).to_have_text("Erase Ana?")
        page.click("#yes")
        expect(page.locator("#person-problem")).to_have_text(re.compile("Ana"))
        expect(page.locator("#known li")).to_have_count(1)


@pytest.mark.slow
def test_what_one_window_does_the_other_shows(known, films, visit) -> None:
    with serving(known, "--camera", films["posing"]) as served:
        one = visit(served.url)
        other = visit(served.url, {"width": 1280, "height": 900})
        expect(other.locator("#known")).to_contain_text("Ana5 photos")
        begin(one, "Ann")
        one.click("#by-camera")
        expect(one.locator("#instruction")).not_to_have_text("")
        begin(other, "Bea")
        other.click("#by-camera")
        expect(other.locator("#upload-state")).not_to_have_text("")  # the camera is taken
        other.click("#close-new")
        with one.expect_response(lambda response: response.request.method == "DELETE"):
            one.keyboard.press("Escape")
        expect(one.locator("#guide")).to_be_hidden()
        begin(other, "Bea")
        other.click("#by-camera")
        expect(other.locator("#guide")).to_be_visible()
        other.click("#give-up")
        one.get_by_role("button", name="Change Ana").click()
        one.fill("#other-name", "أنا")
        one.get_by_role("button", name="Rename").click()
        expect(other.locator("#known")).to_contain_text("أنا5 photos")


@pytest.mark.slow
def test_the_token_lets_in_and_leaves_the_address(known, films, tmp_path, visit) -> None:
    state = tmp_path / "state"
    with serving(known, "--camera", films["ana"], "--state", state, host="0.0.0.0") as served:
        url = re.sub(r"//[^/]*:", "//127.0.0.1:", served.url)
        token = (state / "token").read_text().strip()
        page = visit(url)
        expect(page.locator("#log-in")).to_be_visible()
        expect(page.locator("#house")).to_be_hidden()
        page.fill("#token", "guess")
        page.click("#log-in button")
        expect(page.locator("#log-in-problem")).to_have_text(re.compile("^This is not the token; "))
        page.fill("#token", token)
        page.click("#log-in button")
        expect(page.locator("#known")).to_contain_text("Ana")
        page.reload()
        expect(page.locator("#known")).to_contain_text("Ana")
        page.click("#log-out")
        expect(page.locator("#log-in")).to_be_visible()

        fresh = visit(f"{url}#token={token}")
        expect(fresh.locator("#known")).to_contain_text("Ana")
        assert fresh.url == url
        (cookie,) = fresh.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        assert fresh.evaluate("[document.cookie, Object.keys(localStorage).length]") == ["", 0]


@pytest.mark.slow
def test_a_server_that_went_is_found_again(known, films, visit) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with serving(known, "--camera", films["ana"], port=port) as served:
        page = visit(served.url)
        expect(page.locator("#faces")).to_have_text("Ana")
    expect(page.locator("#state")).to_have_text(re.compile("^The server does not answer"))
    page.click("#add")
    page.fill("#new-name", "Bo")
    page.set_input_files("#photos", [file("bo.jpg", photos(BO)[0])])
    expect(page.locator("#upload-state")).to_have_text(re.compile("^The server does not answer"))
    page.click("#close-new")
    with serving(known, "--camera", films["ana"], port=port):
        expect(page.locator("#state")).to_have_text("1 camera watching · 1 person known")
        expect(page.locator("#faces")).to_have_text("Ana")
        wait_for_a_picture(page)


@pytest.mark.slow
def test_a_camera_that_is_not_there_is_told_and_another_can_be_watched(known, films, tmp_path, visit) -> None:
    gone = tmp_path / "gone.avi"
    with serving(known, "--camera", gone, "--camera", films["ana"]) as served:
        page = visit(served.url)
        expect(page.locator("#hint")).to_have_text(
            re.compile(r"^Camera 1 is lost\. .* It is tried again until it is back\.$")
        )
        buttons = page.locator("#others button")
        expect(buttons).to_have_text(["Camera 1 (lost)", "Camera 2"])
        expect(buttons.first).to_have_attribute("aria-pressed", "true")
        page.click("text=Camera 2")
        expect(buttons.first).to_have_attribute("aria-pressed", "false")
        expect(buttons.last).to_have_attribute("aria-pressed", "true")
        expect(page.locator("#hint")).to_be_hidden()
        expect(page.locator("#faces")).to_have_text("Ana")
        shutil.copy(films["ana"], gone)
        expect(buttons.first).to_have_text("Camera 1")
        page.click("text=Camera 1")
        expect(page.locator("#hint")).to_be_hidden()
        expect(page.locator("#faces")).to_have_text("Ana")


HIDE = """(hidden) => {
    Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});
    document.dispatchEvent(new Event('visibilitychange'));
}"""


@pytest.mark.slow
def test_a_hidden_page_lets_its_streams_go(known, films, visit) -> None:
    with serving(known, "--camera", films["ana"]) as served:
        page = visit(served.url)
        expect(page.locator("#faces")).to_have_text("Ana")
        asked: list[str] = []
        ended: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("requestfailed", lambda request: ended.append(request.url))
        page.evaluate(HIDE, True)
        page.wait_for_timeout(1000)
        del asked[:]
        page.wait_for_timeout(4000)
        assert asked == []
        assert {address.split("/")[-1].split("?")[0] for address in ended} >= {"notices"}
        page.evaluate(HIDE, False)
        expect(page.locator("#faces")).to_have_text("Ana")
        wait_for_a_picture(page)


@pytest.mark.slow
def test_a_page_may_be_hidden_and_shown_while_it_loads(known, films, visit) -> None:
    def loading(page: Any) -> Callable[[], None]:
        """Load the page anew, up to its list of people; returns what lets it go on."""
        go_on = hold(page, "**/api/people")
        with page.expect_request("**/api/people"):
            page.reload()
        return go_on

    with serving(known, "--camera", films["ana"]) as served:
        page = visit(served.url)
        expect(page.locator("#faces")).to_have_text("Ana")
        go_on = loading(page)
        page.evaluate(HIDE, True)
        go_on()
        expect(page.locator("#state")).to_have_text("1 camera watching · 1 person known")
        expect(page.locator("#picture")).not_to_have_attribute("src", re.compile(""))
        go_on = loading(page)
        page.evaluate(HIDE, True)
        page.evaluate(HIDE, False)
        go_on()
        wait_for_a_picture(page)
        rename(served, "Ana", "Ann")
        expect(page.locator("#known")).to_contain_text("Ann")  # it listens


@pytest.mark.slow
def test_a_page_too_many_says_so_until_another_is_closed(known, visit) -> None:
    with serving(known) as served, ExitStack() as others:
        for _ in range(8):
            others.enter_context(urllib.request.urlopen(f"{served.url}api/notices"))
        page = visit(served.url)
        state = page.locator("#state")
        expect(state).to_have_text("Too many pages are open; close one. It is asked again…")
        expect(page.locator("#known")).to_contain_text("Ana")
        others.close()
        expect(state).to_have_text("No camera is watching · 1 person known")


@pytest.mark.slow
def test_an_answer_that_is_cut_off_is_asked_for_again(known, films, visit) -> None:
    with serving(known, "--camera", films["ana"]) as served:
        page = visit(served.url)
        page.goto("about:blank")  # so that the page there does not ask instead, as when somebody is seen
        page.route("**/api/people", lambda route: route.fulfill(body='{"people": [{'), times=1)
        page.goto(served.url)
        expect(page.locator("#state")).to_have_text(re.compile("^The server does not answer"))
        expect(page.locator("#state")).to_have_text("1 camera watching · 1 person known")


# --- for thumbs, keyboards and screen readers

SMALL = """() => [...document.querySelectorAll('button, select, nav a, .button, .choice')]
    .filter((control) => control.checkVisibility())
    .map((control) => [control.textContent, control.getBoundingClientRect()])
    .filter(([, {width, height}]) => width < 43.5 || height < 43.5)
    .map(([text]) => text)"""
NAMELESS = """() => [...document.querySelectorAll('button, input:not([hidden]), select, a, img')]
    .filter((control) => control.checkVisibility() && !control.labels?.length
      && !control.ariaLabel && !control.textContent.trim()
      && !control.hasAttribute('alt') && !control.hasAttribute('aria-labelledby'))
    .map((control) => control.outerHTML)"""


@pytest.mark.slow
@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_is_wider_than_the_window_nor_too_small_for_a_thumb(known, films, visit, width) -> None:
    with serving(known, "--camera", films["ana"], "--camera", films["door"]) as served:
        page = visit(served.url, {"width": width, "height": 800})
        expect(page.locator("#faces")).to_have_text("Ana")
        page.get_by_role("button", name="Change Ana").click()
        page.fill("#other-name", "Ana-Maria-Wilhelmina-Konstantinopolitanskaya-Abdurrahman")
        page.get_by_role("button", name="Rename").click()
        expect(page.locator("#seen")).to_contain_text("Ana-Maria")
        opened = [None, "#add", "#known button", "#seen button"]
        for opener in opened:
            if opener:
                page.locator(opener).first.click()
                expect(page.locator("dialog[open]")).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate(SMALL) == []
            page.keyboard.press("Escape")


@pytest.mark.slow
def test_all_of_it_goes_by_keyboard_and_has_names(known, films, visit) -> None:
    with serving(known, "--camera", films["ana"]) as served:
        page = visit(served.url, {"width": 1280, "height": 900})
        expect(page.locator("#seen")).to_contain_text("Ana")
        assert page.evaluate(NAMELESS) == []
        page.locator("#add").focus()
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "new-name"
        page.keyboard.press("Escape")
        assert page.evaluate("document.activeElement.id") == "add"
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.locator("#person-name")).to_have_text("Ana")
        page.locator("#erase-person").focus()
        page.keyboard.press("Enter")
        assert (
            page.evaluate("document.activeElement.id") == "no"
        )  # what is asked before is not done by a slip
        time.sleep(3)  # Ana's last sighting is shown anew meanwhile, and below
        page.keyboard.press("Escape")
        page.keyboard.press("Escape")
        expect(page.locator("#known li")).to_have_count(1)
        focused = page.evaluate("document.activeElement.textContent")
        page.set_viewport_size({"width": 400, "height": 300})
        page.evaluate("scrollTo(0, document.body.scrollHeight)")
        scrolled = page.evaluate("scrollY")
        time.sleep(3)
        assert page.evaluate("document.activeElement.textContent") == focused == "Change"
        assert page.evaluate("scrollY") == scrolled > 0  # who reads elsewhere is not taken back to it
