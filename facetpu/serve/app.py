"""The app: the routes, behind a guard, behind limits. It serves one house."""

from __future__ import annotations

import time
from typing import Any, Callable

from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer

from .. import __version__
from .files import read_files
from .guard import Guard
from .house import House
from .limits import Bodies, Rate
from .problems import add_handlers
from .routes import cameras, enrolments, events, people, session
from .routes.replies import EVERYWHERE, problems
from .security import Door
from .streams import Streams

_DESCRIPTION = """Who is seen, who is known, and how to change it.

Where the server asks for a token, send it as `Authorization: Bearer TOKEN`, or POST it to /api/session for a
cookie. Requests that change something and bear no token must bear the header `X-Facetpu: 1`.

Every error is `{"error": "one line"}`."""


def make_app(
    house: House,
    model: str,
    door: Door,
    closing: Callable[[], bool] = lambda: False,
    requests: Rate | None = None,
) -> Any:
    """The ASGI app.

    Args:
        house: what it serves.
        model: the name of the model.
        door: who is let in.
        closing: whether the server ends, and streams are to end with it.
        requests: how many a client may send; 30 a second, after a burst of 120, unless given.
    """
    app = make_api()
    started = time.monotonic()
    app.state.house, app.state.model, app.state.door = house, model, door
    app.state.seconds_up = lambda: time.monotonic() - started
    app.state.files, app.state.streams = read_files(), Streams(closing)
    return Guard(Bodies(app), door, requests or Rate(30, 120))


def make_api() -> FastAPI:
    """The routes, and their OpenAPI description, without a house."""
    app = FastAPI(
        title="facetpu",
        version=__version__,
        description=_DESCRIPTION,
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        responses=problems(*EVERYWHERE),
        generate_unique_id_function=_name,
    )
    token = Depends(HTTPBearer(auto_error=False, description="The token that the server made at first."))
    app.include_router(session.page)
    app.include_router(session.router)
    for router in (session.status, cameras.router, people.router, enrolments.router, events.router):
        app.include_router(router, dependencies=[token])  # for the description; the guard asks for it
    add_handlers(app)
    return app


def _name(route: APIRoute) -> str:
    return route.name
