"""Enrolling: which photos are taken, which refused and why, and what is told of it."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageFilter
from small_export import unit_rows, write_export
from test_gallery import gallery_of

from facetpu.board.checks import copies, likeness_faults, picture_faults
from facetpu.board.enrol import imprint
from facetpu.board.gallery import Gallery, normalised
from facetpu.board.threshold import Cohort
from facetpu.cli import main
from facetpu.errors import FacetpuError
from facetpu.image import ARCFACE_LANDMARKS, Face, read_image
from facetpu.portraits import write_people


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_export(tmp_path_factory.mktemp("export") / "model")


@pytest.fixture(scope="module")
def portraits(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four portraits of one rendered person."""
    return write_people(tmp_path_factory.mktemp("photos") / "people", 1, 4)


@pytest.fixture
def people(portraits: list[Path], tmp_path: Path) -> Path:
    """A folder with that person, to add to."""
    (tmp_path / "people" / "Ana").mkdir(parents=True)
    for photo in portraits:
        shutil.copy(photo, tmp_path / "people" / "Ana")
    return tmp_path / "people"


# --- The picture ---


def dark(image: Image.Image) -> Image.Image:
    return image.point(lambda level: level // 4)


def bright(image: Image.Image) -> Image.Image:
    return image.point(lambda level: min(255, int(level * 1.2) + 110))


def flat(image: Image.Image) -> Image.Image:
    return image.point(lambda level: 90 + level // 4)


def blurred(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(7))


def twice(image: Image.Image) -> Image.Image:
    both = Image.new("RGB", (400, 200))
    both.paste(image, (0, 0))
    both.paste(image, (200, 0))
    return both


def wall(image: Image.Image) -> Image.Image:
    return Image.new("RGB", image.size, "grey")


@pytest.mark.parametrize(
    ("spoil", "kind", "text"),
    [
        (dark, "dark", "is too dark; take it with more light"),
        (bright, "bright", "is too bright"),
        (flat, "flat", "has too little contrast"),
        (blurred, "blurred", "is blurred"),
        (twice, "several faces", "shows 2 faces of like size; cut it to one"),
        (wall, "no face", "shows no face"),
    ],
)
def test_a_spoilt_photo_is_refused_with_its_reason(
    model: Path,
    people: Path,
    portraits: list[Path],
    tmp_path: Path,
    spoil: Callable[[Image.Image], Image.Image],
    kind: str,
    text: str,
) -> None:
    spoil(Image.open(portraits[0])).save(people / "Ana" / "spoilt.png")
    (ana,) = imprint(model, people, tmp_path / "out").people
    refused = {remark.photo: remark for remark in ana.refused}
    assert kind in refused["Ana/spoilt.png"].kinds
    assert text in refused["Ana/spoilt.png"].text
    assert ana.added == ana.photos == len(portraits) + 1 - len(refused)


def face_of(side: float, landmarks: np.ndarray = ARCFACE_LANDMARKS) -> Face:
    return Face((0, 0, side, side * 1.3), 1.0, landmarks)


def test_small_and_turned_faces_are_refused_and_a_small_one_in_the_background_is_not() -> None:
    crop = np.random.default_rng(0).integers(60, 200, (112, 112, 3), np.uint8)
    assert picture_faults(face_of(100), [face_of(100), face_of(40)], crop) == []
    assert [fault.kind for fault in picture_faults(face_of(20), [face_of(20)], crop)] == ["tiny"]
    aside = ARCFACE_LANDMARKS.copy()
    aside[2, 0] += 20
    turned = face_of(100, aside)
    assert [fault.kind for fault in picture_faults(turned, [turned], crop)] == ["turned away"]


def test_a_copy_in_other_bytes_is_refused(model: Path, people: Path, tmp_path: Path) -> None:
    original = people / "Ana" / "001.jpg"
    Image.open(original).save(people / "Ana" / "copy.png")
    Image.open(original).resize((320, 320), Image.BICUBIC).save(people / "Ana" / "larger.jpg", quality=70)
    (ana,) = imprint(model, people, tmp_path / "out", accept_all=True).people
    copied = {r.photo: r.text for r in ana.remarks if "copy" in r.kinds}
    assert copied["Ana/copy.png"] == "is the same picture as Ana/001.jpg"
    assert copied["Ana/larger.jpg"] == "is the same picture as Ana/001.jpg"

    more = tmp_path / "more" / "Bo"
    more.mkdir(parents=True)
    Image.open(original).save(more / "mine.png", compress_level=1)
    with pytest.raises(
        FacetpuError, match=r"same picture as one enrolled before of Ana; whose is it\?; --accept"
    ):
        imprint(tmp_path / "out", more.parent, tmp_path / "again")


def test_copies_are_found_among_old_and_new_and_unknown_prints_match_nothing() -> None:
    rng = np.random.default_rng(0)
    prints = [int.from_bytes(rng.bytes(32), "big") for _ in range(4)]
    near = prints[1] ^ (2**30 - 1)
    assert copies([prints[2], near, prints[2], 0, 0], [prints[0], prints[1], 0]).tolist() == [
        -1, 1, 3, -1, -1,
    ]  # fmt: skip
    assert copies([], prints).tolist() == copies([], []).tolist() == []
    assert copies([prints[0]], []).tolist() == [-1]


# --- The likeness ---


def with_photo(gallery: Gallery, name: str, embedding: np.ndarray) -> Gallery:
    """The gallery with a photo of ``name`` more, the last."""
    one = gallery.only(np.array([0]))
    return gallery.joined(
        one._replace(people=[name], embeddings=normalised(embedding)[None], photos=["f" * 64])
    )


def judged(gallery: Gallery, threshold: float = 0.7) -> list[tuple[str, str]]:
    cohort = Cohort(unit_rows(500, 16, seed=9), np.arange(500, dtype=np.int32))
    faults = likeness_faults(gallery, np.arange(len(gallery.photos)), threshold, cohort)
    last = len(gallery.photos) - 1
    assert set(faults) <= {last}
    return [tuple(faults[last])] if faults else []


def test_photos_that_go_together_are_taken() -> None:
    assert judged(gallery_of({"Ana": 5, "Bea": 5, "Cyd": 1})) == []


def test_a_face_of_someone_else_enrolled_is_told() -> None:
    gallery = gallery_of({"Ana": 5, "Bea": 5})
    ((kind, text),) = judged(with_photo(gallery, "Ana", gallery.vectors()[1]))
    assert kind == "someone else"
    assert text == "looks like Bea (cosine 1.00); whose is it?"
    ((kind, text),) = judged(with_photo(gallery, "New", gallery.embeddings[6]))
    assert kind == "someone else"
    assert text.startswith("looks like Bea (cosine 0.9")


def test_a_face_of_a_stranger_among_the_others_is_told() -> None:
    gallery = gallery_of({"Ana": 5, "Bea": 5})
    ((kind, text),) = judged(with_photo(gallery, "Ana", unit_rows(1, 16, seed=3)[0]))
    assert kind == "outlier"
    assert text.startswith("is unlike the others of Ana (cosine ")


def test_a_model_that_recognises_nobody_judges_nobody() -> None:
    rng = np.random.default_rng(0)
    gallery = gallery_of({"Ana": 5, "Bea": 5})
    gallery = gallery._replace(embeddings=unit_rows(10, 16, seed=int(rng.integers(99))))
    assert judged(gallery) == []
    assert likeness_faults(gallery, np.arange(0), 0.7, None) == {}


def test_a_model_that_takes_all_for_one_person_judges_nobody() -> None:
    rows = unit_rows(510, 16, seed=4)
    rows = normalised(rows[0] + 0.1 * rows)
    gallery = gallery_of({"Ana": 5, "Bea": 5})._replace(embeddings=rows[:10])
    threshold = float((rows[:10] @ rows[:10].T).min())  # as that of pairs, which tells none of them apart
    strangers = Cohort(rows[10:], np.arange(500, dtype=np.int32))
    assert likeness_faults(gallery, np.arange(10), threshold, strangers) == {}


# --- What is told ---


def test_accept_all_takes_what_shows_a_face_and_says_what_speaks_against_it(
    model: Path, people: Path, portraits: list[Path], tmp_path: Path
) -> None:
    blurred(Image.open(portraits[0])).save(people / "Ana" / "soft.png")
    wall(Image.open(portraits[0])).save(people / "Ana" / "wall.png")
    result = imprint(model, people, tmp_path / "out", accept_all=True)
    (ana,) = result.people
    assert (ana.photos, ana.added) == (5, 5)
    assert [(remark.photo, remark.kinds) for remark in ana.refused] == [("Ana/wall.png", ["no face"])]
    assert "blurred" in {remark.photo: remark.kinds for remark in ana.remarks}["Ana/soft.png"]
    assert "  refused Ana/wall.png: shows no face" in str(result)
    assert "is blurred; hold still" in str(result)


def test_where_nothing_good_is_left_the_way_out_is_told(
    model: Path, people: Path, portraits: list[Path], tmp_path: Path
) -> None:
    (people / "Bo").mkdir()
    dark(Image.open(portraits[0])).save(people / "Bo" / "night.png")
    with pytest.raises(FacetpuError) as refusal:
        imprint(model, people, tmp_path / "out")
    assert "no photo of Bo can be used: Bo/night.png is too dark" in str(refusal.value)
    assert str(refusal.value).endswith("; --accept-all takes them")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["people"]


def test_the_report_shows_every_photo_to_its_owner_alone(
    model: Path, people: Path, portraits: list[Path], tmp_path: Path
) -> None:
    wall(Image.open(portraits[0])).save(people / "Ana" / "wall.png")
    (people / "Ana" / "text.jpg").write_text("no photo")
    sheet = tmp_path / "sheet.png"
    command = ["imprint", str(model), str(people), str(tmp_path / "out"), "--report", str(sheet), "--json"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    refused = {remark["photo"]: remark["kinds"] for remark in json.loads(done.stdout)["people"][0]["refused"]}
    assert (refused["Ana/text.jpg"], refused["Ana/wall.png"]) == (["unreadable"], ["no face"])
    assert stat.S_IMODE(sheet.stat().st_mode) == 0o600
    assert read_image(sheet).shape[1] > 900
    with pytest.raises(FacetpuError, match="exists"):
        imprint(model, people, tmp_path / "out2", report=sheet)
    assert not (tmp_path / "out2").exists()


# --- Kept photos and a new base ---


def test_photos_are_kept_only_where_asked_and_go_with_their_person(
    model: Path, people: Path, portraits: list[Path], tmp_path: Path
) -> None:
    imprint(model, people, tmp_path / "plain")
    assert not (tmp_path / "plain" / "photos").exists()
    (people / "Bo").mkdir()
    for photo in write_people(tmp_path / "other", 1, 2, seed=7):
        shutil.copy(photo, people / "Bo")
    result = imprint(model, people, tmp_path / "out", keep_photos=True, accept_all=True)
    kept = sorted((tmp_path / "out" / "photos").iterdir())
    assert result.kept_photos == len(kept) == 6
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept} == {0o600}
    assert stat.S_IMODE((tmp_path / "out" / "photos").stat().st_mode) == 0o700
    assert {path.read_bytes() for path in kept} == {path.read_bytes() for path in people.glob("*/*")}

    bos = {path.read_bytes() for path in (people / "Bo").iterdir()}
    done = CliRunner().invoke(main, ["people", str(tmp_path / "out"), "remove", "Bo"])
    assert done.exit_code == 0, done.output
    left = {path.read_bytes() for path in (tmp_path / "out" / "photos").iterdir()}
    assert len(left) == 4
    assert not left & bos


def test_a_new_base_enrols_everybody_again_from_kept_photos(
    model: Path, people: Path, tmp_path: Path
) -> None:
    newer = write_export(tmp_path / "newer", seed=1)
    imprint(model, people, tmp_path / "old", keep_photos=True, accept_all=True)
    result = imprint(newer, tmp_path / "old", tmp_path / "new", accept_all=True)
    assert [(person.name, person.photos) for person in result.people] == [("Ana", 4)]
    assert result.kept_photos == 4  # carried over, since they were kept before
    imprint(newer, people, tmp_path / "fresh", accept_all=True)
    assert (tmp_path / "new" / "model.tflite").stat().st_size > 0
    new, fresh = (sorted((tmp_path / name / "labels.txt").read_text()) for name in ("new", "fresh"))
    assert new == fresh


def test_whose_photos_are_missing_for_a_new_base_is_said(model: Path, people: Path, tmp_path: Path) -> None:
    newer = write_export(tmp_path / "newer", seed=1)
    imprint(model, people, tmp_path / "old", accept_all=True)
    with pytest.raises(FacetpuError, match="keeps no photos of Ana; enrol them first from a folder"):
        imprint(newer, tmp_path / "old", tmp_path / "new")
    # With her enrolled anew there is nothing missing any more.
    imprint(newer, people, tmp_path / "step", accept_all=True)
    result = imprint(tmp_path / "step", tmp_path / "old", tmp_path / "new")
    assert [person.name for person in result.people] == ["Ana"]


def test_an_imprinted_folder_of_the_same_base_is_taken_over_as_it_is(
    model: Path, people: Path, tmp_path: Path
) -> None:
    imprint(model, people, tmp_path / "old", accept_all=True)
    imprint(model, tmp_path / "old", tmp_path / "new")
    for name in ("model.tflite", "labels.txt", "gallery.npz"):
        assert (tmp_path / "new" / name).read_bytes() == (tmp_path / "old" / name).read_bytes(), name
