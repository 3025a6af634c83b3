"""People: who is known, by which photos, under which name."""

from __future__ import annotations

from typing import Any, List

from fastapi import APIRouter, File, HTTPException, Path, Response, UploadFile

from ..house import House
from ..household import MOST_PHOTOS
from ..limits import LARGEST_PHOTO
from ..models import NAME, Enrolled, Into, NewName, People
from .replies import HOUSE, JPEG, NO_CONTENT, jpeg, problems, sent_as

router = APIRouter(prefix="/api/people", tags=["people"])
PICTURE = {**sent_as(JPEG), **problems(404)}
WHO = Path(max_length=200, description=NAME)
PHOTOS = File(
    description=f"1 to {MOST_PHOTOS} photos of the person, of {LARGEST_PHOTO >> 20} MB at most each.",
    min_length=1,
    max_length=MOST_PHOTOS,
)


@router.get("", response_model=People)
def people(house: House = HOUSE) -> Any:
    """Everyone who is known."""
    return {"people": house.people()}


@router.get("/{name}/portrait.jpg", response_class=Response, responses=PICTURE)
def portrait(name: str = WHO, house: House = HOUSE) -> Response:
    """A picture of a person."""
    return jpeg(house.portrait(name), name)


@router.patch("/{name}", **NO_CONTENT, responses=problems(404, 409, 507))
def rename(new: NewName, name: str = WHO, house: House = HOUSE) -> None:
    """Call a person by another name."""
    house.rename(name, new.name)


@router.post("/{name}/merge", **NO_CONTENT, responses=problems(404, 409, 507))
def merge(one: Into, name: str = WHO, house: House = HOUSE) -> None:
    """Count a person's photos as another's: the two are one person."""
    house.merge(name, one.into)


@router.delete("/{name}", **NO_CONTENT, responses=problems(404, 507))
def erase(name: str = WHO, house: House = HOUSE) -> None:
    """Forget a person: rows, embeddings, photos, and the crops and names of their events."""
    house.erase(name)


@router.post("/{name}/photos", response_model=Enrolled, responses=problems(409, 507))
def enrol_photos(name: str = WHO, photos: List[UploadFile] = PHOTOS, house: House = HOUSE) -> Any:
    """Enrol a person, new or known, by photos; each that is refused has its reason."""
    contents = []
    for number, photo in enumerate(photos, 1):
        content = photo.file.read(LARGEST_PHOTO + 1)
        if len(content) > LARGEST_PHOTO:
            raise HTTPException(413, f"photo {number} has more than {LARGEST_PHOTO >> 20} MB")
        contents.append(content)
    return house.enrol_photos(name, contents)
