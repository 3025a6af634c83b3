"""Who is in a video or in front of a camera. The videos are files of rendered people; no camera is here."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from rendered_video import RATE, SIZE, write_video
from small_export import write_export

from facetpu.board import camera as board_camera
from facetpu.board.camera import Camera
from facetpu.board.enrol import imprint
from facetpu.board.tracking import CONFIRMED, Event
from facetpu.board.video import VideoFile, new_video
from facetpu.board.watch import Done, watch
from facetpu.cli import main
from facetpu.errors import FacetpuError
from facetpu.image import read_image
from facetpu.portraits import write_people

STEP = 2  # pixels that somebody walks between two frames


@pytest.fixture(scope="module")
def portraits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ana and Bo, a portrait each."""
    root = tmp_path_factory.mktemp("photos") / "people"
    write_people(root, 2, 1, size=160)
    for folder, name in zip(sorted(root.iterdir()), ("Ana", "Bo"), strict=True):
        folder.rename(root / name)
    return root


@pytest.fixture(scope="module")
def known(portraits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows both."""
    folder = tmp_path_factory.mktemp("known")
    imprint(write_export(folder / "model"), portraits, folder / "known", accept_all=True)
    return folder / "known"


@pytest.fixture(scope="module")
def film(portraits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ana walks for a second, is alone with the wall for two, and then Bo walks for a second."""
    ana, bo = (read_image(portraits / name / "000.jpg") for name in ("Ana", "Bo"))
    scenes = [[(ana, 20 + STEP * step, 40)] for step in range(RATE)]
    scenes += [[] for _ in range(2 * RATE)]
    scenes += [[(bo, 120 - STEP * step, 40)] for step in range(RATE)]
    return write_video(tmp_path_factory.mktemp("film") / "film.avi", scenes)


def told(events: list[Event]) -> list[tuple[str, int, str | None, int]]:
    return [(event.event, event.track, event.name, event.frame) for event in events]


def test_people_appear_and_leave_under_their_names(known: Path, film: Path) -> None:
    *events, done = watch(known, [film], threshold=0.6)
    assert told(events) == [
        ("appeared", 1, "Ana", CONFIRMED - 1),
        ("left", 1, "Ana", RATE - 1),
        ("appeared", 2, "Bo", 3 * RATE + CONFIRMED - 1),
        ("left", 2, "Bo", 4 * RATE - 1),
    ]
    assert [event.seconds for event in events] == [0.2, 0.9, 3.2, 3.9]
    assert {event.source for event in events} == {str(film)}
    assert all(event.cosine > 0.6 and event.margin > 0 for event in events)
    assert (done.frames, done.dropped, done.people, done.strangers) == (4 * RATE, 0, ["Ana", "Bo"], 0)
    assert done.frames_per_second > 0
    assert list(done.steps_ms) == ["read", "detect", "align", "base", "head"]
    assert done.latency_ms >= done.steps_ms["detect"] > 0
    assert done.profile is None


def test_strangers_are_followed_without_a_name(known: Path, film: Path) -> None:
    *events, done = watch(known, [film], threshold=1.0)
    assert [event.name for event in events] == [None] * 4
    assert (done.people, done.strangers) == ([], 2)
    assert "nobody known; 2 tracks of strangers" in str(done)


def test_json_is_one_document_an_event(known: Path, film: Path) -> None:
    arguments = ["identify", str(known), str(film), "--json", "--threshold", "0.6", "--profile", "-q"]
    done = CliRunner().invoke(main, arguments)
    assert (done.exit_code, done.stderr) == (0, "")
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    assert [document["event"] for document in documents] == ["appeared", "left", "appeared", "left", "done"]
    assert set(documents[0]) == set(Event._fields)
    assert set(documents[-1]) == set(Done._fields)
    steps = {step["step"]: step for step in documents[-1]["profile"]["steps"]}
    assert list(steps) == ["read", "detect", "align", "base", "head", "latency"]
    assert all(step["p95_ms"] >= step["median_ms"] >= 0 for step in steps.values())
    assert documents[-1]["profile"]["faces"] == 2 * RATE


def test_text_is_one_line_an_event(known: Path, film: Path) -> None:
    done = CliRunner().invoke(main, ["identify", str(known), str(film), "--threshold", "0.6", "-q"])
    lines = done.stdout.splitlines()
    assert lines[0].startswith("    0.20 s  Ana appeared, track 1, cosine ")
    assert lines[1] == "    0.90 s  Ana left, track 1, after 10 sightings"
    assert lines[-1].startswith(f"{film}: Ana, Bo; 40 frames at ")
    assert "0 dropped" in lines[-1]


def test_every_third_frame_keeps_the_videos_time(known: Path, film: Path) -> None:
    *events, done = watch(known, [film], threshold=0.6, every=3)
    assert done.frames == 14
    assert [(event.name, event.frame, event.seconds) for event in events if event.event == "appeared"] == [
        ("Ana", 6, 0.6),
        ("Bo", 36, 3.6),
    ]


@pytest.mark.parametrize("name", ["drawn.avi", "drawn.mp4"])
def test_a_video_is_drawn_frame_by_frame(known: Path, film: Path, tmp_path: Path, name: str) -> None:
    list(watch(known, [film], threshold=0.6, draw=tmp_path / name))
    frames, plain = list(VideoFile(tmp_path / name)), list(VideoFile(film))
    assert len(frames) == len(plain) == 4 * RATE
    assert VideoFile(tmp_path / name).rate == RATE
    changed = [np.abs(a.image.astype(int) - b.image).max() > 100 for a, b in zip(frames, plain, strict=True)]
    drawn = [number for number, differs in enumerate(changed) if differs]
    assert drawn == [*range(CONFIRMED - 1, RATE), *range(3 * RATE + CONFIRMED - 1, 4 * RATE)]
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with pytest.raises(FacetpuError, match="exists"):
        next(watch(known, [film], draw=tmp_path / name))
    with pytest.raises(FacetpuError, match=r"ends in \.mp4 or \.avi"):
        next(watch(known, [film], draw=tmp_path / "drawn.gif"))


def test_who_stops_watching_keeps_what_was_drawn(known: Path, film: Path, tmp_path: Path) -> None:
    events = watch(known, [film], threshold=0.6, draw=tmp_path / "drawn.avi")
    assert [next(events).event, next(events).event] == ["appeared", "left"]
    events.close()
    assert RATE <= len(list(VideoFile(tmp_path / "drawn.avi"))) < 4 * RATE


def test_a_drawn_video_keeps_the_time_of_frames_that_were_left_out(tmp_path: Path) -> None:
    with new_video(tmp_path / "slow.avi", 10, overwrite=False) as write:
        for seconds, grey in ((0.0, 0), (0.5, 120), (0.6, 240)):
            write(seconds, np.full((48, 64, 3), grey, np.uint8))
    greys = [round(frame.image.mean() / 120) * 120 for frame in VideoFile(tmp_path / "slow.avi")]
    assert greys == [0, 120, 120, 120, 120, 120, 240]


def test_what_is_no_video_is_named(known: Path, film: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.avi").write_bytes(b"")
    write_video(tmp_path / "none.avi", [])
    for name, message in (
        ("missing.mp4", "no such file"),
        ("text.mp4", "is no video that OpenCV reads"),
        ("empty.avi", "is no video that OpenCV reads"),
        ("none.avi", "is no video that OpenCV reads|no frame of it can be read"),
    ):
        with pytest.raises(FacetpuError, match=message) as refusal:
            list(watch(known, [tmp_path / name]))
        assert str(refusal.value).startswith(str(tmp_path / name))


def test_a_video_that_is_cut_off_is_looked_at_as_far_as_it_goes(
    known: Path, film: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = film.read_bytes()
    (tmp_path / "half.avi").write_bytes(whole[: len(whole) // 2])
    *events, done = watch(known, [tmp_path / "half.avi"], threshold=0.6)
    assert 5 < done.frames < 4 * RATE
    assert told(events)[0][:3] == ("appeared", 1, "Ana")
    assert "it is cut off" in caplog.text


class StandinStream:
    """Stands in for a camera: gives numbered pictures at a rate, then ends or fails."""

    def __init__(self, count: int, rate: float, ends: bool = True, problem: str = "") -> None:
        self.left, self.rate, self.ends, self.problem = count, rate, ends, problem
        self.closed = False

    def read(self) -> np.ndarray | None:
        time.sleep(1 / self.rate)
        self.left -= 1
        if self.left < 0:
            if self.problem:
                raise FacetpuError(self.problem)
            return None
        return np.full((48, 64, 3), 200, np.uint8)

    def close(self) -> None:
        self.closed = True


def standin_camera(monkeypatch: pytest.MonkeyPatch, stream: StandinStream) -> Camera:
    monkeypatch.setattr(board_camera, "_open", lambda camera: stream)
    return Camera("0")


def test_pictures_that_nobody_has_time_for_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = StandinStream(count=60, rate=200)
    camera = standin_camera(monkeypatch, stream)
    frames, late = [], []
    start = time.monotonic()
    for frame in camera:
        late.append(time.monotonic() - start - frame.seconds)
        frames.append(frame.number)
        time.sleep(0.05)
    assert len(frames) < 20
    assert frames == sorted(set(frames))
    assert camera.dropped == frames[-1] + 1 - len(frames) > 20
    assert np.median(late) < 0.3  # always the present, however many came before
    assert stream.closed


def test_a_camera_that_is_fast_enough_drops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    camera = standin_camera(monkeypatch, StandinStream(count=5, rate=8))
    assert [frame.number for frame in camera] == list(range(5))
    assert camera.dropped == 0


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (StandinStream(0, 100), "camera 0: gives no picture; see that no other program uses it"),
        (StandinStream(3, 100, ends=False), "camera 0: gives no more pictures; see that it is still plugged"),
        (StandinStream(3, 100, problem="camera 0: no such device"), "camera 0: no such device"),
    ],
)
def test_a_camera_that_breaks_off_says_so_after_what_was_seen(
    known: Path, monkeypatch: pytest.MonkeyPatch, stream: StandinStream, message: str
) -> None:
    monkeypatch.setattr(board_camera, "_open", lambda camera: stream)
    shown = []
    with pytest.raises(FacetpuError, match=message):
        shown.extend(watch(known, camera="0"))
    assert stream.closed


def test_ctrl_c_ends_a_camera_in_good_order(
    known: Path, portraits: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    portrait = read_image(portraits / "Ana" / "000.jpg")

    class Stopped:
        """Stands in for a camera in front of which Ctrl-C is pressed."""

        name, rate, dropped = "0", RATE, 0

        def __init__(self, camera: str) -> None: ...

        def __iter__(self):
            for number in range(5):
                yield SimpleNamespace(number=number, seconds=number / RATE, image=portrait)
            raise KeyboardInterrupt

    monkeypatch.setattr("facetpu.board.watch.Camera", Stopped)
    arguments = ["identify", str(known), "--camera", "0", "--threshold", "0.6", "--json"]
    done = CliRunner().invoke(main, [*arguments, "--draw", str(tmp_path / "seen.avi")])
    assert done.exit_code == 0
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    assert [document["event"] for document in documents] == ["appeared", "left", "done"]
    assert len(list(VideoFile(tmp_path / "seen.avi"))) == 5


@pytest.mark.parametrize(
    ("camera", "message"),
    [
        ("99", "camera 99: cannot be opened; see that it is plugged in and that you may use it"),
        ("/dev/video99", "camera /dev/video99: cannot be opened"),
        ("front door", "is no camera; give a number, /dev/videoN, a URL, or a GStreamer pipeline"),
    ],
)
def test_a_camera_that_is_not_there_is_one_line(known: Path, camera: str, message: str) -> None:
    done = CliRunner().invoke(main, ["identify", str(known), "--camera", camera])
    assert (done.exit_code, done.stdout) == (1, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def gstreamer() -> bool:
    """Whether a pipeline can run here, by OpenCV or by GStreamer's own bindings."""
    if board_camera._opencv_has_gstreamer():
        return True
    try:
        import gi

        gi.require_version("Gst", "1.0")
    except (ImportError, ValueError):
        return False
    return True


def test_a_pipeline_without_gstreamer_says_what_to_install() -> None:
    if gstreamer():
        pytest.skip("there is GStreamer here")
    with pytest.raises(FacetpuError, match=r"GStreamer is not there for Python .*apt-get install python3-gi"):
        Camera("v4l2src device=/dev/video0 ! videoconvert ! appsink")


def test_a_pipeline_gives_pictures_until_it_ends() -> None:
    if not gstreamer():
        pytest.skip("there is no GStreamer here")
    source = "videotestsrc num-buffers=9 pattern=red ! video/x-raw,width=101,height=64 ! appsink"
    camera = Camera(source)
    frames = list(camera)
    assert 1 <= len(frames) <= 9
    assert {frame.image.shape for frame in frames} == {(64, 101, 3)}
    assert np.abs(frames[0].image.astype(int) - (255, 0, 0)).max() < 10
    with pytest.raises(FacetpuError, match="nowhere"):
        Camera("nowhere ! videoconvert")


def test_a_window_needs_a_display(known: Path, film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    done = CliRunner().invoke(main, ["identify", str(known), str(film), "--show"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert "there is no display here; leave --show out, and use --draw" in done.stderr


def test_frames_have_the_videos_size(film: Path) -> None:
    frame = next(iter(VideoFile(film)))
    assert frame.image.shape == (SIZE[1], SIZE[0], 3)
