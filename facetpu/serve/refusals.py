"""What the house answers when it does not do what was asked, by the kind that HTTP gives a number to."""

from __future__ import annotations

from ..errors import FacetpuError


class Unknown(FacetpuError):
    """There is no such person, camera, enrolment or event (HTTP 404)."""


class Conflict(FacetpuError):
    """It does not go with what is there: a name that is taken, a camera that enrols already (HTTP 409)."""


class Refused(FacetpuError):
    """What was given cannot be used: an unfit name, a face that cannot be told (HTTP 422)."""


class Busy(FacetpuError):
    """There is too much to do already, or the house is not open; later it may go (HTTP 503)."""


class Full(FacetpuError):
    """The disk is full, or cannot be written to (HTTP 507)."""
