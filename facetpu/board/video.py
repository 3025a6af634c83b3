"""Video files, read frame by frame and written, by OpenCV."""

from __future__ import annotations

import contextlib
import logging
import math
import os
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple

import numpy as np

from ..artefacts import new_file
from ..errors import FacetpuError

log = logging.getLogger(__name__)

SUFFIXES = frozenset(
    (".3gp", ".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm", ".wmv")
)
# What every build of OpenCV can write, by the file's ending.
CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
_USUAL_RATE = 25.0  # of a video that does not say its own


class Frame(NamedTuple):
    """A picture of a video or camera.

    Attributes:
        number: from 0; frames that were left out are counted.
        seconds: since the video began or the camera was opened.
        image: uint8 [H, W, 3] RGB.
    """

    number: int
    seconds: float
    image: np.ndarray


def is_video(path: Path) -> bool:
    """Whether ``path`` is a video, by its ending."""
    return Path(path).suffix.lower() in SUFFIXES


def opencv() -> Any:
    """OpenCV, which then says nothing by itself of what it cannot open.

    Raises:
        ImportError: it is not installed.
    """
    import cv2

    # 5 moved the function.
    (getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel)(0)
    return cv2


def frame_rate(stream: Any) -> float:
    """Frames a second that an opened ``cv2.VideoCapture`` says it gives."""
    rate = float(stream.get(opencv().CAP_PROP_FPS))
    return rate if math.isfinite(rate) and 0 < rate <= 1000 else _USUAL_RATE


class VideoFile:
    """The frames of a video file, all of them or every nth; none is dropped.

    Attributes:
        name: its path.
        rate: of the frames it gives, a second.
        dropped: 0, as a live camera counts them.
    """

    dropped = 0

    def __init__(self, path: Path, every: int = 1) -> None:
        """Open the video at ``path``.

        Args:
            path: the file.
            every: give each ``every``-th frame.

        Raises:
            FacetpuError: there is no such file, or it is no video that OpenCV reads.
            ImportError: OpenCV is not installed.
        """
        self.name, self._every = str(path), every
        if not Path(path).is_file():
            raise FacetpuError(f"{path}: no such file")
        cv2 = opencv()
        self._stream = cv2.VideoCapture(str(path))
        self._frames_a_second = frame_rate(self._stream)
        self.rate = self._frames_a_second / every
        if not self._stream.isOpened():
            raise FacetpuError(f"{path}: is no video that OpenCV reads; convert it to .mp4")

    def __iter__(self) -> Iterator[Frame]:
        """Its frames, to its end.

        Raises:
            FacetpuError: no frame of it can be read.
        """
        number = 0
        try:
            while self._stream.grab():
                if number % self._every == 0:
                    taken, image = self._stream.retrieve()
                    if not taken:
                        break
                    yield Frame(number, number / self._frames_a_second, image[:, :, ::-1].copy())
                number += 1
            if not number:
                raise FacetpuError(f"{self.name}: no frame of it can be read; is it cut off?")
            promised = int(self._stream.get(opencv().CAP_PROP_FRAME_COUNT))
            if promised > number + 1:
                log.warning("%s: ends after %d of %d frames; it is cut off", self.name, number, promised)
        finally:
            self._stream.release()


@contextlib.contextmanager
def new_video(path: Path, rate: float, overwrite: bool) -> Iterator[Callable[[float, np.ndarray], None]]:
    """Yield what writes frames, each with its time in seconds, to a video that appears whole at ``path``.

    The video keeps the time: a frame stands until the next one's time, however many were left out. All
    frames have the size of the first.

    Args:
        path: ends in .mp4 or .avi.
        rate: frames a second.
        overwrite: replace the file that is there.

    Raises:
        FacetpuError: OpenCV writes no such video, ``path`` exists, or its folder is missing.
        ImportError: OpenCV is not installed.
    """
    path = Path(path)
    codec = check_codec(path)
    cv2 = opencv()
    with new_file(path, overwrite) as temporary:
        building = temporary.with_name(temporary.name + path.suffix.lower())  # OpenCV goes by the ending
        writer: Any = None
        written = 0

        def write(seconds: float, image: np.ndarray) -> None:
            nonlocal writer, written
            if writer is None:
                writer = cv2.VideoWriter(
                    str(building), cv2.VideoWriter_fourcc(*codec), rate, image.shape[1::-1]
                )
                if not writer.isOpened():
                    raise FacetpuError(
                        f"{path}: this OpenCV writes no {path.suffix} video; try the other ending"
                    )
            while written <= round(seconds * rate):
                writer.write(np.ascontiguousarray(image[:, :, ::-1]))
                written += 1

        try:
            with contextlib.suppress(GeneratorExit):  # who watches has had enough: what is drawn stands
                yield write
            if writer is not None:
                writer.release()
                os.replace(str(building), str(temporary))
            else:
                temporary.touch()
        finally:
            if writer is not None:
                writer.release()
            with contextlib.suppress(FileNotFoundError):
                building.unlink()


def check_codec(path: Path) -> str:
    """The code of the codec for a video file called ``path``.

    Raises:
        FacetpuError: its ending is none that every OpenCV writes.
    """
    codec = CODECS.get(Path(path).suffix.lower())
    if codec is None:
        raise FacetpuError(f"{path}: cannot be drawn to; give a file that ends in {' or '.join(CODECS)}")
    return codec
