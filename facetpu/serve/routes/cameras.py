"""Cameras: how they are, and what they see."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Path, Request, Response

from ..house import House
from ..limits import client_of
from ..models import Cameras
from ..refusals import Busy
from ..streams import PictureStream, pictures_as_parts
from .replies import HOUSE, JPEG, jpeg, problems, sent_as

router = APIRouter(prefix="/api/cameras", tags=["cameras"])
PICTURE = {**sent_as(JPEG), **problems(404)}
STREAM = {**sent_as(PictureStream.media_type), **problems(404)}
WHICH = Path(max_length=20, description="The camera's id.")
PATIENCE = 5.0  # seconds to wait for the first picture


@router.get("", response_model=Cameras)
def cameras(house: House = HOUSE) -> Any:
    """The cameras as they are now."""
    return {"cameras": house.cameras()}


@router.get("/{id}/picture.jpg", response_class=Response, responses=PICTURE)
def picture(id: str = WHICH, house: House = HOUSE) -> Response:
    """The newest frame, with boxes and names."""
    return jpeg(_newest(house, id).jpeg, f"camera {id}")


@router.get("/{id}/stream", response_class=Response, responses=STREAM)
def stream(request: Request, id: str = WHICH, house: House = HOUSE) -> Response:
    """Every frame from now on that the client has time for, with boxes and names, as Motion JPEG."""
    streams = request.app.state.streams
    chunks = pictures_as_parts(streams, house, id, _newest(house, id))
    return PictureStream(chunks, streams, client_of(request.scope))


def _newest(house: House, camera: str) -> Any:
    picture = house.picture(camera, timeout=PATIENCE)
    if picture is None:
        raise Busy(f"camera {camera} gives no picture; see what /api/cameras says of it")
    return picture
