"""Replies without end: Motion JPEG of a camera, and server-sent events of what happens.

A stream holds one of a limited number of places. It waits for the house in a thread of its own, and for
its client without a thread; a client that is slow gets the newest picture next, not all in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, AsyncGenerator, Callable, Iterator

from fastapi.responses import StreamingResponse

from ..options import as_document
from .answers import Picture
from .house import House
from .notices import Subscription
from .problems import Failure

_MOST = 24  # streams, and threads that wait for them
_MOST_A_CLIENT = 8
_SLICE = 1.0  # seconds to wait for the house at once, to see in between that the server ends
_HEARTBEAT = 15.0
_BOUNDARY = "facetpu-picture"


class Streams:
    """The streams that are open.

    Attributes:
        closing: whether they are to end, as the server does.
    """

    def __init__(self, closing: Callable[[], bool]) -> None:
        self.closing = closing
        self._clients: list[str] = []
        self._threads = ThreadPoolExecutor(_MOST, thread_name_prefix="stream")

    @contextlib.contextmanager
    def place(self, client: str) -> Iterator[None]:
        """Hold a place for a stream of ``client``.

        Raises:
            Failure: it has as many as it may, or there are as many as there may be.
        """
        if len(self._clients) >= _MOST or self._clients.count(client) >= _MOST_A_CLIENT:
            raise Failure(429, "too many streams are open; close one")
        self._clients.append(client)
        try:
            yield
        finally:
            self._clients.remove(client)

    async def wait(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What ``function`` returns, run in a thread."""
        return await asyncio.get_event_loop().run_in_executor(self._threads, function, *arguments)


class _Stream(StreamingResponse):
    """A response without end, in a place of its own.

    ``ending`` is called when it is over, however it ended.
    """

    def __init__(
        self,
        chunks: AsyncGenerator[bytes, None],
        streams: Streams,
        client: str,
        ending: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(chunks)
        self._chunks, self._streams, self._client, self._ending = chunks, streams, client, ending

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            with self._streams.place(self._client):
                await super().__call__(scope, receive, send)
        finally:
            self._ending()
            await self._chunks.aclose()


class PictureStream(_Stream):
    """Motion JPEG."""

    media_type = f"multipart/x-mixed-replace; boundary={_BOUNDARY}"


class EventStream(_Stream):
    """Server-sent events."""

    media_type = "text/event-stream"


async def pictures_as_parts(
    streams: Streams, house: House, camera: str, first: Picture
) -> AsyncGenerator[bytes, None]:
    """The parts of a Motion JPEG stream, each the newest picture there is when the last one is sent."""
    # A browser shows a picture when it reads the boundary after it: that is sent with the picture.
    boundary = f"--{_BOUNDARY}\r\n".encode()
    yield boundary
    picture: Picture | None = first
    number = first.number
    while not streams.closing():
        if picture is not None:
            number = picture.number
            head = f"Content-Type: image/jpeg\r\nContent-Length: {len(picture.jpeg)}\r\n\r\n".encode()
            yield head + picture.jpeg + b"\r\n" + boundary
        picture = await streams.wait(house.picture, camera, number, _SLICE)


async def notices_as_text(streams: Streams, subscription: Subscription) -> AsyncGenerator[bytes, None]:
    """Notices as server-sent events, and a comment now and then, which tells that the stream lives."""
    yield b"retry: 3000\n\n"
    spoke = time.monotonic()
    while not streams.closing():
        notice = await streams.wait(subscription.next, _SLICE)
        if notice is not None:
            yield f"event: {notice.kind}\ndata: {as_document(notice.data, indent=None)}\n\n".encode()
        elif subscription.closed:
            return
        elif time.monotonic() - spoke < _HEARTBEAT:
            continue
        else:
            yield b":\n\n"
        spoke = time.monotonic()
