"""The house without HTTP: who is enrolled and how, what is seen, corrected and forgotten; what goes wrong."""

from __future__ import annotations

import errno
import io
import json
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import test_board_pythons
from PIL import Image
from serve_people import ANA, BO, CY, DI, POSES, encoded, photo, portrait, write_film, write_nobody

from facetpu.board.folder import ModelFolder
from facetpu.board.identify import Identifier
from facetpu.board.people import list_people, merge_people, remove_person, rename_person
from facetpu.board.recogniser import read_known
from facetpu.board.tracking import CONFIRMED
from facetpu.board.video import Frame
from facetpu.errors import FacetpuError
from facetpu.serve import cameras, enrolling, live, roster
from facetpu.serve.answers import Notice, Settings
from facetpu.serve.cameras import Eye, Taken, masked
from facetpu.serve.clock import BELIEVED_AFTER, HouseClock
from facetpu.serve.diary import Diary, Seen
from facetpu.serve.enrolling import Enrolments, candidates_of
from facetpu.serve.house import House, default_state, new_house
from facetpu.serve.household import MOST_PHOTOS
from facetpu.serve.notices import LISTENERS, WAITING, Notices
from facetpu.serve.poses import nose_height, pose_fault
from facetpu.serve.refusals import Busy, Conflict, Full, Refused, Unknown
from facetpu.serve.watching import Watch
from facetpu.serve.worker import Worker

ANA_THERE = portrait(ANA).image
WALL = np.full((160, 160, 3), 90, np.uint8)


