"""In front of every route: who asks, from which page, how often; what browsers may do with the reply."""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import urlsplit

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders

from .limits import Rate, client_of
from .problems import Failure, reply
from .security import Door, bearer

_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
# A page of another site cannot send it without asking us first, which we do not answer.
_OUR_HEADER = "x-facetpu"
_OUR_SITES = ("same-origin", "none")  # none: an address typed in
_OPEN = ("/", "/api/session")

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}


class Guard:
    """ASGI: lets through to the app behind it what may pass, and replies to the rest with what is wrong."""

    def __init__(self, app: Any, door: Door, requests: Rate) -> None:
        self._app, self._door, self._requests = app, door, requests

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)

        async def guarded_send(message: Any) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        try:
            await self._check(Request(scope))
        except Failure as failure:
            return await reply(failure)(scope, receive, guarded_send)
        return await self._app(scope, receive, guarded_send)

    async def _check(self, request: Request) -> None:
        """Let ``request`` through.

        Raises:
            Failure: it may not pass. The connection ends, for what more of the request is under way.
        """
        client = client_of(request.scope)
        if not self._requests.take(client):
            raise Failure(429, "too many requests; ask less often", close=True, Retry_After="1")
        self._check_host(request)
        path = request.scope["path"]  # and not request.url's, which a Host with a slash in it would change
        if path.startswith("/api/") and request.headers.get("sec-fetch-site", "none") not in _OUR_SITES:
            raise Failure(403, "another site's page may not ask this", close=True)
        said = bearer(request.headers)
        if said is not None:
            await run_in_threadpool(self._door.check, said, client)
            return
        if request.method not in _SAFE_METHODS:
            self._check_page(request)
        if not (is_open(path) or self._door.knows(request.cookies)):
            raise Failure(401, "say the token first", close=True, WWW_Authenticate="Bearer")

    def _check_host(self, request: Request) -> None:
        """Refuse a page whose name was made to point here: it would count as ours, and needs no token."""
        if self._door.token is None and not is_local(_host(request.headers.get("host", ""))):
            raise Failure(403, "without a token, the server answers to localhost alone", close=True)

    def _check_page(self, request: Request) -> None:
        """Refuse what a page of another site may have sent with our cookie."""
        origin = request.headers.get("origin")
        ours = f"{request.scope['scheme']}://{request.headers.get('host')}"
        if _OUR_HEADER not in request.headers or (origin is not None and origin.lower() != ours.lower()):
            raise Failure(403, "send X-Facetpu: 1, from the server's own page or none", close=True)


def is_open(path: str) -> bool:
    """Whether who did not say the token may have ``path``: the page, to say it there."""
    return path in _OPEN or path.startswith("/static/")


def is_local(host: str) -> bool:
    """Whether ``host`` is a name or address of this machine for itself alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _host(header: str) -> str:
    """The host of a ``Host`` header, without its port."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""
