"""The gallery file, who is nearest, and the threshold that keeps strangers out."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from small_export import unit_rows

from facetpu.board.gallery import (
    UNKNOWN_PRINT,
    Gallery,
    empty_gallery,
    normalised,
    read_gallery,
    write_gallery,
)
from facetpu.board.softmax import train_softmax
from facetpu.board.threshold import (
    Cohort,
    gallery_threshold,
    genuine_scores,
    read_cohort,
    score_threshold,
    write_cohort,
)
from facetpu.errors import FacetpuError

ALIGNMENT = {"template": "arcface", "size": 112, "margin": 44}


def gallery_of(counts: dict[str, int], seed: int = 0, dim: int = 16) -> Gallery:
    """People whose photos lie around a direction of their own."""
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(len(counts)), list(counts.values())).astype(np.int32)
    centres = unit_rows(len(counts), dim, seed)
    embeddings = normalised(centres[person] + 0.1 * rng.normal(size=(len(person), dim)))
    photos = [f"{index:064x}" for index in range(len(person))]
    imprints = np.round(embeddings * 128) / np.float32(128)
    prints = [index << 200 for index in range(len(person))]
    return Gallery(
        list(counts), person, embeddings, imprints, photos, "b" * 64, dict(ALIGNMENT), 0.5, 0.01, prints
    )


def same(left: Gallery, right: Gallery) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


@settings(max_examples=20, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=8), st.integers(1, 4), min_size=1, max_size=5))
def test_a_gallery_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, counts: dict[str, int]
) -> None:
    path = tmp_path_factory.mktemp("gallery") / "gallery.npz"
    gallery = gallery_of(counts)
    write_gallery(path, gallery)
    assert same(read_gallery(path), gallery)
    first = path.read_bytes()
    write_gallery(path, gallery)
    assert path.read_bytes() == first


def test_only_its_owner_may_read_a_gallery(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        write_gallery(tmp_path / "gallery.npz", gallery_of({"Ana": 2}))
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "gallery.npz").stat().st_mode) == 0o600


@pytest.mark.parametrize("cut", [0, 1, 10, 100, 500, -1])
def test_a_gallery_cut_short_is_called_damaged(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "gallery.npz"
    write_gallery(path, gallery_of({"Ana": 2}))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(FacetpuError, match=r"is damaged.*enrol the people again"):
        read_gallery(path)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_flipped_byte_gives_the_gallery_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("gallery") / "gallery.npz"
    gallery = gallery_of({"Ana": 2, "Bea": 1})
    write_gallery(path, gallery)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(content))
    with contextlib.suppress(FacetpuError):
        assert same(read_gallery(path), gallery)


def test_a_gallery_of_a_later_version_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FacetpuError, match="no such file; enrol people"):
        read_gallery(tmp_path / "gallery.npz")
    np.savez(tmp_path / "later.npz", settings=np.array('{"version": 3}'), person=0, embeddings=0, imprints=0)
    with pytest.raises(FacetpuError, match="later facetpu"):
        read_gallery(tmp_path / "later.npz")
    np.savez(tmp_path / "other.npz", embeddings=np.zeros([2, 3], np.float32))
    with pytest.raises(FacetpuError, match="is damaged"):
        read_gallery(tmp_path / "other.npz")
    np.savez(tmp_path / "pickle.npz", settings=np.array({"version": 1}, object))
    with pytest.raises(FacetpuError, match="is damaged"):
        read_gallery(tmp_path / "pickle.npz")


@pytest.mark.parametrize(
    "change",
    [
        {"people": ["Ana", "Bea", "Cyd"]},
        {"photos": ["0" * 64]},
        {"prints": [0]},
        {"person": np.array([0, 0, 7], np.int32)},
        {"embeddings": np.full((3, 16), np.nan, np.float32)},
        {"embeddings": np.zeros((3, 16), np.float64)},
        {"imprints": np.zeros((3, 8), np.float32)},
    ],
)
def test_a_gallery_whose_parts_disagree_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    gallery = gallery_of({"Ana": 2, "Bea": 1})._replace(**change)
    if "embeddings" in change and change["embeddings"].dtype == np.float64:  # type: ignore[attr-defined]
        gallery = gallery._replace(embeddings=np.zeros(3, np.float32))
    write_gallery(tmp_path / "gallery.npz", gallery)
    with pytest.raises(FacetpuError, match="is damaged"):
        read_gallery(tmp_path / "gallery.npz")


def test_the_nearest_person_is_the_normalised_mean_of_their_photos() -> None:
    gallery = gallery_of({"Ana": 3, "Bea": 1, "Cyd": 2})
    vectors = gallery.vectors()
    for index in range(3):
        mean = gallery.embeddings[gallery.person == index].mean(axis=0)
        np.testing.assert_allclose(vectors[index], mean / np.linalg.norm(mean), atol=1e-6)
    cosines = gallery.embeddings @ vectors.T
    for match, row, person in zip(gallery.match(gallery.embeddings), cosines, gallery.person, strict=True):
        second = sorted(range(3), key=lambda index: -row[index])[1]
        assert match == (gallery.people[person], row.max(), gallery.people[second], row[second])
    assert gallery_of({"Ana": 1}).match(vectors[:1])[0][2:] == (None, None)


def test_forgetting_and_renaming_leave_the_others_as_they_were() -> None:
    gallery = gallery_of({"Ana": 3, "Bea": 1, "Cyd": 2})
    without = gallery.without("Bea")
    assert without.people == ["Ana", "Cyd"]
    assert without.person.tolist() == [0, 0, 0, 1, 1]
    assert np.array_equal(without.embeddings, gallery.embeddings[[0, 1, 2, 4, 5]])
    assert np.array_equal(without.imprints, gallery.imprints[[0, 1, 2, 4, 5]])
    assert without.photos == [*gallery.photos[:3], *gallery.photos[4:]]
    renamed = gallery.renamed("Bea", "Zoë")
    assert same(renamed._replace(people=gallery.people), gallery)
    assert renamed.people == ["Ana", "Zoë", "Cyd"]


def test_an_empty_gallery_accepts_nobody() -> None:
    empty = empty_gallery(16, "b" * 64, dict(ALIGNMENT))
    assert empty.vectors().shape == (0, 16)
    assert empty.threshold > 1


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=300),
    st.sampled_from([0.001, 0.01, 0.05, 0.5, 0.99]) | st.floats(0, 1, exclude_min=True, exclude_max=True),
)
@example([0.25, 0.5], 1 - 1e-15)
def test_no_more_strangers_pass_than_asked(scores: list[float], false_accepts: float) -> None:
    threshold = score_threshold(np.array(scores), false_accepts)
    passing = sum(score >= threshold for score in scores if score < 1)
    assert passing <= false_accepts * len(scores) + 1e-9
    assert -1 <= threshold <= 1


def test_the_threshold_lies_between_the_last_that_may_pass_and_the_next() -> None:
    scores = np.random.default_rng(0).permutation(np.arange(100) / 100)
    assert score_threshold(scores, 0.05) == pytest.approx(0.945)
    assert score_threshold(scores, 0.01) == pytest.approx(0.985)


def test_few_strangers_give_about_the_threshold_that_many_would() -> None:
    """The tail fitted to 40 scores is near the quantile of 100,000 of the same law."""
    rng = np.random.default_rng(0)
    law = rng.normal(size=(100_000, 20)).max(axis=1) * 0.1
    true = float(np.quantile(law, 0.999))
    fitted = [score_threshold(rng.choice(law, 40), 0.001) for _ in range(200)]
    assert 0 < np.mean(fitted) - true < 0.06  # it errs on the strict side
    assert np.std(fitted) < 0.06


def test_the_cohort_sets_the_threshold_and_enrolled_people_in_it_do_not_count() -> None:
    gallery = gallery_of({"Ana": 3, "Bea": 2})
    strangers = unit_rows(200, 16, seed=9)
    cohort = Cohort(strangers, np.arange(200, dtype=np.int32))
    found = gallery_threshold(gallery, cohort, 0.05, 0.3)
    best = (strangers @ gallery.vectors().T).max(axis=1)
    assert (best >= found.cosine).sum() == 10
    assert found.source == "5.00% of 200 strangers' faces reach it"

    # Ana is in the cohort too, with a photo she was enrolled with and another.
    other_photo = normalised(gallery.embeddings[:1] + 0.3 * unit_rows(1, 16, seed=4))
    with_ana = Cohort(
        np.vstack([strangers, gallery.embeddings[:1], other_photo]),
        np.append(np.arange(200), [200, 200]).astype(np.int32),
    )
    assert gallery_threshold(gallery, with_ana, 0.05, 0.3) == found


def test_without_a_cohort_the_threshold_is_the_models_for_pairs(caplog: pytest.LogCaptureFixture) -> None:
    gallery = gallery_of({"Ana": 3})
    few = Cohort(unit_rows(9, 16), np.arange(9, dtype=np.int32))
    with caplog.at_level("WARNING", "facetpu"):
        assert gallery_threshold(gallery, None, 0.01, 0.31).cosine == 0.31
        assert gallery_threshold(gallery, few, 0.01, 0.31).cosine == 0.31
    assert len(caplog.messages) == 2
    assert "--strangers" in caplog.text
    with pytest.raises(FacetpuError, match=r"no threshold: 0 faces of strangers, 10 needed.*--strangers"):
        gallery_threshold(gallery, None, 0.01, None)


def test_where_all_strangers_are_taken_for_the_enrolled_the_model_is_to_blame() -> None:
    gallery = gallery_of({"Ana": 3, "Bea": 2})
    cohort = Cohort(np.repeat(gallery.embeddings[:1], 50, axis=0), np.arange(50, dtype=np.int32))
    with pytest.raises(FacetpuError, match=r"takes 50 strangers for the 2 enrolled, .* export a better"):
        gallery_threshold(gallery, cohort, 0.01, None)
    with pytest.raises(FacetpuError, match=r"a softmax needs 10 .* takes 50 strangers for the 2 enrolled"):
        train_softmax(gallery, cohort)
    both = cohort._replace(people=cohort.people % 2)  # whoever is enrolled may be in the cohort
    with pytest.raises(FacetpuError, match="give photos of other people with --strangers"):
        gallery_threshold(gallery, both, 0.01, None)


def test_genuine_scores_leave_each_photo_out_of_its_own_person() -> None:
    gallery = gallery_of({"Ana": 3, "Bea": 1})
    scores = genuine_scores(gallery)
    others = gallery.embeddings[[1, 2]].mean(axis=0)
    assert scores[0] == pytest.approx(gallery.embeddings[0] @ others / np.linalg.norm(others), abs=1e-6)
    assert np.isnan(scores[3])


def test_a_cohort_is_read_as_it_was_written_and_a_damaged_one_named(tmp_path: Path) -> None:
    cohort = Cohort(unit_rows(5, 16), np.arange(5, dtype=np.int32))
    write_cohort(tmp_path / "cohort.npz", cohort)
    assert all(
        np.array_equal(a, b) for a, b in zip(read_cohort(tmp_path / "cohort.npz", 16), cohort, strict=True)
    )
    with pytest.raises(FacetpuError, match="another model"):
        read_cohort(tmp_path / "cohort.npz", 32)
    (tmp_path / "cohort.npz").write_bytes(b"PK")
    with pytest.raises(FacetpuError, match=r"cohort\.npz: is damaged"):
        read_cohort(tmp_path / "cohort.npz", 16)


def refusal(path: Path, gallery: Gallery) -> str | None:
    """What is said on reading ``path``; None where it gives ``gallery``."""
    try:
        read = read_gallery(path)
    except FacetpuError as error:
        return str(error)
    assert same(read, gallery)
    return None


@pytest.mark.parametrize("damage", ["cut", "flipped", "zeroed", "twice"])
def test_a_gallery_damaged_anywhere_is_refused_or_whole(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "gallery.npz"
    gallery = gallery_of({"Ana": 2, "Bea": 1})
    write_gallery(path, gallery)
    content = path.read_bytes()
    refused = 0
    for start in range(0, len(content), 41):
        stop = start + 41
        part = content[start:stop]
        replaced = {
            "cut": content[:start],
            "flipped": content[:start] + bytes(byte ^ 0x55 for byte in part) + content[stop:],
            "zeroed": content[:start] + bytes(len(part)) + content[stop:],
            "twice": content[:stop] + part + content[stop:],
        }[damage]
        path.write_bytes(replaced)
        message = refusal(path, gallery)
        refused += message is not None
        if message is not None:
            assert message.startswith(f"{path}: is damaged (")
            assert "\n" not in message
    assert refused > 0.5 * len(content) / 41


def test_a_gallery_of_version_1_is_read_and_written_anew(tmp_path: Path) -> None:
    """Version 1 held photos and settings as text, and no fingerprints."""
    gallery = gallery_of({"Ana": 2, "Bea": 1})
    settings = {"version": 1, "people": gallery.people, "photos": gallery.photos, "base": gallery.base}
    settings.update(alignment=ALIGNMENT, threshold=0.5, false_accepts=0.01)
    np.savez(
        tmp_path / "gallery.npz",
        settings=np.array(json.dumps(settings)),
        person=gallery.person,
        embeddings=gallery.embeddings,
        imprints=gallery.imprints,
    )
    read = read_gallery(tmp_path / "gallery.npz")
    assert same(read, gallery._replace(prints=[UNKNOWN_PRINT] * 3))
    write_gallery(tmp_path / "gallery.npz", read)
    assert same(read_gallery(tmp_path / "gallery.npz"), read)


def test_merged_people_have_both_their_photos() -> None:
    gallery = gallery_of({"Ana": 3, "Bea": 1, "Cyd": 2})
    for name, into, people, person in [
        ("Ana", "Cyd", ["Bea", "Cyd"], [1, 1, 1, 0, 1, 1]),
        ("Cyd", "Ana", ["Ana", "Bea"], [0, 0, 0, 1, 0, 0]),
    ]:
        merged = gallery.merged(name, into)
        assert (merged.people, merged.person.tolist()) == (people, person)
        assert same(merged._replace(people=gallery.people, person=gallery.person), gallery)


def test_a_part_of_a_gallery_joined_to_the_rest_is_the_whole_again() -> None:
    gallery = gallery_of({"Ana": 3, "Bea": 1, "Cyd": 2})
    part = gallery.only(np.array([3, 5]))
    assert (part.people, part.person.tolist()) == (["Bea", "Cyd"], [0, 1])
    assert part.photos == [gallery.photos[3], gallery.photos[5]]
    whole = gallery.only(np.array([0, 1, 2])).joined(gallery.only(np.array([3, 4, 5])))
    assert same(whole, gallery)
    more = gallery.joined(part._replace(people=["Cyd", "Dan"]))
    assert more.people == ["Ana", "Bea", "Cyd", "Dan"]
    assert more.person.tolist() == [0, 0, 0, 1, 2, 2, 2, 3]
