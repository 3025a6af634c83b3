"""What the routes share: the house they ask, pictures as replies, and the errors they may reply with."""

from __future__ import annotations

from typing import Any

from fastapi import Depends, HTTPException, Request, Response

from ..house import House
from ..models import Problem

JPEG = "image/jpeg"
# FastAPI 0.103 takes the annotation None for a model of a reply's body.
NO_CONTENT: dict[str, Any] = {"status_code": 204, "response_class": Response, "response_model": None}
_MEANING = {
    400: "The request cannot be read.",
    401: "The token is missing or wrong.",
    403: "The request comes from another site's page.",
    404: "There is none such.",
    408: "The request came too slowly.",
    409: "It does not go with what is there.",
    413: "There is too much of it.",
    422: "It cannot be used.",
    429: "Too many requests, or too many streams.",
    503: "There is too much to do, or no picture; later it may go.",
    507: "The disk is full.",
}
# Replies that every route may give.
EVERYWHERE = (400, 401, 403, 408, 413, 422, 429, 503)


def the_house(request: Request) -> House:
    """The house that the app is for."""
    house: House = request.app.state.house
    return house


HOUSE = Depends(the_house)


def problems(*statuses: int) -> dict[Any, Any]:
    """What the OpenAPI description says of replies that are errors."""
    return {status: {"model": Problem, "description": _MEANING[status]} for status in statuses}


def sent_as(media_type: str) -> dict[Any, Any]:
    """What the OpenAPI description says of a reply that is no JSON."""
    return {200: {"content": {media_type: {"schema": {"type": "string", "format": "binary"}}}}}


def jpeg(picture: bytes | None, whose: str) -> Response:
    """A picture as reply; 404 where there is none."""
    if picture is None:
        raise HTTPException(404, f"{whose} has no picture")
    return Response(picture, media_type=JPEG)
