"""Rendered people: the same for the same seed, found by the detector, and true to their landmarks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facetpu.labels import check_distinct, check_name
from facetpu.mtcnn.detector import Detector
from facetpu.mtcnn.weights import write_networks
from facetpu.people import people_under
from facetpu.portraits import Person, Portrait, draw_people, render, write_people, write_portraits


def portrait(person: int, photo: int = 0, size: int = 200) -> Portrait:
    return render(Person.draw(person), np.random.default_rng(photo), size)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*.jpg"))}


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    common = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
    return float(common / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - common))


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    folder = tmp_path_factory.mktemp("detector")
    write_networks(folder)
    return Detector(folder)


def test_equal_seeds_give_equal_portraits() -> None:
    first, second = portrait(3, photo=5), portrait(3, photo=5)
    assert np.array_equal(first.image, second.image)
    assert first.box == second.box
    assert np.array_equal(first.landmarks, second.landmarks)


def test_another_photo_and_another_person_look_different() -> None:
    image = portrait(3, photo=5).image.astype(float)
    assert np.abs(image - portrait(3, photo=6).image).mean() > 5
    assert np.abs(image - portrait(4, photo=5).image).mean() > 5


def test_rendering_leaves_the_global_generator_alone() -> None:
    np.random.seed(1)
    expected = np.random.random()
    np.random.seed(1)
    portrait(0)
    assert np.random.random() == expected


@pytest.mark.parametrize("size", [64, 131, 200, 320])
def test_a_portrait_has_the_size_asked_for(size: int) -> None:
    image, box, landmarks = portrait(8, size=size)
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8
    assert 0 < box[0] < box[2] < size
    assert box[1] < box[3] < size
    assert landmarks.shape == (5, 2)


def test_landmarks_are_ordered_as_seen_and_lie_in_the_box() -> None:
    for person in range(40):
        _, (x1, y1, x2, y2), landmarks = portrait(person, photo=person)
        left_eye, right_eye, nose, left_mouth, right_mouth = landmarks
        assert left_eye[0] < right_eye[0]
        assert left_mouth[0] < right_mouth[0]
        assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])
        assert (landmarks > (x1, y1)).all()
        assert (landmarks < (x2, y2)).all()


def test_faces_are_not_clipped() -> None:
    """Light skin in strong light keeps its colour, dark skin in weak light its shape."""
    for person in range(30):
        image, (x1, y1, x2, y2), _ = portrait(person, photo=person)
        face = image[int(y1) : int(y2), int(x1) : int(x2)]
        assert (face.min(axis=2) >= 254).mean() < 0.01
        assert (face.max(axis=2) <= 2).mean() < 0.05


def test_the_detector_finds_one_face_where_it_is(detector: Detector) -> None:
    misses, distances = 0, []
    for person in range(50):
        image, box, landmarks = portrait(1000 + person, photo=person)
        faces = detector.detect(image)
        if len(faces) != 1 or overlap(np.array(box), np.array(faces[0].box)) < 0.5:
            misses += 1
            continue
        eyes = np.hypot(*(landmarks[1] - landmarks[0]))
        distances.append(np.hypot(*(faces[0].landmarks - landmarks).T) / eyes)
    assert misses <= 1
    assert (np.mean(distances, axis=0) < 0.09).all()


def test_people_have_fit_names_of_their_own() -> None:
    people = draw_people(700, seed=3)
    assert len(people) == 700
    check_distinct(people, "names")
    assert [check_name(name, "names") for name in people] == list(people)
    assert len({person.seed for person in people.values()}) == 700


def test_more_people_begin_with_the_same_people() -> None:
    few, many = draw_people(5, seed=1), draw_people(500, seed=1)
    assert list(few) == list(many)[:5]
    assert [person.seed for person in few.values()] == [person.seed for person in many.values()][:5]
    assert list(few) != list(draw_people(5, seed=2))


def test_people_are_written_as_the_other_stages_take_them(tmp_path: Path) -> None:
    written = write_people(tmp_path / "a", people=3, photos_each=2, seed=7, size=96)
    people = people_under(tmp_path / "a")
    assert sorted(people) == sorted(draw_people(3, seed=7))
    assert sorted(written) == sorted(photo for photos in people.values() for photo in photos)
    write_people(tmp_path / "b", people=3, photos_each=2, seed=7, size=96)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_portrait_depends_neither_on_its_company_nor_on_the_workers(tmp_path: Path) -> None:
    people = draw_people(6, seed=7)
    write_portraits(tmp_path / "all", people, range(20), seed=7, size=64, workers=2)
    last = dict(list(people.items())[-1:])
    write_portraits(tmp_path / "one", last, range(18, 20), seed=7, size=64)
    everybody, one = contents(tmp_path / "all"), contents(tmp_path / "one")
    assert len(one) == 2
    assert one.items() <= everybody.items()
