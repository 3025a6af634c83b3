"""A camera that comes and goes: opened again and again, and its newest frame kept by a thread of its own."""

from __future__ import annotations

import logging
import re
import threading
import time
import traceback
from pathlib import Path
from typing import Callable, Iterator, NamedTuple

import numpy as np

from ..board.camera import Camera, check_camera
from ..board.video import VideoFile, is_video, opencv
from ..errors import FacetpuError

log = logging.getLogger(__name__)

STARTING, WATCHING, LOST = "starting", "watching", "lost"
SILENT = 10.0  # seconds without a frame after which a camera is taken for lost
_SOONEST, _LATEST = 1.0, 15.0  # seconds until a lost camera is opened again: doubled each time

# user:password@ of a URL; and what is called password=, token= and the like, in URLs and pipelines.
_CREDENTIALS = re.compile(r"(?<=://)\S+(?=@)")  # to the last @, for a password may hold any sign
_SECRETS = re.compile(r"(?i)([\w-]*(?:pass|pwd|pw|token|key|secret|auth)[\w-]*=)[^&\s!]+")


class Taken(NamedTuple):
    """A frame of a camera: its number from 0, when it came, by the monotonic clock, and its pixels."""

    number: int
    moment: float
    image: np.ndarray


def masked(source: str) -> str:
    """``source`` for people to read, without the password in it."""
    return _SECRETS.sub(r"\1***", _CREDENTIALS.sub("***", source))


def check_sources(sources: list[str]) -> None:
    """Refuse what is neither a camera nor a video file, and any where there is no OpenCV to open it.

    Raises:
        FacetpuError: one is neither.
        ImportError: OpenCV is not installed.
    """
    for source in sources:
        if not _is_file(source):
            check_camera(source)
    if sources:
        opencv()


def _is_file(source: str) -> bool:
    return is_video(Path(source)) and "://" not in source and "!" not in source


class Eye:
    """The newest frame of one camera.

    Attributes:
        id: of the camera.
        source: what was given, for people to read.
        dropped: frames so far that nobody had time for.
    """

    def __init__(self, id: str, source: str, wake: Callable[[], None]) -> None:
        """Watch nothing yet.

        Args:
            id: what to call it.
            source: the camera.
            wake: called when there is a new frame, or news of the camera.
        """
        self.id, self.source, self.dropped = id, masked(source), 0
        self._given, self._wake = source, wake
        self._frame: Taken | None = None
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._frames = 0
        self._heard = time.monotonic()
        self._state, self._problem = STARTING, ""
        self._thread = threading.Thread(target=self._watch, name=f"camera {id}", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._heard = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """Watch no more. A camera that hangs keeps its thread until it stirs."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(2.0)

    def take(self) -> Taken | None:
        """The newest frame, once; None when it was had already."""
        with self._lock:
            frame, self._frame = self._frame, None
            return frame

    def state(self) -> tuple[str, str | None]:
        """``STARTING``, ``WATCHING`` or ``LOST``; and why it is lost, in one line."""
        with self._lock:
            if self._state == LOST or time.monotonic() - self._heard <= SILENT:
                return self._state, self._problem or None
        return LOST, f"camera {self.source}: gives no picture for {SILENT:.0f} s; see that it is plugged in"

    def _watch(self) -> None:
        pause = _SOONEST
        while not self._over.is_set():
            before, trace = self._frames, ""
            try:
                for image in self._images():
                    if self._over.is_set():
                        return
                    self._put(image)
                problem = f"camera {self.source}: came to its end; it is opened again"
            except FacetpuError as error:
                problem = self._said(error)
            except Exception as error:  # a fault of OpenCV's or ours must not blind the camera for good
                problem = f"camera {self.source}: {type(error).__name__}; see the log"
                trace = f"\n{''.join(traceback.format_tb(error.__traceback__))}{self._said(error)}"
            if self._frames > before:
                pause = _SOONEST
                if _is_file(self._given):  # it begins again at once, as if it went on
                    continue
            self._lose(problem, trace)
            self._over.wait(pause)
            pause = min(2 * pause, _LATEST)

    def _said(self, error: Exception) -> str:
        """What an error says, without the password of the camera."""
        return masked(str(error).replace(self._given, self.source))

    def _images(self) -> Iterator[np.ndarray]:
        """Its frames as they come; of a video file as they would come from a camera."""
        if not _is_file(self._given):
            for frame in Camera(self._given):
                yield frame.image
            return
        began = time.monotonic()
        for frame in VideoFile(Path(self._given)):
            if self._over.wait(max(0.0, began + frame.seconds - time.monotonic())):
                return
            yield frame.image

    def _put(self, image: np.ndarray) -> None:
        with self._lock:
            self.dropped += self._frame is not None
            self._heard = time.monotonic()
            self._frame = Taken(self._frames, self._heard, image)
            self._frames += 1
            self._state, self._problem = WATCHING, ""
        self._wake()

    def _lose(self, problem: str, trace: str) -> None:
        with self._lock:
            news = problem != self._problem
            self._state, self._problem, self._frame = LOST, problem, None
        if news:
            log.warning("%s%s", problem, trace)
        self._wake()
