"""How much one client may ask: requests a second, bytes a request, time to send them in."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import threading
import time
from collections import OrderedDict
from typing import Any, Callable

from .problems import Failure, reply

LARGEST_PHOTO = 10 << 20  # bytes
_LARGEST_UPLOAD = 40 << 20
_LARGEST_BODY = 16 << 10  # of all else
_UPLOADS = 2  # at once, for they are held in memory
_UPLOAD = re.compile(r"/api/people/[^/]+/photos")
_BODY_SECONDS = 120.0
_CLIENTS = 1024  # that a rate is remembered of


def client_of(scope: Any) -> str:
    """Who asks: an address, or a network of IPv6, of which a client has as many addresses as it likes."""
    host = scope["client"][0] if scope.get("client") else "unknown"
    try:
        address = ipaddress.ip_address(host.split("%")[0])
    except ValueError:
        return str(host)
    if address.version == 4 or address.is_loopback:
        return str(address)
    if address.ipv4_mapped is not None:  # of a socket that listens to both
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


class Rate:
    """So many a second of each client, after a burst of more."""

    def __init__(self, a_second: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._a_second, self._burst, self._clock = a_second, float(burst), clock
        self._lock = threading.Lock()
        self._clients: OrderedDict[str, tuple[float, float]] = OrderedDict()  # what is left, and since when

    def left(self, client: str) -> float:
        """How many ``client`` may do now."""
        now = self._clock()
        left, since = self._clients.get(client, (self._burst, now))
        return min(self._burst, left + (now - since) * self._a_second)

    def take(self, client: str) -> bool:
        """Count one of ``client``; false when it has no more."""
        with self._lock:
            left = self.left(client)
            if left < 1:
                return False
            self._clients[client] = (left - 1, self._clock())
            self._clients.move_to_end(client)
            if len(self._clients) > _CLIENTS:
                self._clients.popitem(last=False)
        return True


class Bodies:
    """ASGI: the app behind it is given no body that is too large, too slow, or one of too many at once."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._uploads = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        upload = scope["method"] == "POST" and _UPLOAD.fullmatch(scope["path"]) is not None
        most = _LARGEST_UPLOAD if upload else _LARGEST_BODY
        if _declared(scope) > most:
            return await reply(_too_large(most))(scope, receive, send)
        if not upload:
            return await self._app(scope, _Counted(receive, most), send)
        if self._uploads >= _UPLOADS:
            busy = Failure(503, f"{_UPLOADS} uploads are under way; try again when they are done")
            return await reply(busy)(scope, receive, send)
        self._uploads += 1
        try:
            return await self._app(scope, _Counted(receive, most), send)
        finally:
            self._uploads -= 1


class _Counted:
    """ASGI's ``receive``, which fails when the body is too large or too slow."""

    def __init__(self, receive: Any, most: int) -> None:
        self._receive, self._most = receive, most
        self._seen, self._whole = 0, False
        self._end = time.monotonic() + _BODY_SECONDS

    async def __call__(self) -> Any:
        if self._whole:  # what is waited for now is the end of the connection
            return await self._receive()
        left = self._end - time.monotonic()
        try:
            message = await asyncio.wait_for(self._receive(), max(left, 0.0))
        except asyncio.TimeoutError:
            raise Failure(408, "the request came too slowly; send it again", close=True) from None
        self._seen += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._seen > self._most:
            raise _too_large(self._most)
        return message


def _declared(scope: Any) -> int:
    """The length of the body as the client says."""
    length = dict(scope["headers"]).get(b"content-length", b"")
    return int(length) if length.isdigit() else 0


def _too_large(most: int) -> Failure:
    size = f"{most >> 20} MB" if most >> 20 else f"{most >> 10} KB"
    return Failure(413, f"the request has more than {size}; send less at once", close=True)