@pytest.fixture(scope="module")
def nobody(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nobody(tmp_path_factory.mktemp("nobody"))


@pytest.fixture(scope="module")
def couple(nobody: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A house that knows Ana and Bo, with its state."""
    folder = tmp_path_factory.mktemp("couple")
    shutil.copytree(nobody, folder / "kitchen")
    with House(folder / "kitchen", [], None, Settings()) as house:
        house.enrol_photos("Ana", [photo(ANA, take) for take in range(3)])
        house.enrol_photos("Bo", [photo(BO, take) for take in range(3)])
    return folder


@pytest.fixture
def home(couple: Path, tmp_path: Path) -> Iterator[House]:
    shutil.copytree(couple, tmp_path / "home")
    with House(tmp_path / "home" / "kitchen", [], None, Settings()) as house:
        yield house


@pytest.fixture(scope="module")
def steady(couple: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house that nothing is changed in."""
    home = Path(shutil.copytree(couple, tmp_path_factory.mktemp("steady") / "home"))
    with House(home / "kitchen", [], None, Settings()) as house:
        yield house


def model_of(house: House) -> Path:
    return house.state.with_name("kitchen")


def written(house: House, name: str | None, crop: bytes) -> int:
    """Another event of a house, which is closed for it."""
    house.stop()
    diary = Diary(house.state)
    event = diary.begin("0", 1, Seen(name, 0.7, 12.0, False, 5), 1.0, crop, kept_from=time.time())
    diary.close()
    return event


def swap(model: Path) -> None:
    rename_person(model, "Ana", "Cy")
    rename_person(model, "Bo", "Ana")
    rename_person(model, "Cy", "Bo")


def take_the_name(model: Path) -> None:
    remove_person(model, "Ana")
    rename_person(model, "Bo", "Ana")


def full_disk(*_: object) -> None:
    """A stand-in for a method of the diary, which the disk has no space for."""
    raise Full("events.db: cannot be written")


def eventually(true: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until something is true; the machine may be slow."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def names(house: House) -> list[tuple[str, int]]:
    return [(person.name, person.photos) for person in house.people()]


def named_anywhere(folder: Path, name: str) -> list[str]:
    """The files below ``folder`` that hold ``name``, but for the audit log."""
    return [
        path.name
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "audit.log" and name.encode() in path.read_bytes()
    ]


# --- People ---


def test_a_house_begins_with_nobody_and_may_end_so(nobody: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(nobody, tmp_path / "kitchen"))
    with House(model, [], None, Settings()) as house:
        assert (house.people(), house.cameras(), house.events(), house.problem()) == ([], [], [], None)
        assert house.threshold()[:3] == (None, 0.01, "nobody is enrolled")
        told = house.enrol_photos("Zoë Quux", [photo(ANA, take) for take in range(3)])
        assert (told.name, told.photos, told.added, told.refused) == ("Zoë Quux", 3, 3, [])
        assert names(house) == [("Zoë Quux", 3)]
        assert Image.open(io.BytesIO(house.portrait("Zoë Quux") or b"")).size > (90, 90)
        assert list_people(model).people == [("Zoë Quux", 0, 3)]
        house.erase("Zoë Quux")
        assert house.people() == []
        assert named_anywhere(tmp_path, "Quux") == []
        assert [path.name for path in (house.state / "portraits").iterdir()] == []
        assert str(list_people(model)) == "nobody is enrolled"
        assert Identifier(model).faces(portrait(ANA).image)[0].name is None
        house.enrol_photos("Bo", [photo(BO)])
        assert names(house) == [("Bo", 1)]
    actions = [json.loads(line) for line in (house.state / "audit.log").read_text().splitlines()]
    assert [(line["action"], line["name"]) for line in actions] == [
        ("enrol", "Zoë Quux"),
        ("erase", "Zoë Quux"),
        ("enrol", "Bo"),
    ]


def test_what_the_house_keeps_is_its_owners(home: House) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in home.state.iterdir()}
    assert {name for name, mode in modes.items() if mode == 0o700} == {"crops", "portraits"}
    assert {"events.db", "audit.log", "lock"} <= {name for name, mode in modes.items() if mode == 0o600}
    assert set(modes.values()) == {0o600, 0o700}
    assert stat.S_IMODE(home.state.stat().st_mode) == 0o700


def test_a_model_without_gallery_is_told_what_to_do(nobody: Path, home: House, tmp_path: Path) -> None:
    export = nobody.with_name("export")
    with pytest.raises(FacetpuError, match=r"export: knows nobody yet; enrol people with .* --new OUT"):
        House(export, [], tmp_path / "state", Settings())
    assert not (tmp_path / "state").exists()
    with pytest.raises(FacetpuError, match="kitchen: knows people already"):
        new_house(model_of(home), tmp_path / "new")
    with pytest.raises(FacetpuError, match=r"kitchen: exists; serve it as it is: facetpu serve .*kitchen"):
        new_house(export, model_of(home))


def test_names_are_changed_everywhere(home: House) -> None:
    face = home.portrait("Bo")
    home.rename("Ana", "Ana Silva")
    home.rename("Bo", "bo")
    home.rename("bo", "Bo Quux")
    assert names(home) == [("Ana Silva", 3), ("Bo Quux", 3)]
    assert home.portrait("Bo Quux") == face
    home.merge("Bo Quux", "Ana Silva")
    assert names(home) == [("Ana Silva", 6)]
    assert named_anywhere(model_of(home), "Quux") == named_anywhere(home.state, "Quux") == []
    assert len(list((home.state / "portraits").iterdir())) == 1


@pytest.mark.parametrize(
    ("ask", "refusal", "message"),
    [
        (lambda house: house.rename("Cy", "Di"), Unknown, "nobody is called 'Cy'"),
        (lambda house: house.rename("Ana", "Bo"), Conflict, "Bo is known already"),
        (lambda house: house.rename("Ana", "BO "), Refused, "spaces around it"),
        (lambda house: house.rename("Ana", "bo"), Conflict, "look like one person"),
        (lambda house: house.rename("Ana", "a/../b"), Refused, "holds a slash"),
        (lambda house: house.rename("Ana", "x" * 81), Refused, "81 characters; 80 are the most"),
        (lambda house: house.merge("Ana", "Ana"), Conflict, "cannot be merged into Ana"),
        (lambda house: house.merge("Ana", "Cy"), Unknown, "nobody is called 'Cy'"),
        (lambda house: house.erase("Cy"), Unknown, "nobody is called 'Cy'"),
        (lambda house: house.portrait("../events"), Refused, "holds a slash"),
        (lambda house: house.enrol_photos("ana", [b""]), Conflict, "look like one person"),
        (lambda house: house.enrol_photos("Cy", []), Refused, "0 photos were given"),
        (lambda house: house.enrol_photos("Cy", [b""] * (MOST_PHOTOS + 1)), Refused, "give 1 to 10"),
        (lambda house: house.begin_enrolment("Cy", "0"), Unknown, "no camera '0'"),
        (lambda house: house.enrolment("x"), Unknown, "no such enrolment"),
        (lambda house: house.picture("0"), Unknown, "no camera '0'"),
        (lambda house: house.crop(1), Unknown, "no event 1"),
        (lambda house: house.correct(1, "Ana"), Unknown, "no event 1"),
        (lambda house: house.forget(1), Unknown, "no event 1"),
        (lambda house: house.set_threshold(0.0), Refused, "no share of strangers"),
        (lambda house: house.set_threshold(float("nan")), Refused, "no share of strangers"),
    ],
)
def test_what_cannot_be_done_is_refused_and_changes_nothing(
    steady: House, ask: Callable[[House], object], refusal: type[FacetpuError], message: str
) -> None:
    before = (model_of(steady) / "gallery.npz").stat()
    with pytest.raises(refusal, match=message):
        ask(steady)
    assert names(steady) == [("Ana", 3), ("Bo", 3)]
    assert (model_of(steady) / "gallery.npz").stat() == before


def test_each_photo_that_is_not_taken_has_its_reason(home: House) -> None:
    several = np.hstack([portrait(CY).image, portrait(DI).image])
    bomb = io.BytesIO()
    Image.new("1", (8000, 8000)).save(bomb, "PNG")
    flat = (portrait(CY).image * 0.3).astype(np.uint8)
    photos = [
        b"",
        b"<html>",
        photo(CY)[:900],
        encoded(WALL),
        encoded(several),
        bomb.getvalue(),
        encoded(flat),
    ]
    told = home.enrol_photos("Cy", [*photos, photo(ANA, 0), photo(ANA, 1)])
    reasons = [(remark.photo, remark.kinds) for remark in told.refused]
    assert reasons == [
        ("photo 1", ["unreadable"]),
        ("photo 2", ["unreadable"]),
        ("photo 3", ["unreadable"]),
        ("photo 4", ["no face"]),
        ("photo 5", ["several faces"]),
        ("photo 6", ["unreadable"]),
        ("photo 7", ["flat"]),
        ("photo 8", ["known"]),
        ("photo 9", ["known"]),
    ]
    assert told.refused[0].text == "is empty"
    assert told.refused[5].text == "has more than 32,000,000 pixels"
    assert told.refused[7].text == "is enrolled already, as a photo of Ana"
    assert (told.photos, told.added, names(home)) == (0, 0, [("Ana", 3), ("Bo", 3)])
    twice = home.enrol_photos("Cy", [photo(CY), photo(CY)])
    assert (twice.photos, twice.added, [remark.photo for remark in twice.refused]) == (1, 1, ["photo 2"])
    someone_else = home.enrol_photos("Bo", [photo(ANA, 3)])
    assert [remark.kinds for remark in someone_else.refused] == [["someone else"]]
    assert (someone_else.photos, someone_else.added) == (3, 0)


@pytest.mark.slow
def test_people_changed_by_another_program_are_taken_over(home: House) -> None:
    with home.subscribe() as told:
        rename_person(model_of(home), "Bo", "Bob")
        assert told.next(20) == Notice("people", {"what": "changed"})
    assert names(home) == [("Ana", 3), ("Bob", 3)]
    remove_person(model_of(home), "Ana")
    home.rename("Bob", "Bo")  # goes by what the folder holds now, noticed or not
    assert names(home) == [("Bo", 3)]
    eventually(lambda: named_anywhere(home.state, "Ana") == [])


def test_the_threshold_stands_for_a_share_of_strangers(home: House) -> None:
    found = home.threshold()
    assert (found.false_accepts, found.source) == (0.01, "1.00% of 200 strangers' faces reach it")
    cosines = dict(found.choices)
    assert cosines[0.01] == found.cosine
    assert list(cosines.values()) == sorted(cosines.values(), reverse=True)
    looser = home.set_threshold(0.1)
    assert (looser.false_accepts, looser.cosine) == (0.1, cosines[0.1])
    assert read_known(ModelFolder.find(model_of(home))).threshold == cosines[0.1]


@pytest.mark.slow
def test_two_enrol_at_once(home: House) -> None:
    def enrol(name: str, seed: int) -> None:
        home.enrol_photos(name, [photo(seed, take) for take in range(2)])

    threads = [threading.Thread(target=enrol, args=person) for person in (("Cy", CY), ("Di", DI))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(names(home)) == [("Ana", 3), ("Bo", 3), ("Cy", 2), ("Di", 2)]
    known = read_known(ModelFolder.find(model_of(home)))
    assert sorted(known.people) == ["Ana", "Bo", "Cy", "Di"]


def test_one_house_at_a_time_has_a_state(home: House) -> None:
    with pytest.raises(FacetpuError, match=r"kitchen\.state: another facetpu serve uses it"):
        House(model_of(home), [], None, Settings())
    assert default_state(model_of(home)) == home.state
    home.stop()
    with House(model_of(home), [], None, Settings()) as again:
        assert names(again) == [("Ana", 3), ("Bo", 3)]
    with pytest.raises(Busy, match="closed"):
        home.events()


# --- Cameras and events ---


@pytest.fixture
def who() -> int:
    """Who is at the door."""
    return ANA


@pytest.fixture
def film(who: int, tmp_path: Path) -> Path:
    """Somebody for a second and a half, nobody for three, and again."""
    return write_film(tmp_path / "door.avi", [who, who, None, None, None, None])


@pytest.fixture
def door(couple: Path, film: Path, tmp_path: Path) -> Iterator[House]:
    shutil.copytree(couple, tmp_path / "home")
    with House(tmp_path / "home" / "kitchen", [str(film)], None, Settings()) as house:
        yield house


def test_who_is_seen_is_written_down_told_and_shown(door: House) -> None:
    with door.subscribe() as told:
        notices = [told.next(20)]
        while notices[-1] is not None and notices[-1].data.get("what") != "left":
            notices.append(told.next(20))
    seen = [notice.data for notice in notices if notice is not None and notice.kind == "seen"]
    assert seen[0]["what"] == "appeared"
    assert {data["name"] for data in seen} == {"Ana"}
    event = door.events()[-1]
    assert {"what": "left", **event._asdict()} == seen[-1]
    assert (event.camera, event.name, event.who, event.present, event.crop) == (
        "0",
        "Ana",
        "Ana",
        False,
        True,
    )
    assert 0 <= event.ended - event.began <= 2
    assert event.cosine is not None and event.cosine > 0.6  # noqa: PT018
    ana, bo = door.people()
    assert (ana.last_seen, bo.last_seen) == (pytest.approx(event.ended, abs=30), None)
    crop = Image.open(io.BytesIO(door.crop(event.id) or b""))
    assert 60 < crop.width < 200
    assert door.events(name="Bo") == []
    assert door.events(before=event.id) == []
    (state,) = door.cameras()
    assert (state.state, state.problem) == ("watching", None)
    assert state.frames_per_second > 1
    assert state.latency_ms is not None


@pytest.mark.parametrize("who", [CY])
def test_who_it_was_is_put_right(door: House) -> None:
    eventually(lambda: any(not event.present for event in door.events()))
    event = door.events()[-1]
    with pytest.raises(Refused, match="holds a slash"):
        door.correct(event.id, "/")
    right = door.correct(event.id, "Cy")
    assert (right.name, right.corrected, right.corrected_name, right.who) == (None, True, "Cy", "Cy")
    assert right.refusal is None
    assert names(door) == [("Ana", 3), ("Bo", 3), ("Cy", 1)]
    assert door.portrait("Cy") is not None
    assert door.correct(event.id, "Cy").refusal is None
    assert event.id in [event.id for event in door.events(name="Cy")]
    assert door.correct(event.id, "Bo").corrected_name == "Bo"
    assert names(door) == [("Ana", 3), ("Bo", 4)]  # Cy was that photo only
    assert all(person.last_seen for person in door.people() if person.name == "Bo")
    nobody = door.correct(event.id, None)
    assert (nobody.corrected, nobody.corrected_name, nobody.who, nobody.crop) == (True, None, None, True)
    assert names(door) == [("Ana", 3), ("Bo", 3)]
    door.forget(event.id)
    assert event.id not in [event.id for event in door.events()]
    with pytest.raises(Unknown):
        door.crop(event.id)


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_photo_goes_from_one_person_to_the_next_or_not_at_all(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = written(home, None, photo(CY))
    with House(model_of(home), [], None, Settings()) as house:
        house.correct(event, "Cy Quux")
        with monkeypatch.context() as full:
            full.setattr(roster, "change_people", no_space)
            for name in ("Bo", "Di", None):
                with pytest.raises(Full):
                    house.correct(event, name)
            with pytest.raises(Full):
                house.erase("Cy Quux")
        assert names(house) == [("Ana", 3), ("Bo", 3), ("Cy Quux", 1)]
        whole(house)
    with House(model_of(home), [], None, Settings(min_face=160)) as house:
        with pytest.raises(Refused, match="cannot be a first photo: it shows no face"):
            house.correct(event, "Di")
        assert names(house) == [("Ana", 3), ("Bo", 3), ("Cy Quux", 1)]
        assert house.events()[0].who == "Cy Quux"
        assert house.portrait("Cy Quux") is not None
        right = house.correct(event, "Bo")
        assert (right.who, str(right.refusal)[:13]) == ("Bo", "shows no face")
        assert names(house) == [("Ana", 3), ("Bo", 3)]
        assert house._identifier.gallery.people == ["Ana", "Bo"]
        assert named_anywhere(home.state, "Quux") == []
        whole(house)


def test_who_is_erased_leaves_no_event_with_name_or_picture(door: House) -> None:
    eventually(lambda: len(door.events(name="Ana")) > 0)
    door.erase("Ana")
    (event, *_) = door.events()[::-1]
    assert (event.name, event.crop, door.crop(event.id)) == (None, False, None)
    crops = {path.name for path in (door.state / "crops").iterdir()}
    assert len(crops) == sum(event.crop for event in door.events())
    assert named_anywhere(door.state, "Ana") == named_anywhere(model_of(door), "Ana") == []
    eventually(lambda: len(door.events()) > 1)
    assert {event.name for event in door.events()} <= {None, "Bo"}


def test_a_frame_is_encoded_once_however_many_watch_and_never_for_nobody(
    door: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    whole = live.jpeg
    monkeypatch.setattr(live, "jpeg", lambda *args: encoded.append(1) or whole(*args))
    eventually(lambda: door.cameras()[0].latency_ms)
    assert encoded == []
    got: list[dict[int, bytes]] = [{} for _ in range(6)]

    def look(pictures: dict[int, bytes]) -> None:
        number = -1
        for _ in range(5):
            picture = door.picture("0", number, 20)
            assert picture is not None
            number, pictures[picture.number] = picture.number, picture.jpeg

    threads = [threading.Thread(target=look, args=(pictures,)) for pictures in got]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    began = time.monotonic()
    waiting = threading.Thread(target=door.picture, args=("0", 10**9, 60))
    waiting.start()
    door.stop()
    waiting.join()
    assert time.monotonic() - began < 30
    different = {id(jpeg) for pictures in got for jpeg in pictures.values()}
    numbers = {number for pictures in got for number in pictures}
    assert len(different) == len(numbers) == len(encoded)
    assert Image.open(io.BytesIO(next(iter(got[0].values())))).size == (320, 240)


@pytest.mark.slow
def test_a_camera_goes_and_comes_back(couple: Path, film: Path, tmp_path: Path) -> None:
    shutil.copytree(couple, tmp_path / "home")
    there = film.with_name("later.avi")
    house = House(tmp_path / "home" / "kitchen", [str(there), str(film)], None, Settings())
    with house.subscribe() as told, house:
        eventually(lambda: [camera.state for camera in house.cameras()] == ["lost", "watching"])
        assert house.cameras()[0].problem == f"{there}: no such file"
        assert house.picture("0", timeout=0.01) is None
        shutil.copyfile(film, there)
        eventually(lambda: house.cameras()[0].state == "watching")
        assert house.picture("0", timeout=20) is not None
        there.unlink()
        eventually(lambda: house.cameras()[0].state == "lost")
        eventually(lambda: house.picture("0", timeout=0.01) is None)
    notices = [notice.data for notice in iter(lambda: told.next(0), None) if notice.kind == "camera"]
    states = [data["state"] for data in notices if data["id"] == "0"]
    assert [state for state in states if state != "starting"] == ["lost", "watching", "lost"]
    with pytest.raises(FacetpuError, match="'door' is no camera"):
        House(tmp_path / "home" / "kitchen", ["door"], None, Settings())


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("rtsp://me:secret@door.lan/live", "rtsp://***@door.lan/live"),
        ("http://door/video?user=me&password=a%26b&x=1", "http://door/video?user=me&password=***&x=1"),
        ("rtspsrc location=rtsp://a:b@c user-pw=d ! tee", "rtspsrc location=rtsp://***@c user-pw=*** ! tee"),
        ("rtsp://me:p@ss@door/live", "rtsp://***@door/live"),
        ("rtsp://me:p/a?s!s@door/live", "rtsp://***@door/live"),
        ("/dev/video0", "/dev/video0"),
    ],
)  # fmt: skip
def test_no_password_of_a_camera_is_shown(source: str, shown: str) -> None:
    assert masked(source) == shown


def test_a_camera_that_fails_in_an_unforeseen_way_is_opened_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The camera is a stand-in, which fails as OpenCV may in the middle of a broken stream."""
    opened: list[str] = []

    def camera(source: str) -> Iterator[Frame]:
        opened.append(source)
        if len(opened) == 1:
            raise ValueError(f"{source}: cannot reshape")
        while True:
            yield Frame(0, 0.0, WALL)

    monkeypatch.setattr(cameras, "Camera", camera)
    eye = Eye("0", "rtsp://me:secret@door", lambda: None)
    eye.start()
    eventually(lambda: eye.state()[0] == "lost")
    assert eye.state()[1] == "camera rtsp://***@door: ValueError; see the log"
    eventually(lambda: eye.state()[0] == "watching")
    eye.stop()
    assert len(opened) == 2
    assert "rtsp://***@door: cannot reshape" in caplog.text
    assert "secret" not in caplog.text


# --- The diary ---

ANA_SEEN = Seen("Ana", 0.7, 12.0, False, 5)


def test_events_are_kept_for_a_time_and_no_crop_longer(tmp_path: Path) -> None:
    diary = Diary(tmp_path)
    old = diary.begin("0", 1, ANA_SEEN, 10.0, b"old", kept_from=100.0)
    new = diary.begin("0", 2, ANA_SEEN, 11.0, b"new", kept_from=200.0)
    assert [event.id for event in diary.events(None, 10, "Ana")] == [new, old]
    assert diary.forget_before(150.0) == 1
    assert [event.id for event in diary.events(None, 10, None)] == [new]
    assert [path.read_bytes() for path in (tmp_path / "crops").iterdir()] == [b"new"]
    diary.go_on(old, ANA_SEEN)  # forgotten while they are still there
    assert diary.last_seen() == {"Ana": 12.0}
    there = diary.begin("0", 3, ANA_SEEN._replace(present=True), 12.0, None, kept_from=300.0)
    assert [event.id for event in diary.present()] == [there]
    assert diary.forget_before(400.0) == 1
    assert [event.id for event in diary.events(None, 10, None)] == [there]


def test_a_diary_that_was_left_in_the_middle_is_mended(tmp_path: Path) -> None:
    diary = Diary(tmp_path)
    event = diary.begin("0", 1, ANA_SEEN._replace(present=True), 10.0, b"crop", kept_from=1.0)
    (tmp_path / "crops" / "orphan.jpg").write_bytes(b"x")
    (tmp_path / "portraits" / ".half.jpg.1.partial").write_bytes(b"x")
    diary.intend("erase", "Ana")
    diary.close()
    again = Diary(tmp_path)
    assert again.event(event).present is False
    assert again.crop(event) == b"crop"
    assert len(list((tmp_path / "crops").iterdir())) == 1
    assert list((tmp_path / "portraits").iterdir()) == []
    assert [intent[1:] for intent in again.intents()] == [("erase", "Ana", None)]


def test_what_was_begun_before_a_kill_is_done_to_its_end(home: House) -> None:
    with pytest.raises(Conflict):
        home.rename("Ana", "Bo")
    home.stop()
    for action, name, other in (("rename", "Ana", "Anna"), ("erase", "Bo", None), ("rename", "Cy", "Di")):
        diary = Diary(home.state)
        diary.begin("0", 1, ANA_SEEN._replace(name=name), 1.0, b"crop", kept_from=time.time())
        diary.intend(action, name, other)
        diary.close()
    with House(model_of(home), [], None, Settings()) as again:
        assert names(again) == [("Anna", 3)]
        assert [(event.name, event.crop) for event in again.events()] == [
            (None, False),
            (None, False),
            ("Anna", True),
        ]
        assert named_anywhere(again.state, "Bo") == []


@pytest.mark.parametrize(
    ("changes", "ana", "bo"),
    [
        (lambda model: rename_person(model, "Ana", "Anna"), "Anna", "Bo"),
        (lambda model: merge_people(model, "Ana", "Bo"), "Bo", "Bo"),
        (swap, "Bo", "Ana"),
        (lambda model: remove_person(model, "Ana"), None, "Bo"),
        (take_the_name, None, "Ana"),
    ],
)
@pytest.mark.parametrize("running", [True, False])
def test_what_was_seen_stays_with_who_was_seen(
    changes: Callable[[Path], object], ana: str | None, bo: str, running: bool, home: House
) -> None:
    """Whatever another program has them called, beside a running house or while there is none."""
    written(home, "Ana", b"of Ana")
    written(home, "Bo", b"of Bo")

    def followed(house: House) -> bool:
        seen = [(event.who, house.crop(event.id)) for event in reversed(house.events())]
        pictures = {person.name for person in house.people() if house.portrait(person.name)}
        theirs = [(ana, b"of Ana" if ana else None), (bo, b"of Bo")]
        return seen == theirs and pictures == {ana, bo} - {None}

    if running:
        with House(model_of(home), [], None, Settings()) as house:
            changes(model_of(home))
            eventually(lambda: followed(house))
    else:
        changes(model_of(home))
    with House(model_of(home), [], None, Settings()) as again:
        assert followed(again)


@pytest.mark.slow
def test_a_damaged_diary_is_named(home: House) -> None:
    home.stop()
    for path in home.state.glob("events.db*"):
        path.write_bytes(b"no database at all" * 99)
    with pytest.raises(FacetpuError, match=r"events\.db: cannot be used .* move it away"):
        House(model_of(home), [], None, Settings())
    for path in home.state.glob("events.db*"):
        path.unlink()
    sqlite3.connect(str(home.state / "events.db")).execute("PRAGMA user_version = 2")
    with pytest.raises(FacetpuError, match=r"events\.db: was written by a later facetpu"):
        House(model_of(home), [], None, Settings())


def test_a_diary_that_cannot_be_written_is_not_called_damaged(tmp_path: Path) -> None:
    Diary(tmp_path).close()
    (tmp_path / "events.db-wal").mkdir()  # where SQLite writes first
    with pytest.raises(FacetpuError, match=r"events\.db: cannot be opened .* free some space, or see that"):
        Diary(tmp_path)


class Clocks:
    """The two clocks of a machine, set by hand."""

    def __init__(self, wall: float) -> None:
        self.wall, self.monotonic = wall, 5.0

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds

    def house(self, left_at: float = 0.0) -> HouseClock:
        return HouseClock(left_at, lambda: self.wall, lambda: self.monotonic)


def test_a_clock_that_jumps_neither_forgets_nor_keeps(tmp_path: Path) -> None:
    clocks = Clocks(wall=1000.0)
    house = clocks.house()
    clocks.passes(10)
    clocks.wall += 1e9  # somebody set it to another century
    assert house.now() == 1010
    house.look()
    clocks.passes(BELIEVED_AFTER / 2)
    clocks.wall -= 1e9
    house.look()
    clocks.passes(BELIEVED_AFTER)
    house.look()
    assert house.now() == 1010 + 1.5 * BELIEVED_AFTER
    clocks.wall = 0.0  # and to 1970
    clocks.passes(10)
    assert house.now() == 1020 + 1.5 * BELIEVED_AFTER


def test_a_board_without_a_clock_goes_on_from_where_it_was(tmp_path: Path) -> None:
    clocks = Clocks(wall=60.0)  # in 1970
    house = clocks.house(left_at=1e9)
    assert house.now() == 1e9
    clocks.passes(30)
    clocks.wall = 1e9 + 5000  # it has found the network
    for _ in range(70):
        house.look()
        clocks.passes(60)
    assert house.now() == pytest.approx(1e9 + 5000 + 4200)


# --- One camera ---


@pytest.fixture(scope="module")
def identifier(couple: Path) -> Identifier:
    return Identifier(couple / "kitchen")


class Door:
    """A camera that shows what the test wants, and what is written down and told of it."""

    def __init__(self, identifier: Identifier, folder: Path) -> None:
        self.diary, notices = Diary(folder), Notices()
        self.told = notices.subscribe()
        self.watch = Watch(Eye("0", "0", lambda: None), identifier, self.diary, notices, time.time)
        self.frames, self.seconds = 0, 0.0

    def shows(self, image: np.ndarray, after: float) -> None:
        self.seconds += after
        self.watch.look(Taken(self.frames, self.seconds, image))
        self.frames += 1

    def seen(self) -> list[tuple[str, str, int | None]]:
        """What was told since this was asked: what, of whom, the event's id."""
        notices = [notice.data for notice in iter(lambda: self.told.next(0), None) if notice.kind == "seen"]
        return [(data["what"], data["name"], data["id"]) for data in notices]


@pytest.fixture
def before(identifier: Identifier, tmp_path: Path) -> Door:
    """A camera with Ana before it, whose frames are rare."""
    door = Door(identifier, tmp_path)
    for _ in range(CONFIRMED):
        door.shows(ANA_THERE, after=1.2)
    assert door.seen() == [("appeared", "Ana", 1)]
    return door


def test_who_leaves_while_the_disk_is_full_is_not_there_for_ever(
    before: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    for method in ("go_on", "end"):
        monkeypatch.setattr(before.diary, method, full_disk)
    before.shows(WALL, after=9)
    before.shows(WALL, after=1)
    assert before.seen() == [("left", "Ana", 1)]
    assert (before.diary.event(1).present, before.watch.problem) == (True, "events.db: cannot be written")
    monkeypatch.undo()
    before.watch.rest()
    assert (before.diary.event(1).present, before.watch.problem) == (False, None)
    assert (before.diary.event(1).sightings, before.diary.event(1).name) == (CONFIRMED, "Ana")


def test_a_visit_whose_event_was_deleted_is_told_to_its_end(before: Door) -> None:
    before.diary.forget(1)
    before.shows(ANA_THERE, after=1.2)
    assert before.seen() == []
    before.shows(WALL, after=9)
    before.shows(WALL, after=1)
    assert before.seen() == [("left", "Ana", None)]
    assert before.diary.events(None, 9, None) == []


# --- Enrolling before a camera ---


def test_poses_are_told_by_the_landmarks() -> None:
    for seed in range(2):
        level = nose_height(portrait(seed).landmarks)
        for pose, turned in POSES.items():
            landmarks = portrait(seed, *turned).landmarks
            # A nod is no fault of the first pose: it is not known yet where that person's nose is.
            fits = [other for other in POSES if pose_fault(other, landmarks, level) is None]
            assert fits == (["front"] if pose in ("up", "down") else []) + [pose]
    left, right = (portrait(0, *POSES[pose]).landmarks for pose in ("left", "right"))
    assert pose_fault("left", right, None) == "turn your head further to your left"
    assert pose_fault("front", left, None) == "turn your head back to the middle"


def test_five_poses_are_taken_one_after_the_other(
    identifier: Identifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrolling, "APART", 0.0)
    seed = DI
    enrolments = Enrolments(identifier.reader, 0.1)
    begun = enrolments.begin("Di", "0")
    assert (begun.pose, begun.taken, begun.can_finish) == ("front", [], False)
    with pytest.raises(Conflict, match="camera 0 enrols somebody already"):
        enrolments.begin("Ed", "0")
    assert enrolments.at("0") == begun.id
    assert enrolments.at("1") is None

    def shown(image: np.ndarray) -> str | None:
        enrolments.look(begun.id, image, identifier.faces(image))
        return enrolments.state(begun.id).refusal

    assert shown(WALL) == "nobody is in the picture; come before the camera"
    assert shown(portrait(ANA).image) == "this looks like Ana; is it Di?"
    assert shown((portrait(seed).image * 0.3).astype(np.uint8)) == (
        "the picture has too little contrast; wipe the lens or turn to the light"
    )
    assert shown(portrait(seed, *POSES["left"]).image) == "turn your head back to the middle"
    with pytest.raises(Conflict, match="0 poses are taken; 3 at least"):
        enrolments.finish(begun.id, lambda name, shots: None)
    for pose in POSES:
        assert shown(portrait(seed, *POSES[pose]).image) is None
    done = enrolments.state(begun.id)
    assert (done.pose, done.taken, done.can_finish) == (None, list(POSES), True)
    given: list[str] = []
    enrolments.finish(begun.id, lambda name, shots: given.extend(c.photo for c in candidates_of(name, shots)))
    assert given == list(POSES)
    with pytest.raises(Unknown):
        enrolments.state(begun.id)


def test_enrolments_are_few_and_do_not_last(identifier: Identifier, monkeypatch: pytest.MonkeyPatch) -> None:
    enrolments = Enrolments(identifier.reader, None)
    ids = [enrolments.begin(f"N{number}", str(number)).id for number in range(4)]
    with pytest.raises(Busy, match="4 people are being enrolled"):
        enrolments.begin("N5", "5")
    enrolments.cancel(ids[0])
    with pytest.raises(Unknown):
        enrolments.state(ids[0])
    enrolments.cancel(enrolments.begin("N5", "0").id)  # its camera is free again
    enrolments.forget("N1")
    enrolments.forget("N2", "M2")
    assert enrolments.state(ids[2]).name == "M2"
    with pytest.raises(Unknown):
        enrolments.state(ids[1])
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    with pytest.raises(Unknown):
        enrolments.state(ids[2])


@pytest.mark.slow
def test_a_person_is_enrolled_by_turning_the_head(nobody: Path, tmp_path: Path) -> None:
    """The film is slow enough for a busy machine; each pose is there for a second."""
    from rendered_video import write_video

    seed = DI
    scenes = [[(portrait(seed, *POSES[pose], take).image, 60, 40)] for pose in POSES for take in range(10)]
    write_video(tmp_path / "door.avi", scenes)
    shutil.copytree(nobody, tmp_path / "kitchen")
    with House(tmp_path / "kitchen", [str(tmp_path / "door.avi")], None, Settings()) as house:
        id = house.begin_enrolment("Di", "0").id
        eventually(lambda: len(house.enrolment(id).taken) >= 3, seconds=90)
        assert house.take(id).pose in (None, "up", "down")
        told = house.finish(id)
        assert told.name == "Di"
        assert told.added >= 3
        assert [person.portrait for person in house.people()] == [True]
        eventually(lambda: [event.name for event in house.events(name="Di")])


# --- Bounds ---


def test_a_slow_listener_is_dropped_and_told_so() -> None:
    notices = Notices()
    slow, other = notices.subscribe(), notices.subscribe()
    for number in range(WAITING + 1):
        notices.tell(Notice("people", {"what": number}))
        assert other.next(1) == Notice("people", {"what": number})
    last = slow.next(1)
    assert last is not None
    assert (last.kind, slow.closed) == ("dropped", True)
    assert slow.next(1) is None
    assert not other.closed
    with other:
        more = [notices.subscribe() for _ in range(LISTENERS - 1)]
        with pytest.raises(Busy):
            notices.subscribe()
    notices.subscribe()
    notices.end()
    assert all(listener.closed for listener in more)


def test_too_much_to_look_at_is_refused() -> None:
    stuck = threading.Event()
    worker = Worker(lambda: None)
    worker.start()
    asking = [
        threading.Thread(target=worker.ask, args=(lambda: stuck.wait(20),), daemon=True) for _ in range(17)
    ]
    for thread in asking:
        thread.start()

    eventually(worker._jobs.full)
    with pytest.raises(Busy, match="16 things are waiting"):
        worker.ask(lambda: None)
    stuck.set()
    for thread in asking:
        thread.join()
    assert worker.ask(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        worker.ask(lambda: 1 / 0)
    worker.stop()
    with pytest.raises(Busy, match="closed"):
        worker.ask(lambda: None)


# --- Killed, and on a full disk ---

KILLS = 6

BUSY_HOUSE = """
import itertools, sys
from pathlib import Path
from facetpu.serve.answers import Settings
from facetpu.serve.house import House

home, film = Path(sys.argv[1]), sys.argv[2]
photos = [path.read_bytes() for path in sorted(home.with_name("photos").iterdir())]
with House(home / "kitchen", [film], None, Settings()) as house:
    for number in itertools.count():
        event = next((event for event in house.events() if event.crop), None)
        name = f"Nina{number:04}"  # neither part of another nor among weights by chance
        while len(house.people()) > 1:
            house.erase(house.people()[-1].name)
        print("enrol", name, flush=True)
        house.enrol_photos(name, photos)
        print("rename", name, flush=True)
        house.rename(name, f"Mina{number:04}")
        if event is not None:
            house.correct(event.id, f"Olga{number:04}")
            house.correct(event.id, f"Mina{number:04}")
            house.correct(event.id, None)
        print("erase", f"Mina{number:04}", flush=True)
        house.erase(f"Mina{number:04}")
        print("erased", f"Mina{number:04}", flush=True)
"""


def whole(house: House) -> None:
    """Assert that model, diary and pictures agree, and that nothing of a run that was killed is left."""
    known = read_known(ModelFolder.find(model_of(house)))
    assert known.people == [person.name for person in house.people()]
    assert Identifier(model_of(house)).gallery.people == known.people
    left = {path.name for path in model_of(house).parent.iterdir()} - {".kitchen.lock"}
    assert left == {"kitchen", "kitchen.state"}
    base = sqlite3.connect(str(house.state / "events.db"))
    assert base.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    crops = {row[0] for row in base.execute("SELECT crop FROM event WHERE crop IS NOT NULL")}
    portraits = {row[0] for row in base.execute("SELECT portrait FROM person WHERE portrait IS NOT NULL")}
    rows = base.execute(
        "SELECT name FROM event UNION SELECT corrected_name FROM event UNION SELECT name FROM person"
    )
    assert {name for (name,) in rows} <= {None, *known.people}
    assert base.execute("SELECT * FROM intent").fetchall() == []
    base.close()
    assert {path.name for path in (house.state / "crops").iterdir()} == crops
    assert {path.name for path in (house.state / "portraits").iterdir()} == portraits


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_a_house_that_is_whole(couple: Path, film: Path, tmp_path: Path) -> None:
    """SIGKILL at random moments of a house that enrols, renames, corrects and erases, and sees people."""
    rng = np.random.default_rng(0)
    home = Path(shutil.copytree(couple, tmp_path / "home"))
    (tmp_path / "photos").mkdir()
    for take in range(2):
        (tmp_path / "photos" / f"{take}.jpg").write_bytes(photo(CY, take))
    remove_person(home / "kitchen", "Ana")
    for _ in range(KILLS):
        arguments = [sys.executable, "-c", BUSY_HOUSE, str(home), str(film)]
        busy = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert busy.stdout is not None
        first = busy.stdout.readline()
        assert first == "enrol Nina0000\n", busy.communicate()[1][-2000:]
        time.sleep(rng.uniform(0.0, 1.5))
        busy.kill()
        said = [line.split() for line in (first + busy.communicate()[0]).splitlines()]
        with House(home / "kitchen", [], None, Settings()) as house:
            whole(house)
            people = [person.name for person in house.people()]
            assert people[0] == "Bo"
            did, name = said[-1]
            if did == "rename":
                assert {name, "M" + name[1:]} & set(people)
            gone = [name for did, name in said if did == "erased"]
            assert not set(gone) & set(people)
            assert [name for name in gone if named_anywhere(home, name)] == []


FULL_DISK = """
import resource, signal, sys, time
from pathlib import Path
from facetpu.serve.answers import Settings
from facetpu.serve.house import House
from facetpu.serve.refusals import Full

home, film = Path(sys.argv[1]), sys.argv[2]
photos = [path.read_bytes() for path in sorted(home.with_name("photos").iterdir())]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with House(home / "kitchen", [film], None, Settings()) as house:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
    for ask in (
        lambda: house.enrol_photos("Cy", photos),
        lambda: house.erase("Ana"),
        lambda: house.set_threshold(0.1),
    ):
        try:
            ask()
        except Full as error:
            print("Full", error)
    with house.subscribe() as told:
        seen = told.next(20)
        while seen is not None and seen.data.get("what") != "appeared":
            seen = told.next(20)
    print(seen.data["what"], seen.data["id"], seen.data["name"], house.problem())
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    end = time.monotonic() + 20
    while house.problem() is not None and time.monotonic() < end:
        time.sleep(0.1)
    print(house.problem(), len(house.events()) > 0, house.enrol_photos("Cy", photos).added)
"""


@pytest.mark.slow
def test_a_full_disk_is_told_and_nothing_is_half_done(couple: Path, film: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands in for a full disk: writes fail likewise, part of them done."""
    home = Path(shutil.copytree(couple, tmp_path / "home"))
    (tmp_path / "photos").mkdir()
    for take in range(2):
        (tmp_path / "photos" / f"{take}.jpg").write_bytes(photo(CY, take))
    arguments = [sys.executable, "-c", FULL_DISK, str(home), str(film)]
    done = subprocess.run(arguments, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr[-2000:]
    assert [line.split()[0] for line in lines[:3]] == ["Full", "Full", "Full"]
    assert lines[3].startswith("appeared None Ana ")
    assert lines[4] == "None True 2"
    with House(home / "kitchen", [], None, Settings()) as house:
        whole(house)
        assert names(house) == [("Ana", 3), ("Bo", 3), ("Cy", 2)]


@pytest.mark.slow
def test_what_the_diary_has_no_space_for_is_done_before_anything_else(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(home, "Bo", b"crop")
    with House(model_of(home), [], None, Settings()) as house:
        monkeypatch.setattr(house._diary, "erase", full_disk)
        with pytest.raises(Full):
            house.erase("Bo")
        assert names(house) == [("Ana", 3)]
        with pytest.raises(Full):
            house.enrol_photos("Bo", [photo(BO)])
        monkeypatch.undo()
        assert house.enrol_photos("Bo", [photo(BO)]).added == 1
        assert [event.name for event in house.events()] == [None]
        monkeypatch.setattr(house._diary, "rename", full_disk)
        with pytest.raises(Full):
            house.rename("Bo", "Bob")
        monkeypatch.undo()
        eventually(lambda: "Bo" not in house._diary.names())  # by itself
        whole(house)


def test_who_looks_at_the_cameras_follows_a_change_when_they_have_time(home: House) -> None:
    stuck = threading.Event()
    asking = [threading.Thread(target=home._worker.ask, args=(lambda: stuck.wait(20),)) for _ in range(17)]
    for thread in asking:
        thread.start()
    eventually(home._worker._jobs.full)
    home.erase("Ana")
    home.set_threshold(0.1)
    assert names(home) == [("Bo", 3)]
    stuck.set()
    eventually(lambda: home._identifier.gallery == home._roster.gallery)
    for thread in asking:
        thread.join()


# --- The board's Pythons ---

board_facetpu = test_board_pythons.facetpu

SMALL_HOUSE = """
import sys
from pathlib import Path
from facetpu.serve.answers import Settings
from facetpu.serve.house import House

home, *cameras = sys.argv[1:]
photos = [path.read_bytes() for path in sorted(Path(home, "photos").iterdir())]
with House(Path(home, "kitchen"), cameras, None, Settings()) as house, house.subscribe() as told:
    print(house.enrol_photos("Ana", photos).added)
    house.rename("Ana", "Zoë")
    seen = told.next(20) if cameras else None
    while seen is not None and seen.data.get("what") != "left":
        seen = told.next(20)
    if cameras:
        print(house.correct(house.events()[-1].id, "Bo").who, len(house.picture("0", -1, 20).jpeg) > 999)
    house.erase("Zoë")
    print([person.name for person in house.people()], house.problem())
"""


@pytest.mark.slow
def test_a_house_stands_on_the_boards_pythons(
    board_facetpu: Path, nobody: Path, film: Path, tmp_path: Path
) -> None:
    """Python 3.7 has no OpenCV here: it serves people and uploads without a camera."""
    shutil.copytree(nobody, tmp_path / "kitchen")
    (tmp_path / "photos").mkdir()
    for take in range(3):
        (tmp_path / "photos" / f"{take}.jpg").write_bytes(photo(ANA, take))
    old = board_facetpu.parent.parent.name == "python3.7"
    said = test_board_pythons.check(
        [board_facetpu.with_name("python"), "-c", SMALL_HOUSE, tmp_path, *([] if old else [film])]
    )
    assert said.splitlines() == (["3", "[] None"] if old else ["3", "Bo True", "['Bo'] None"])
