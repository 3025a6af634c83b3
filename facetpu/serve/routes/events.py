"""Events, what is told as it happens, and the threshold."""

from __future__ import annotations

from typing import Any, Optional

from fastapi import APIRouter, Path, Query, Request, Response

from ..house import House
from ..limits import client_of
from ..models import LARGEST_ID, Correction, Event, Events, NewThreshold, Threshold
from ..streams import EventStream, notices_as_text
from .replies import HOUSE, JPEG, NO_CONTENT, jpeg, problems, sent_as

router = APIRouter(prefix="/api", tags=["events"])
PICTURE = {**sent_as(JPEG), **problems(404)}
WHICH = Path(ge=1, le=LARGEST_ID)
BEFORE = Query(None, ge=1, le=LARGEST_ID, description="Only events with a smaller id than this.")
LIMIT = Query(50, ge=1, le=200)
WHOSE = Query(None, max_length=200, description="Only events of this person.")


@router.get("/events", response_model=Events)
def events(
    before: Optional[int] = BEFORE,
    limit: int = LIMIT,
    name: Optional[str] = WHOSE,
    house: House = HOUSE,
) -> Any:
    """Events, the newest first."""
    return {"events": house.events(before, limit, name)}


@router.get("/events/{id}/crop.jpg", response_class=Response, responses=PICTURE)
def crop(id: int = WHICH, house: House = HOUSE) -> Response:
    """The face of an event."""
    return jpeg(house.crop(id), f"event {id}")


@router.post("/events/{id}/correction", response_model=Event, responses=problems(404, 409, 507))
def correct(correction: Correction, id: int = WHICH, house: House = HOUSE) -> Any:
    """Say whose an event is; its crop becomes a photo of theirs, unless ``refusal`` says why not."""
    return house.correct(id, correction.name)


@router.delete("/events/{id}", **NO_CONTENT, responses=problems(404, 507))
def forget(id: int = WHICH, house: House = HOUSE) -> None:
    """Delete an event and its crop."""
    house.forget(id)


@router.get("/notices", response_class=Response, responses=sent_as(EventStream.media_type))
def notices(request: Request, house: House = HOUSE) -> Response:
    """What happens, as server-sent events: seen, people, camera; dropped, the last for a slow reader."""
    streams = request.app.state.streams
    subscription = house.subscribe()
    chunks = notices_as_text(streams, subscription)
    return EventStream(chunks, streams, client_of(request.scope), ending=subscription.close)


@router.get("/threshold", response_model=Threshold)
def threshold(house: House = HOUSE) -> Any:
    """From when on a face is somebody's, and what else could be chosen."""
    return house.threshold()


@router.put("/threshold", response_model=Threshold, responses=problems(507))
def set_threshold(new: NewThreshold, house: House = HOUSE) -> Any:
    """Let this share of strangers through."""
    return house.set_threshold(new.false_accepts)
