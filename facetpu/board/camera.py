"""Live cameras: V4L2 and what else OpenCV opens, network streams, and GStreamer pipelines.

A thread takes every picture as it comes and keeps the newest only: who is slower than the camera sees
the present, not an ever longer past.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from typing import Any, Iterator

import numpy as np

from ..errors import FacetpuError
from .video import Frame, frame_rate, opencv

# One picture in the pipe at most, and what nobody has taken makes room for the next.
_SINK = "appsink name=facetpu max-buffers=1 drop=true sync=false"
_INSTALL = (
    "apt-get install python3-gi gir1.2-gstreamer-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good, "
    "and run facetpu by the system's Python; or use an OpenCV that has GStreamer, as Debian's python3-opencv"
)
_SLOW = 10.0  # seconds without a picture after which a pipeline is taken for dead


class Camera:
    """The newest picture of a camera, again and again.

    Attributes:
        name: the camera, as the user wrote it.
        rate: pictures a second, as the camera says.
        dropped: pictures so far that nobody had time for.
    """

    def __init__(self, camera: str) -> None:
        """Open ``camera``.

        Args:
            camera: a number, /dev/videoN, the URL of a stream, or a GStreamer pipeline up to its sink,
                such as ``v4l2src device=/dev/video1 ! video/x-raw,width=640,height=480``.

        Raises:
            FacetpuError: it is none of these, or cannot be opened.
            ImportError: OpenCV is not installed.
        """
        self.name, self.dropped = camera, 0
        self._stream = _open(camera)
        self.rate = self._stream.rate

    def __iter__(self) -> Iterator[Frame]:
        """Pictures as fast as they are asked for, until the stream ends.

        Raises:
            FacetpuError: it gives no picture at all, or breaks off.
        """
        newest = _Newest(self._stream)
        reader = threading.Thread(target=newest.fill, daemon=True)
        reader.start()
        last = -1
        try:
            while True:
                frame = newest.take()
                if frame is None:
                    break
                self.dropped += frame.number - last - 1
                last = frame.number
                yield frame
        finally:
            newest.stop()
            reader.join(_SLOW)
            self._stream.close()
        if newest.failed is not None:
            raise newest.failed
        if last < 0:
            raise FacetpuError(f"camera {self.name}: gives no picture; see that no other program uses it")
        if not self._stream.ends:
            raise FacetpuError(f"camera {self.name}: gives no more pictures; see that it is still plugged in")


class _Newest:
    """The newest picture of a stream, put there by one thread and taken by another."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._frame: Frame | None = None
        self._changed = threading.Condition()
        self._over = False
        self.failed: Exception | None = None

    def fill(self) -> None:
        """Take pictures until there are none, or until told to stop."""
        start, number = time.monotonic(), 0
        try:
            while not self._over:
                image = self._stream.read()
                if image is None:
                    break
                with self._changed:
                    self._frame = Frame(number, time.monotonic() - start, image)
                    self._changed.notify()
                number += 1
        except Exception as error:  # it is raised again by the thread that takes the pictures
            self.failed = error
        finally:
            with self._changed:
                self._over = True
                self._changed.notify()

    def take(self) -> Frame | None:
        """The newest picture that was not taken yet; waits for it; None when there will be no more."""
        with self._changed:
            while self._frame is None and not self._over:
                self._changed.wait(0.5)  # in slices, for Ctrl-C to come through
            frame, self._frame = self._frame, None
            return frame

    def stop(self) -> None:
        """Take no more pictures."""
        self._over = True


class _OpenCvStream:
    """A stream that OpenCV opens. ``ends``: whether its end is no failure."""

    def __init__(self, name: str, source: int | str, backend: int, ends: bool) -> None:
        self._stream = opencv().VideoCapture(source, backend)
        self.ends = ends
        if not self._stream.isOpened():
            raise FacetpuError(
                f"camera {name}: cannot be opened; see that it is plugged in and that you may use it"
            )
        self.rate = frame_rate(self._stream)

    def read(self) -> np.ndarray | None:
        """The next picture, uint8 [H, W, 3] RGB; None when there is none."""
        taken, image = self._stream.read()
        return image[:, :, ::-1].copy() if taken else None

    def close(self) -> None:
        """Give the camera back."""
        self._stream.release()


