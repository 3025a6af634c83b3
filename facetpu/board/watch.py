"""Who is in a video, or in front of a camera: events as they happen, under stable names."""

from __future__ import annotations

import contextlib
import logging
import time
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple

import numpy as np

from ..artefacts import check_new
from ..errors import FacetpuError
from .camera import Camera
from .draw import Window, draw_faces
from .identify import Identifier
from .timing import STEPS, Profile
from .tracking import Event, Tracker
from .video import Frame, VideoFile, check_codec, new_video

log = logging.getLogger(__name__)

STATUS_SECONDS = 10.0  # between two lines about the speed


class Done(NamedTuple):
    """A video or camera came to its end.

    Attributes:
        event: ``done``.
        source: the video or camera.
        frames: how many were looked at.
        dropped: pictures of a camera that there was no time for.
        people: everyone who was named, in order of appearance.
        strangers: tracks that stayed without a name.
        frames_per_second: looked at, a second.
        latency_ms: from having a frame to knowing who is on it, the median.
        steps_ms: the medians of its steps, see ``timing.Profile``.
        profile: more of that, where it was asked for.
    """

    event: str
    source: str
    frames: int
    dropped: int
    people: list[str]
    strangers: int
    frames_per_second: float
    latency_ms: float
    steps_ms: dict[str, float]
    profile: Profile | None

    def __str__(self) -> str:
        seen = ", ".join(self.people) or "nobody known"
        if self.strangers:
            seen += f"; {self.strangers} track{'s' if self.strangers > 1 else ''} of strangers"
        steps = ", ".join(f"{step} {time:.1f}" for step, time in self.steps_ms.items())
        text = (
            f"{self.source}: {seen}; {self.frames} frames at {self.frames_per_second:.1f} a second, "
            f"{self.dropped} dropped; {self.latency_ms:.1f} ms a frame ({steps})"
        )
        return text if self.profile is None else f"{text}\n{self.profile}"


def watch(
    model: Path,
    videos: list[Path] | None = None,
    camera: str | None = None,
    threshold: float | None = None,
    every: int = 1,
    draw: Path | None = None,
    show: bool = False,
    profile: bool = False,
    overwrite: bool = False,
    **opening: Any,
) -> Iterator[Event | Done]:
    """Say who is in ``videos``, one after the other, or in front of ``camera``, until it ends or Ctrl-C.

    Args:
        model: an imprinted folder, or a model in it.
        videos: files; each of their frames is looked at.
        camera: a camera, see ``camera.Camera``; frames are dropped while the last is looked at.
        threshold: cosine from which a face is known; the gallery's unless given.
        every: look at each ``every``-th frame of a video.
        draw: a video, .mp4 or .avi, to write with boxes and names.
        show: show the frames in a window.
        profile: give the time of each step at the end.
        overwrite: replace ``draw``.
        opening: device, detector and min_face, as ``Identifier`` takes them.

    Raises:
        FacetpuError: the model cannot be used, a video or the camera cannot be opened or breaks off.
        ImportError: OpenCV is not installed.
    """
    if draw is not None:
        check_codec(draw)
        check_new(draw, overwrite)
        if videos and len(videos) > 1:
            raise FacetpuError(f"{draw}: one video can be drawn at a time, not {len(videos)}")
    sources: list[Any] = [VideoFile(Path(path), every) for path in videos or []]
    if camera is not None:
        sources.append(Camera(camera))
    identifier = Identifier(model, threshold, **opening)
    with contextlib.ExitStack() as stack:
        views: list[Callable[[float, np.ndarray], Any]] = []
        if draw is not None:
            views.append(stack.enter_context(new_video(draw, sources[0].rate, overwrite)))
        if show:
            window = Window()
            stack.callback(window.close)
            views.append(lambda _, image: window.show(image))
        for source in sources:
            yield from _Watch(identifier, source, views).events(profile)


class _Watch:
    """One source, from its first frame to its last."""

    def __init__(
        self, identifier: Identifier, source: Any, views: list[Callable[[float, np.ndarray], Any]]
    ) -> None:
        self._identifier, self._source, self._views = identifier, source, views
        self._tracker = Tracker(source.name)
        self._frames = 0
        self._named: dict[int, str | None] = {}

    def events(self, profile: bool) -> Iterator[Event | Done]:
        """What happens, and at last ``Done``."""
        stopwatch = self._identifier.stopwatch
        stopwatch.clear()
        self._start = status = time.monotonic()
        problem = None
        try:
            for frame in stopwatch.each(self._source, "read"):
                yield from self._told(self._look(frame))
                if not self._viewed(frame):
                    break
                if time.monotonic() - status > STATUS_SECONDS:
                    status = time.monotonic()
                    log.info("%s", self._done())
        except KeyboardInterrupt:
            log.info("stopped")
        except FacetpuError as error:  # what was seen until then is told first
            problem = error
        yield from self._told(self._tracker.end())
        if self._frames:
            yield self._done(stopwatch.profile() if profile else None)
        if problem is not None:
            raise problem

    def _look(self, frame: Frame) -> list[Event]:
        faces, embeddings = self._identifier.recognise(frame.image)
        self._frames += 1
        return self._tracker.update(frame.number, frame.seconds, faces, embeddings)

    def _told(self, events: list[Event]) -> Iterator[Event]:
        for event in events:
            self._named[event.track] = event.name
            yield event

    def _viewed(self, frame: Frame) -> bool:
        """Draw the frame and show it; false when the user closes the window."""
        if not self._views:
            return True
        now = self._tracker.now(frame.number)
        labels = [f"{face} ({number})" for number, face in now]
        drawn = draw_faces(frame.image, [face for _, face in now], labels)
        return all(view(frame.seconds, drawn) is not False for view in self._views)

    def _done(self, profile: Profile | None = None) -> Done:
        names = list(self._named.values())
        median = {step.step: step.median_ms for step in self._identifier.stopwatch.profile().steps}
        return Done(
            "done",
            self._source.name,
            self._frames,
            self._source.dropped,
            list(dict.fromkeys(name for name in names if name is not None)),
            names.count(None),
            round(self._frames / max(time.monotonic() - self._start, 1e-9), 2),
            median["latency"],
            {step: median[step] for step in STEPS},
            profile,
        )
