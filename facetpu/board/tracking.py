"""Follows faces from frame to frame, so that one person keeps one number and one name.

A face on a frame is the same as one on the frames before when their boxes overlap, or when their
embeddings are as near as two faces of one person are; of several that could be, the nearest. Its name
is the one that most of its last sightings vote for: one bad frame changes nothing.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import NamedTuple

import numpy as np

from .faces import KnownFace
from .gallery import normalised

VOTES = 15  # of a track's last sightings
CONFIRMED = 3  # sightings until a track is believed: a false face rarely lasts so long
OVERLAP = 0.3  # least intersection over union of one face on two frames
PATIENCE = 1.0  # seconds without a sighting until a track has left, where frames come so often
GAPS = 2.5  # times the time between two frames that it takes at the least
TOLD_EVERY = 1.0  # seconds between two events of a track that nothing happens to
_MEMORY = 0.8  # weight of what a track looked like so far against its newest sighting


class Event(NamedTuple):
    """What happened to a track.

    Attributes:
        event: ``appeared`` once it is believed, ``seen`` once a second and whenever its name changes,
            ``left`` when it has not been seen for the tracker's patience, or the pictures end.
        source: the video or camera.
        track: the track's number, from 1.
        name: whom most of its last sightings vote for; None for a stranger.
        cosine: to the nearest person, the median of the sightings that voted so.
        margin: of the nearest person before the second nearest, likewise; None where only one is known.
        frame: the number of the frame, from 0; of ``left`` the last with the face.
        seconds: when that was, in the video or since the camera was opened.
        box: x1, y1, x2, y2 in pixels of the frame.
        sightings: frames with the face so far.
    """

    event: str
    source: str
    track: int
    name: str | None
    cosine: float
    margin: float | None
    frame: int
    seconds: float
    box: list[float]
    sightings: int

    def __str__(self) -> str:
        text = f"{self.seconds:8.2f} s  {self.name or 'stranger'} {self.event}, track {self.track}"
        if self.event == "left":
            return f"{text}, after {self.sightings} sightings"
        margin = "" if self.margin is None else f", margin {self.margin:.2f}"
        return f"{text}, cosine {self.cosine:.2f}{margin}"


class Tracker:
    """The faces that are in the picture now.

    Attributes:
        patience: seconds without a sighting until a track has left: more where frames are rare.
    """

    def __init__(self, source: str) -> None:
        """Follow the faces of ``source``, which the events name."""
        self.patience = PATIENCE
        self._source = source
        self._seconds: float | None = None
        self._tracks: list[_Track] = []
        self._numbers = 0

    def update(
        self, frame: int, seconds: float, faces: list[KnownFace], embeddings: np.ndarray
    ) -> list[Event]:
        """Take a frame's faces in; what happened by it.

        Args:
            frame: its number.
            seconds: its time, which never goes back.
            faces: those on it.
            embeddings: theirs, float32 [n, D] of length 1.
        """
        if self._seconds is not None:
            self.patience = max(PATIENCE, GAPS * (seconds - self._seconds))
        self._seconds = seconds
        events = self.let_go(seconds)
        followed = self._associate(faces, embeddings)
        for index, face in enumerate(faces):
            track = followed.get(index)
            if track is None:
                track = _Track(embeddings[index])
                self._tracks.append(track)
            track.take(face, embeddings[index], frame, seconds)
            what = self._news(track, seconds)
            if what is not None:
                events.append(self._event(what, track))
        return events

    def let_go(self, seconds: float) -> list[Event]:
        """See who has left by now, where there is no frame; what happened by it."""
        gone = [track for track in self._tracks if seconds - track.seconds > self.patience]
        self._tracks = [track for track in self._tracks if seconds - track.seconds <= self.patience]
        return [self._event("left", track) for track in gone if track.number]

    def end(self) -> list[Event]:
        """The pictures end: everybody leaves."""
        gone, self._tracks = self._tracks, []
        return [self._event("left", track) for track in gone if track.number]

    def now(self, frame: int) -> list[tuple[int, KnownFace]]:
        """The believed tracks that ``frame`` shows: number and face, with the name of the track."""
        return [
            (track.number, track.face()) for track in self._tracks if track.number and track.frame == frame
        ]

    def _associate(self, faces: list[KnownFace], embeddings: np.ndarray) -> dict[int, _Track]:
        """The track of each face that has one, by the face's index; the surest pairs first."""
        pairs = []
        for index, face in enumerate(faces):
            for number, track in enumerate(self._tracks):
                nearness = track.nearness(face, embeddings[index])
                if nearness is not None:
                    pairs.append((-nearness, index, number))
        followed: dict[int, _Track] = {}
        taken: set[int] = set()
        for _, index, number in sorted(pairs):
            if index not in followed and number not in taken:
                followed[index] = self._tracks[number]
                taken.add(number)
        return followed

    def _news(self, track: _Track, seconds: float) -> str | None:
        """What there is to tell of a track that has just been seen."""
        if not track.number:
            if track.sightings < CONFIRMED:
                return None
            self._numbers += 1
            track.number = self._numbers
            what = "appeared"
        elif track.name == track.told and seconds - track.told_at < TOLD_EVERY:
            return None
        else:
            what = "seen"
        track.told, track.told_at = track.name, seconds
        return what

    def _event(self, what: str, track: _Track) -> Event:
        face = track.face()
        return Event(
            what,
            self._source,
            track.number,
            face.name,
            face.cosine,
            face.margin,
            track.frame,
            round(track.seconds, 3),
            face.box,
            track.sightings,
        )


