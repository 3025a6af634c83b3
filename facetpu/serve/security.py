"""Who is let in: everybody on this machine, or who says the token, or holds a cookie that stands for it."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import secrets
import threading
import time
from pathlib import Path
from typing import Any, Callable, Mapping, NamedTuple

from ..artefacts import write_text
from ..errors import FacetpuError
from .limits import Rate
from .problems import Failure

log = logging.getLogger(__name__)

TOKEN = "token"
SESSIONS = "sessions.json"
_SHORTEST_TOKEN = 20
_MOST_SESSIONS = 64
_SESSION_SECONDS = 90 * 24 * 3600
_REFUSALS = 1 / 6, 10  # wrong tokens a second of one client, and at once


class OpenedToken(NamedTuple):
    """The token, and whether it was made just now."""

    token: str
    fresh: bool


def open_token(state: Path) -> OpenedToken:
    """The token that the folder ``state`` holds; made, readable by its owner alone, where it holds none.

    Raises:
        FacetpuError: the file is damaged.
    """
    path = state / TOKEN
    try:
        token = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        token = secrets.token_urlsafe(32)
        write_text(path, token + "\n", mode=0o600)
        return OpenedToken(token, True)
    except UnicodeDecodeError:
        token = ""
    if len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable():
        raise FacetpuError(f"{path}: is damaged; delete it, and a new token is made at the next start")
    os.chmod(str(path), 0o600)
    return OpenedToken(token, False)


class Sessions:
    """Cookies that stand for a token; of each a digest is kept in a file, for the server's next start.

    The digests are keyed by the token: with a new one, all cookies are void.
    """

    def __init__(self, path: Path, token: str) -> None:
        self._path, self._token = path, token.encode()
        self._lock = threading.Lock()
        self._began = self._read()  # by digest, the oldest first

    def begin(self) -> str:
        """A new cookie; beyond so many, the oldest is void."""
        cookie = secrets.token_urlsafe(32)
        with self._lock:
            self._began[self._digest(cookie)] = time.time()
            while len(self._began) > _MOST_SESSIONS:
                del self._began[next(iter(self._began))]
            self._write()
        return cookie

    def knows(self, cookie: str | None) -> bool:
        """Whether ``cookie`` is one of them, and not too old."""
        if not cookie:
            return False
        with self._lock:
            began = self._began.get(self._digest(cookie))
        # A clock that was set back makes a session no younger than it is: it counts as new.
        return began is not None and time.time() - began < _SESSION_SECONDS

    def end(self, cookie: str | None) -> None:
        """Make ``cookie`` void."""
        with self._lock:
            if cookie and self._began.pop(self._digest(cookie), None) is not None:
                self._write()

    def _digest(self, cookie: str) -> str:
        return hmac.new(self._token, cookie.encode("utf-8", "replace"), hashlib.sha256).hexdigest()

    def _read(self) -> dict[str, float]:
        try:
            read = json.loads(self._path.read_text(encoding="utf-8"))
            return {str(digest): float(began) for digest, began in read.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, AttributeError, TypeError):
            log.warning("%s: is damaged; everybody has to say the token again", self._path)
            return {}

    def _write(self) -> None:
        try:
            write_text(self._path, json.dumps(self._began), overwrite=True, mode=0o600)
        except OSError as error:  # on a full disk one must get in all the same, to make room
            log.warning("%s: %s; sessions end with the server", self._path, error.strerror)


class Door:
    """Who is let in.

    Attributes:
        token: what one has to say; None where everybody who can connect is let in.
        cookie: the name of the cookie that stands for it.
    """

    def __init__(
        self,
        state: Path,
        token: str | None = None,
        port: int = 0,
        secure: bool = False,
        audit: Callable[..., None] = lambda action, **facts: None,
    ) -> None:
        """Open the door.

        Args:
            state: the folder to keep sessions in.
            token: what one has to say.
            port: the server's: cookies are a host's, whichever of its ports they are from.
            secure: the cookie is for HTTPS alone.
            audit: is told of each token refused.
        """
        self.token, self._secure, self._audit = token, secure, audit
        self.cookie = f"__Host-facetpu-{port}" if secure else f"facetpu-{port}"
        self._sessions = Sessions(state / SESSIONS, token) if token is not None else None
        self._refusals = Rate(*_REFUSALS)

    def check(self, said: str, client: str) -> None:
        """Compare what ``client`` said with the token, in a time that does not tell how much of it is right.

        Raises:
            Failure: it is not the token, or the client was wrong too often.
        """
        if self.token is None:
            return
        if self._refusals.left(client) < 1:
            raise Failure(429, "too many wrong tokens; wait a minute")
        if not hmac.compare_digest(said.encode("utf-8", "replace"), self.token.encode()):
            self._refusals.take(client)
            self._audit("token refused", client=client)
            raise Failure(401, "this is not the token; it stands in the state folder's file token")

    def knows(self, cookies: Mapping[str, str]) -> bool:
        """Whether one is let in without saying the token."""
        return self._sessions is None or self._sessions.knows(cookies.get(self.cookie))

    def begin_session(self, response: Any) -> None:
        """Give the client a cookie; it has said the token."""
        if self._sessions is not None:
            response.set_cookie(
                self.cookie,
                self._sessions.begin(),
                max_age=_SESSION_SECONDS,
                path="/",
                secure=self._secure,
                httponly=True,
                samesite="strict",
            )

    def end_session(self, cookies: Mapping[str, str], response: Any) -> None:
        """Make the client's cookie void."""
        if self._sessions is not None:
            self._sessions.end(cookies.get(self.cookie))
            response.delete_cookie(
                self.cookie, path="/", secure=self._secure, httponly=True, samesite="strict"
            )


def bearer(headers: Mapping[str, str]) -> str | None:
    """The token of ``Authorization: Bearer TOKEN``; None where there is no such header."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else None
