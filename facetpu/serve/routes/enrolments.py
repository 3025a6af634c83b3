"""Enrolments by camera: five poses, taken one after the other."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Path

from ..house import House
from ..models import Enrolled, Enrolment, NewEnrolment
from .replies import HOUSE, NO_CONTENT, problems

router = APIRouter(prefix="/api/enrolments", tags=["enrolments"], responses=problems(404))
WHICH = Path(max_length=100, description="As begin_enrolment gave it.")


@router.post("", status_code=201, response_model=Enrolment, responses=problems(409))
def begin_enrolment(new: NewEnrolment, house: House = HOUSE) -> Any:
    """Begin to enrol a person, new or known, in front of a camera; poses are taken by themselves."""
    return house.begin_enrolment(new.name, new.camera)


@router.get("/{id}", response_model=Enrolment)
def enrolment(id: str = WHICH, house: House = HOUSE) -> Any:
    """How far an enrolment is; one that nobody asks after for a minute is given up."""
    return house.enrolment(id)


@router.post("/{id}/take", response_model=Enrolment)
def take(id: str = WHICH, house: House = HOUSE) -> Any:
    """Look at the newest frame for the pose that is wanted."""
    return house.take(id)


@router.post("/{id}/finish", response_model=Enrolled, responses=problems(409, 507))
def finish(id: str = WHICH, house: House = HOUSE) -> Any:
    """Enrol the poses that were taken."""
    return house.finish(id)


@router.delete("/{id}", **NO_CONTENT)
def cancel(id: str = WHICH, house: House = HOUSE) -> None:
    """Give an enrolment up."""
    house.cancel(id)