class _Track:
    """One face over its frames.

    Attributes:
        number: of the track; 0 until it is believed.
        name: whom its sightings vote for.
        told, told_at: the name and time of its last event.
        frame, seconds: of its last sighting.
        sightings: how many there were.
    """

    def __init__(self, embedding: np.ndarray) -> None:
        self.number = 0
        self.name: str | None = None
        self.told: str | None = None
        self.told_at = 0.0
        self.frame, self.seconds, self.sightings = 0, 0.0, 0
        self._embedding = embedding
        self._votes: deque[KnownFace] = deque(maxlen=VOTES)

    def nearness(self, face: KnownFace, embedding: np.ndarray) -> float | None:
        """How sure it is that ``face`` is this one: the larger the surer; None if it is another."""
        cosine = float(self._embedding @ embedding)
        overlap = _overlap(self._votes[-1].box, face.box)
        like = cosine >= face.threshold
        if not like and (overlap < OVERLAP or (self.name and face.name and self.name != face.name)):
            return None
        return overlap + cosine

    def take(self, face: KnownFace, embedding: np.ndarray, frame: int, seconds: float) -> None:
        """Count a sighting."""
        self._votes.append(face)
        self._embedding = normalised(_MEMORY * self._embedding + (1 - _MEMORY) * embedding)
        self.frame, self.seconds = frame, seconds
        self.sightings += 1
        # A new name needs more than half of the votes, so that it does not go to and fro.
        name, votes = Counter(vote.name for vote in self._votes).most_common(1)[0]
        if self.sightings <= CONFIRMED or 2 * votes > len(self._votes):
            self.name = name

    def face(self) -> KnownFace:
        """The last sighting with the name of the track, and the medians of those that voted for it."""
        voters = [vote for vote in self._votes if vote.name == self.name] or list(self._votes)
        margins = [vote.margin for vote in voters if vote.margin is not None]
        return self._votes[-1]._replace(
            name=self.name,
            cosine=round(float(np.median([vote.cosine for vote in voters])), 6),
            margin=round(float(np.median(margins)), 6) if margins else None,
        )


def _overlap(box: list[float], other: list[float]) -> float:
    """Intersection over union of two boxes."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    common = max(width, 0.0) * max(height, 0.0)
    union = _area(box) + _area(other) - common
    return common / union if union > 0 else 0.0


def _area(box: list[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
