"""The page's files; who is let in; how the server is."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response

from ... import __version__
from ..house import House
from ..limits import client_of
from ..models import Session, Status, Token
from .replies import HOUSE, NO_CONTENT, problems

page = APIRouter(include_in_schema=False)
router = APIRouter(prefix="/api", tags=["session"])
status = APIRouter(prefix="/api", tags=["status"])


@page.get("/")
async def index(request: Request) -> Response:
    """The page."""
    return _file(request, "index.html")


@page.get("/static/{name}")
async def static(name: str, request: Request) -> Response:
    """A script, style or picture of the page."""
    return _file(request, name)


@router.get("/session", response_model=Session)
def session(request: Request) -> Any:
    """Whether one must say the token, and whether this was done."""
    door = request.app.state.door
    return {"token_needed": door.token is not None, "inside": door.knows(request.cookies)}


@router.post("/session", **NO_CONTENT, responses=problems(507))
def begin_session(token: Token, request: Request, response: Response) -> None:
    """Say the token, for a cookie that stands for it."""
    door = request.app.state.door
    door.check(token.token, client_of(request.scope))
    door.begin_session(response)


@router.delete("/session", **NO_CONTENT, responses=problems(507))
def end_session(request: Request, response: Response) -> None:
    """Give the cookie back."""
    request.app.state.door.end_session(request.cookies, response)


@status.get("/status", response_model=Status, name="status")
def read_status(request: Request, house: House = HOUSE) -> Any:
    """The server as it is now."""
    return {
        "version": __version__,
        "model": request.app.state.model,
        "seconds_up": request.app.state.seconds_up(),
        "problem": house.problem(),
        "people": len(house.people()),
        "cameras": house.cameras(),
    }


def _file(request: Request, name: str) -> Response:
    # The table was made at the start: no path of a request is ever opened.
    file = request.app.state.files.get(name)
    if file is None:
        raise HTTPException(404, "the page has no such file")
    return Response(file.content, media_type=file.media_type)
