"""Following faces over frames, and voting on their names."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_export import unit_rows

from facetpu.board.faces import KnownFace
from facetpu.board.gallery import normalised
from facetpu.board.tracking import CONFIRMED, PATIENCE, TOLD_EVERY, Event, Tracker

ANA, BO, CY = unit_rows(3, seed=4)  # nearly at right angles to each other
RATE = 10


class Film:
    """A tracker that is shown faces frame by frame."""

    def __init__(self) -> None:
        self.tracker = Tracker("film")
        self.frame = 0
        self.events: list[Event] = []

    def show(self, *faces: tuple[str | None, np.ndarray, float], frames: int = 1) -> list[Event]:
        """Faces as (recognised as, looks like, left edge in pixels), for some frames; what happened."""
        events = []
        for _ in range(frames):
            known = [
                KnownFace(name, 0.8 if name else 0.2, 0.5, [left, 0, left + 100, 100], [], 1.0, 0.25)
                for name, _, left in faces
            ]
            looks = np.array([look for _, look, _ in faces])
            events += self.tracker.update(self.frame, self.frame / RATE, known, looks)
            self.frame += 1
        self.events += events
        return events

    def end(self) -> list[Event]:
        return self.tracker.end()


def told(events: list[Event]) -> list[tuple[str, int, str | None]]:
    return [(event.event, event.track, event.name) for event in events]


def test_a_face_appears_is_seen_once_a_second_and_leaves() -> None:
    film = Film()
    assert told(film.show(("Ana", ANA, 0), frames=CONFIRMED - 1)) == []
    (appeared,) = film.show(("Ana", ANA, 0))
    assert appeared == Event(
        "appeared",
        "film",
        1,
        "Ana",
        0.8,
        0.25,
        CONFIRMED - 1,
        (CONFIRMED - 1) / RATE,
        [0, 0, 100, 100],
        CONFIRMED,
    )
    seen = film.show(("Ana", ANA, 0), frames=3 * RATE)
    assert [round(event.seconds - appeared.seconds, 6) for event in seen] == [
        TOLD_EVERY,
        2 * TOLD_EVERY,
        3 * TOLD_EVERY,
    ]
    (left,) = film.show(frames=round(PATIENCE * RATE) + 1)
    assert left == appeared._replace(event="left", frame=32, seconds=3.2, sightings=33)
    assert film.end() == []


def test_a_flicker_is_nobody() -> None:
    film = Film()
    for _ in range(5):
        assert film.show(("Ana", ANA, 0), frames=CONFIRMED - 1) == []
        assert film.show(frames=2 * RATE) == []
    assert film.end() == []


def test_a_gap_and_bad_frames_change_neither_number_nor_name() -> None:
    film = Film()
    film.show(("Ana", ANA, 0), frames=RATE)
    film.show(frames=RATE // 2)  # somebody passes in front
    film.show((None, ANA, 10), frames=4)  # turned away
    film.show(("Bo", normalised(ANA + BO), 20), frames=2)  # and mistaken
    film.show(("Ana", ANA, 30), frames=RATE)
    assert {(event.track, event.name) for event in film.events} == {(1, "Ana")}
    assert told(film.end()) == [("left", 1, "Ana")]


def test_a_track_takes_the_name_that_most_sightings_vote_for_and_says_so_at_once() -> None:
    film = Film()
    film.show((None, ANA, 0), frames=CONFIRMED + 1)
    events = film.show(("Ana", ANA, 0), frames=CONFIRMED + 2)
    assert told(film.events) == [("appeared", 1, None), ("seen", 1, "Ana")]
    assert events[0].frame == 2 * (CONFIRMED + 1)
    assert (events[0].cosine, events[0].margin) == (0.8, 0.25)


def test_two_people_keep_their_numbers_when_they_cross() -> None:
    film = Film()
    for step in range(20):
        film.show(("Ana", ANA, 10 * step), ("Bo", BO, 200 - 10 * step))
    assert {(event.track, event.name) for event in film.events} == {(1, "Ana"), (2, "Bo")}
    assert [number for number, _ in film.tracker.now(19)] == [1, 2]


def test_strangers_who_cross_keep_their_numbers_by_their_looks() -> None:
    film = Film()
    for step in range(20):
        film.show((None, ANA, 10 * step), (None, BO, 190 - 10 * step))
    boxes = {number: face.box[0] for number, face in film.tracker.now(19)}
    assert boxes == {1: 190, 2: 0}


def test_another_person_in_the_same_place_is_another_track() -> None:
    film = Film()
    film.show(("Ana", ANA, 0), frames=RATE)
    film.show(("Bo", BO, 0), frames=3 * RATE)
    people = [(event.event, event.name) for event in film.events if event.event != "seen"]
    assert people == [("appeared", "Ana"), ("appeared", "Bo"), ("left", "Ana")]


def test_a_face_that_jumps_is_known_by_its_looks_and_one_that_does_not_is_new() -> None:
    film = Film()
    film.show((None, ANA, 0), frames=RATE)
    film.show((None, ANA, 500), frames=RATE)  # frames between were dropped
    film.show((None, CY, 0), frames=CONFIRMED)
    assert [event.track for event in film.events if event.event == "appeared"] == [1, 2]


@pytest.mark.parametrize("gap", [1.2, 4.0])
def test_who_is_there_on_every_frame_appears_however_rare_frames_are(gap: float) -> None:
    tracker = Tracker("film")
    face = KnownFace("Ana", 0.8, 0.5, [0, 0, 100, 100], [], 1.0)
    events = [tracker.update(frame, gap * frame, [face], ANA[None]) for frame in range(CONFIRMED)]
    assert told(events[-1]) == [("appeared", 1, "Ana")]
    nobody = np.zeros((0, 0), np.float32)
    assert tracker.update(3, 3 * gap, [], nobody) == tracker.update(4, 4 * gap, [], nobody) == []
    assert tracker.let_go(4.4 * gap) == []
    assert told(tracker.let_go(4.6 * gap)) == [("left", 1, "Ana")]


def test_who_comes_back_after_leaving_is_a_new_track() -> None:
    film = Film()
    for _ in range(2):
        film.show(("Ana", ANA, 0), frames=CONFIRMED)
        film.show(frames=2 * RATE)
    assert told(film.events) == [
        ("appeared", 1, "Ana"),
        ("left", 1, "Ana"),
        ("appeared", 2, "Ana"),
        ("left", 2, "Ana"),
    ]


@pytest.mark.parametrize("box", [[0, 0, 0, 0], [5, 5, 5, 50]])
def test_a_box_without_area_is_followed_by_its_looks(box: list[float]) -> None:
    tracker = Tracker("film")
    face = KnownFace("Ana", 0.8, 0.5, box, [], 1.0)
    for frame in range(CONFIRMED):
        events = tracker.update(frame, frame / RATE, [face], ANA[None])
    assert told(events) == [("appeared", 1, "Ana")]
    assert events[0].margin is None


@given(
    st.lists(
        st.lists(
            st.tuples(st.sampled_from(["Ana", "Bo", None]), st.integers(0, 2), st.integers(0, 400)),
            max_size=4,
        ),
        max_size=40,
    )
)
def test_every_track_appears_once_first_and_leaves_once_last(film_of: list[list[tuple]]) -> None:
    film = Film()
    looks = (ANA, BO, CY)
    for faces in film_of:
        film.show(*((name, looks[look], left) for name, look, left in faces))
        numbers = [number for number, _ in film.tracker.now(film.frame - 1)]
        assert len(numbers) == len(set(numbers)) <= len(faces)
    events = film.events + film.end()
    tracks = sorted({event.track for event in events})
    assert tracks == list(range(1, len(tracks) + 1))
    for track in tracks:
        what = [event.event for event in events if event.track == track]
        assert (what[0], what[-1]) == ("appeared", "left")
        assert set(what[1:-1]) <= {"seen"}
