"""What goes over HTTP, for the OpenAPI description: what is asked, and the answers of the house by field.

The annotations are evaluated when the module is read, on Python 3.7 too: hence ``Optional`` and ``List``.
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional

from pydantic import BaseModel, Field

NAME = "A person's name: without slash or control character, not beginning with a dot or colon."
LARGEST_ID = 2**63 - 1  # of an event, as SQLite counts


class Problem(BaseModel):
    """Why something was not done, in one line."""

    error: str


# --- asked


class Token(BaseModel):
    """The token that the server made at its first start."""

    token: str = Field(max_length=200)


class NewName(BaseModel):
    """What a person is to be called."""

    name: str = Field(max_length=200, description=NAME)


class Into(BaseModel):
    """Whom a person is one with."""

    into: str = Field(max_length=200, description=NAME)


class NewEnrolment(BaseModel):
    """Who is to stand in front of which camera."""

    name: str = Field(max_length=200, description=NAME)
    camera: str = Field(max_length=20, description="The camera's id.")


class Correction(BaseModel):
    """Whose an event is: a person's, new or known; null for nobody's who is known."""

    name: Optional[str] = Field(max_length=200, description=NAME)


class NewThreshold(BaseModel):
    """Share of strangers to let through."""

    false_accepts: float = Field(gt=0, lt=1, allow_inf_nan=False)


# --- answered


class Session(BaseModel):
    """Whether one must say the token, and whether this was done."""

    token_needed: bool
    inside: bool


class Camera(BaseModel):
    """A camera as it is now."""

    id: str
    source: str = Field(description="What was given, a password in it masked.")
    state: str = Field(description="starting, watching or lost")
    frames_per_second: float = Field(description="That are looked at.")
    latency_ms: Optional[float] = Field(
        description="From having a frame to knowing who is on it, the median."
    )
    faces: int = Field(description="In the picture now.")
    people: List[str] = Field(description="Those of the faces who are known.")
    problem: Optional[str] = Field(description="Why it is lost.")


class Cameras(BaseModel):
    """All cameras."""

    cameras: List[Camera]


class Person(BaseModel):
    """A person."""

    name: str
    photos: int = Field(description="That they were enrolled with.")
    last_seen: Optional[float] = Field(description="Unix seconds; null for never.")
    portrait: bool = Field(description="Whether there is a picture of them.")


class People(BaseModel):
    """Everyone who is known."""

    people: List[Person]


class Enrolment(BaseModel):
    """An enrolment by camera that is under way."""

    id: str
    name: str
    camera: str
    pose: Optional[str] = Field(description="Wanted now: front, left, right, up or down; null for no more.")
    task: str = Field(description="What to do now, in words.")
    taken: List[str] = Field(description="The poses that there are.")
    refusal: Optional[str] = Field(description="What was wrong with the newest picture.")
    can_finish: bool = Field(description="Whether the poses are enough.")


class Remark(BaseModel):
    """Something to know about a photo."""

    photo: str
    kinds: List[str] = Field(description="Of faults, a word or two each.")
    text: str


class Enrolled(BaseModel):
    """What came of an enrolment; with ``added`` 0, nothing has changed."""

    name: str
    photos: int = Field(description="Of the person, now.")
    added: int = Field(description="How many of them are new.")
    refused: List[Remark] = Field(description="Photos that were not taken, and why.")
    remarks: List[Remark] = Field(description="What speaks against those that were taken all the same.")


class Event(BaseModel):
    """Somebody was in the picture for a while."""

    id: int
    camera: str
    track: int = Field(description="The number of the face on its camera.")
    name: Optional[str] = Field(description="Whom the model took them for; null for a stranger.")
    corrected: bool = Field(description="Whether somebody said who it was.")
    corrected_name: Optional[str] = Field(description="Whom they named; null for nobody who is known.")
    cosine: Optional[float] = Field(description="To the nearest person; null where nobody was enrolled.")
    began: float = Field(description="Unix seconds.")
    ended: float = Field(description="Unix seconds; when they were last seen.")
    present: bool = Field(description="Whether they are in the picture still.")
    sightings: int = Field(description="Frames that they were on.")
    crop: bool = Field(description="Whether there is a picture.")
    refusal: Optional[str] = Field(None, description="Why the crop did not become a photo of the person.")


class Events(BaseModel):
    """Events, the newest first."""

    events: List[Event]


class ThresholdChoice(BaseModel):
    """A share of strangers that would be let through, and the cosine that stands for it."""

    false_accepts: float
    cosine: float


class Threshold(BaseModel):
    """From when on a face is somebody's."""

    cosine: Optional[float] = Field(description="To a person; null as long as nobody is enrolled.")
    false_accepts: float = Field(description="Share of strangers that reach it.")
    source: str
    choices: List[ThresholdChoice]


class Status(BaseModel):
    """The server as it is now."""

    version: str
    model: str = Field(description="The name of the model's folder.")
    seconds_up: float
    problem: Optional[str] = Field(description="What is wrong as a whole, such as a full disk.")
    people: int
    cameras: List[Camera]


class Notice(BaseModel):
    """An event of the stream of notices: ``kind`` is its type, ``data`` its JSON."""

    kind: str = Field(description="seen, people, camera or dropped")
    data: Dict[str, Any]