class _GstStream:
    """A GStreamer pipeline, run by GStreamer's own Python bindings."""

    ends = True
    rate = 25.0

    def __init__(self, name: str, pipeline: str, gst: Any) -> None:
        gst.init(None)
        self._gst, self._name = gst, name
        sink = f"{pipeline} ! videoconvert ! video/x-raw,format=RGB ! {_SINK}"
        try:
            self._pipeline = gst.parse_launch(sink)
        except Exception as error:  # GLib.Error, which is known only where gi is.
            raise FacetpuError(f"camera {name}: {error.args[0]}") from None
        self._sink = self._pipeline.get_by_name("facetpu")
        self._pipeline.set_state(gst.State.PLAYING)

    def read(self) -> np.ndarray | None:
        """The next picture, uint8 [H, W, 3] RGB; None at the end of the stream.

        Raises:
            FacetpuError: the pipeline fails, or gives nothing for ten seconds.
        """
        sample = self._sink.emit("try-pull-sample", int(_SLOW * self._gst.SECOND))
        message = self._pipeline.get_bus().pop_filtered(self._gst.MessageType.ERROR)
        if message is not None:
            raise FacetpuError(f"camera {self._name}: {message.parse_error()[0].message}")
        if sample is None:
            if self._sink.get_property("eos"):
                return None
            raise FacetpuError(
                f"camera {self._name}: gives no picture for {_SLOW:.0f} s; see that it is plugged in"
            )
        form = sample.get_caps().get_structure(0)
        width, height = form.get_value("width"), form.get_value("height")
        buffer = sample.get_buffer()
        content = buffer.extract_dup(0, buffer.get_size())
        rows = np.frombuffer(content, np.uint8).reshape(height, -1)  # a row is filled up to 4 bytes
        return rows[:, : 3 * width].reshape(height, width, 3).copy()

    def close(self) -> None:
        """Stop the pipeline."""
        self._pipeline.set_state(self._gst.State.NULL)


def check_camera(camera: str) -> None:
    """Refuse what is no camera, whether or not it is there now.

    Raises:
        FacetpuError: it is none.
    """
    if not (camera.isdigit() or camera.startswith("/dev/") or "!" in camera or "://" in camera):
        raise FacetpuError(
            f"{camera!r} is no camera; give a number, /dev/videoN, a URL, or a GStreamer pipeline (with "
            "' ! ')"
        )


def _open(camera: str) -> Any:
    check_camera(camera)
    if camera.isdigit():
        return _OpenCvStream(camera, int(camera), opencv().CAP_ANY, ends=False)
    if camera.startswith("/dev/"):
        return _OpenCvStream(camera, camera, opencv().CAP_V4L2, ends=False)
    if "!" in camera:
        return _open_pipeline(camera)
    return _OpenCvStream(camera, camera, opencv().CAP_ANY, ends=True)


def _open_pipeline(name: str) -> Any:
    """A GStreamer pipeline, by OpenCV where it has GStreamer built in, else by GStreamer's bindings."""
    pipeline = re.sub(r"!\s*appsink[^!]*$", "", name).rstrip()
    if _opencv_has_gstreamer():
        sink = f"{pipeline} ! videoconvert ! video/x-raw,format=BGR ! {_SINK}"
        return _OpenCvStream(name, sink, opencv().CAP_GSTREAMER, ends=True)
    try:
        import gi

        gi.require_version("Gst", "1.0")
        from gi.repository import Gst
    except (ImportError, ValueError):
        raise FacetpuError(
            f"GStreamer is not there for Python {sys.version_info[0]}.{sys.version_info[1]}: {_INSTALL}"
        ) from None
    return _GstStream(name, pipeline, Gst)


def _opencv_has_gstreamer() -> bool:
    try:
        # Its registry of backends lists GStreamer even where it is not built in.
        return re.search(r"GStreamer:\s+YES", opencv().getBuildInformation()) is not None
    except ImportError:
        return False
