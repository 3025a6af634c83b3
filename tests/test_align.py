"""align from end to end, on people who do not exist."""

from __future__ import annotations

import csv
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from facetpu.artefacts import read_manifest
from facetpu.cli import main
from facetpu.errors import FacetpuError
from facetpu.image import align_face, read_image
from facetpu.mtcnn.detector import Detector, main_face
from facetpu.mtcnn.weights import write_networks
from facetpu.portraits import draw_people, render
from facetpu.stages.align import COLUMNS, AlignConfig, Alignment, _crop_stems, align

PEOPLE = draw_people(2, seed=3)
ANA, BEN = PEOPLE.values()


def portrait(person: object, number: int) -> np.ndarray:
    return render(person, np.random.default_rng(number), 160).image


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "JPEG", quality=93)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people and what else is found in folders of photos."""
    folder = tmp_path_factory.mktemp("align") / "photos"
    save(folder / "Ana" / "one.jpg", portrait(ANA, 1))
    save(folder / "Ana" / 'it\'s "two"\nlines.jpg', portrait(ANA, 2))
    save(folder / "Ana" / "summer 2019" / "three.jpeg", portrait(ANA, 3))
    save(folder / "Žofie 蔡" / "a.jpg", portrait(BEN, 1))
    save(folder / "Žofie 蔡" / "A.JPG", portrait(BEN, 2))
    save(folder / "Žofie 蔡" / "wall.jpg", np.full((90, 120, 3), 140, np.uint8))
    save(folder / "loose.jpg", np.concatenate([portrait(ANA, 4), portrait(BEN, 3)], axis=1))
    whole = (folder / "Ana" / "one.jpg").read_bytes()
    (folder / "Ana" / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "Ana" / "diary.jpg").write_text("Today I took no photo.\n" * 9)
    (folder / "Ana" / "empty.png").touch()
    (folder / "Ana" / "notes.txt").write_text("not looked at")
    (folder / "Ana" / ".hidden.jpg").write_text("not looked at either")
    return folder


@pytest.fixture(scope="module")
def crops(photos: Path) -> Path:
    out = photos.with_name("crops")
    result = align(photos, out, workers=2)
    assert result == Alignment(out, photos=10, aligned=6, no_face=1, unreadable=3, faces=6)
    assert str(result) == (
        f"{out}: 6 faces from 6 of 10 photos; 1 without a face and 3 unreadable, "
        f"listed in {out / 'manifest.json'}"
    )
    return out


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    folder = tmp_path_factory.mktemp("networks")
    write_networks(folder)
    return Detector(folder)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def rows(crops: Path) -> list[dict[str, str]]:
    with open(crops / "boxes.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


CROP_OF = {
    'Ana/it\'s "two"\nlines.jpg': 'Ana/it\'s "two"\nlines.png',
    "Ana/one.jpg": "Ana/one.png",
    "Ana/summer 2019/three.jpeg": "Ana/summer 2019/three.png",
    "loose.jpg": "loose.png",
    "Žofie 蔡/A.JPG": "Žofie 蔡/A.JPG.png",
    "Žofie 蔡/a.jpg": "Žofie 蔡/a.jpg.png",
}


def test_crops_stand_where_their_photos_stood(crops: Path) -> None:
    assert set(tree(crops)) == {*CROP_OF.values(), "boxes.csv", "manifest.json"}
    assert {read_image(crops / crop).shape for crop in CROP_OF.values()} == {(112, 112, 3)}


def test_boxes_and_landmarks_are_listed_in_order(crops: Path) -> None:
    header = (crops / "boxes.csv").read_text("utf-8").split("\n")[0]
    assert header == (
        "photo,x1,y1,x2,y2,score,left_eye_x,left_eye_y,right_eye_x,right_eye_y,nose_x,nose_y,"
        "mouth_left_x,mouth_left_y,mouth_right_x,mouth_right_y"
    )
    assert [row["photo"] for row in rows(crops)] == list(CROP_OF)


def test_a_crop_is_the_main_face_that_the_detector_finds(
    photos: Path, crops: Path, detector: Detector
) -> None:
    for row in rows(crops):
        image = read_image(photos / row["photo"])
        face = main_face(detector.detect(image), image.shape)
        values = [*face.box, face.score, *face.landmarks.ravel()]
        np.testing.assert_allclose([float(row[column]) for column in COLUMNS[1:]], values, atol=0.01)
        crop = read_image(crops / CROP_OF[row["photo"]])
        np.testing.assert_array_equal(align_face(image, face, "arcface", 112), crop)


def test_the_faces_are_where_they_were_drawn(crops: Path) -> None:
    truth = render(ANA, np.random.default_rng(1), 160).landmarks
    found = next(row for row in rows(crops) if row["photo"] == "Ana/one.jpg")
    landmarks = np.array([float(found[column]) for column in COLUMNS[6:]]).reshape(5, 2)
    eyes = np.linalg.norm(truth[1] - truth[0])
    assert np.linalg.norm(landmarks - truth, axis=1).max() < 0.35 * eyes  # 0.33 at most of 40 people


def test_the_manifest_counts_and_lists_with_reasons(crops: Path) -> None:
    manifest = read_manifest(crops)
    assert manifest["alignment"] == {"template": "arcface", "size": 112, "margin": 44}
    assert manifest["config"] == AlignConfig()._asdict()
    assert manifest["counts"] == {"photos": 10, "aligned": 6, "no_face": 1, "unreadable": 3, "faces": 6}
    assert manifest["no_face"] == ["Žofie 蔡/wall.jpg"]
    reasons = {entry["photo"]: entry["reason"] for entry in manifest["unreadable"]}
    assert list(reasons) == ["Ana/diary.jpg", "Ana/empty.png", "Ana/half.jpg"]
    assert "is no image" in reasons["Ana/diary.jpg"]
    assert reasons["Ana/empty.png"] == "is empty"
    assert "truncated" in reasons["Ana/half.jpg"]


def test_a_rerun_does_nothing_and_says_so(
    photos: Path, crops: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = {path: path.stat().st_mtime_ns for path in crops.rglob("*")}
    with caplog.at_level(logging.INFO, "facetpu"):
        assert align(photos, crops) == Alignment(crops, 10, 6, 1, 3, 6)
    assert "already made" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in crops.rglob("*")} == before


def test_other_settings_need_leave_to_overwrite(photos: Path, crops: Path, tmp_path: Path) -> None:
    copy = tmp_path / "crops"
    shutil.copytree(crops, copy)
    config = AlignConfig(size=96, template="box", margin=20, all_faces=True)
    with pytest.raises(FacetpuError, match="exists; choose another name, or pass --overwrite"):
        align(photos, copy, config)
    assert tree(copy) == tree(crops)
    result = align(photos, copy, config, workers=1, overwrite=True)
    assert result == Alignment(copy, photos=10, aligned=6, no_face=1, unreadable=3, faces=7)
    numbered = {crop[:-4] + "_1.png" for crop in CROP_OF.values()} | {"loose_2.png"}
    assert set(tree(copy)) == {*numbered, "boxes.csv", "manifest.json"}
    assert read_manifest(copy)["alignment"] == {"template": "box", "size": 96, "margin": 20}
    assert {read_image(copy / crop).shape for crop in numbered} == {(96, 96, 3)}
    both = [row for row in rows(copy) if row["photo"] == "loose.jpg"]
    assert len(both) == 2
    assert float(both[0]["score"]) >= float(both[1]["score"])


def test_the_number_of_workers_changes_no_byte(photos: Path, crops: Path, tmp_path: Path) -> None:
    align(photos, tmp_path / "crops", workers=1)
    assert tree(tmp_path / "crops") == tree(crops)


def test_the_command_prints_one_document(photos: Path, crops: Path) -> None:
    done = CliRunner().invoke(main, ["align", str(photos), str(crops), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {
        **{"photos": 10, "aligned": 6, "no_face": 1, "unreadable": 3, "faces": 6},
        "out": str(crops),
    }


def test_crops_of_photos_that_share_a_name_are_kept_apart() -> None:
    names = ["p/a.jpg", "p/a.png", "p/b.jpg", "q/a.jpg", "p/B.webp", "r/c.jpg", "r/c.png", "r/c.jpg.jpg"]
    assert _crop_stems(names) == {
        **{name: name for name in names},
        "q/a.jpg": "q/a",
    }


# Refusals and interruptions


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (["Ana", "ana"], "'Ana' and 'ana' look like one person"),
        (["Ana Silva", "Ana_Silva"], "look like one person"),
        (["two\nlines"], "holds a line break or control character; rename it"),
        (["Ana "], "has spaces around it; rename it"),
    ],
)
def test_unfit_names_of_people_are_refused(tmp_path: Path, folders: list[str], message: str) -> None:
    for folder in folders:
        save(tmp_path / "photos" / folder / "a.jpg", np.zeros((20, 20, 3), np.uint8))
    with pytest.raises(FacetpuError, match=message):
        align(tmp_path / "photos", tmp_path / "crops")
    assert os.listdir(tmp_path) == ["photos"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep such names out")
def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "photos" / "Ana" / "b\udcff.jpg", np.zeros((20, 20, 3), np.uint8))
    with pytest.raises(FacetpuError, match=r"'Ana/b\\udcff.jpg' is not UTF-8; rename it"):
        align(tmp_path / "photos", tmp_path / "crops")


def test_unfit_folders_are_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(FacetpuError, match="absent: no such folder"):
        align(tmp_path / "absent", tmp_path / "crops")
    with pytest.raises(FacetpuError, match=r"loose\.jpg: is a file, and a folder is needed"):
        align(photos / "loose.jpg", tmp_path / "crops")
    with pytest.raises(FacetpuError, match="holds no photo"):
        align(tmp_path, tmp_path / "crops")
    with pytest.raises(FacetpuError, match=r"lies in .*; choose a place outside"):
        align(photos, photos / "crops")
    with pytest.raises(FacetpuError, match="no/such: no such folder; create it first"):
        align(photos, tmp_path / "no/such/crops")
    assert list(tmp_path.iterdir()) == []


def test_no_face_at_all_is_a_result_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path / "photos" / "Wall" / "a.jpg", np.full((60, 60, 3), 99, np.uint8))
    with caplog.at_level(logging.WARNING, "facetpu"):
        result = align(tmp_path / "photos", tmp_path / "crops", workers=1)
    assert result == Alignment(tmp_path / "crops", photos=1, aligned=0, no_face=1, unreadable=0, faces=0)
    assert "no photo has a face" in caplog.text


@pytest.mark.skipif(os.name != "posix", reason="kills processes")
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    many = tmp_path / "photos"
    for number in range(6):
        shutil.copytree(photos, many / f"group {number:02d}")
    align(many, tmp_path / "undisturbed", workers=2)

    crops, partial = tmp_path / "crops", tmp_path / ".crops.partial"
    code = "import sys; from facetpu.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "align", str(many), str(crops), "--workers", "1"]
    run = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    journal = partial / ".journal"
    deadline = time.monotonic() + 120
    while not (journal.exists() and journal.stat().st_size):
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    run.kill()
    run.wait()
    assert not crops.exists()

    with open(journal, "ab") as file:
        file.write(b'{"photo": "group 05/Ana/one')  # as if it had been writing
    with caplog.at_level(logging.INFO, "facetpu"):
        align(many, crops, workers=2)
    assert "photos were done before" in caplog.text
    assert tree(crops) == tree(tmp_path / "undisturbed")
    assert sorted(os.listdir(tmp_path)) == ["crops", "photos", "undisturbed"]


def test_a_crop_lost_to_a_power_cut_is_made_again(photos: Path, crops: Path, tmp_path: Path) -> None:
    """Journal and crops of a complete run, but for one crop that the disk never received."""
    from facetpu.stages.align import _JOURNAL, _crop_stems, _photo_names, _read_journal

    shutil.copytree(crops, tmp_path / "partial")
    names = _photo_names(photos)
    faces = {row["photo"] for row in rows(crops)}
    lines = [json.dumps({"photo": name, "faces": [[0.0] * 15] if name in faces else []}) for name in names]
    (tmp_path / "partial" / _JOURNAL).write_text("\n".join(lines) + "\n")
    (tmp_path / "partial" / "Ana" / "one.png").write_bytes(b"")
    done = _read_journal(tmp_path / "partial", AlignConfig(), _crop_stems(names))
    assert set(names) - set(done) == {"Ana/one.jpg"}


@pytest.mark.data
def test_real_photos_are_aligned(data: Path, tmp_path: Path) -> None:
    for person in sorted((data / "lfw").iterdir())[:12]:
        shutil.copytree(person, tmp_path / "photos" / person.name)
    result = align(tmp_path / "photos", tmp_path / "crops", workers=2)
    assert result.aligned == result.photos >= 12
