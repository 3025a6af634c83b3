"""A connection that does not wait for its client for ever."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

_IDLE = 10.0  # seconds for the head of a request, from the connection's begin or the last reply's end on
_BLOCKED = 10.0  # seconds in which a client must take something of what it is sent


class Connection(H11Protocol):
    """uvicorn's connection, cut off when its client neither asks anything nor takes what it is sent."""

    def connection_made(self, transport: Any) -> None:
        """Begin to wait."""
        super().connection_made(transport)
        self.app: Any = _Patience(self.app, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        super().connection_lost(exc)
        self.app.end()


class _Patience:
    """ASGI: the app behind it, for one connection.

    uvicorn has no time limit for the head of a request, nor for a client that reads nothing.
    """

    def __init__(self, app: Any, transport: Any) -> None:
        self._app, self._transport = app, transport
        self._wait()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_in_time(message: Any) -> None:
            try:
                await asyncio.wait_for(send(message), _BLOCKED)
            except asyncio.TimeoutError:
                self._transport.abort()  # to close it would be to wait until all is sent

        self._timer.cancel()
        try:
            await self._app(scope, receive, send_in_time)
        finally:
            if not self._transport.is_closing():
                self._wait()

    def end(self) -> None:
        """The connection is lost."""
        self._timer.cancel()

    def _wait(self) -> None:
        self._timer = asyncio.get_event_loop().call_later(_IDLE, self._transport.abort)
