"""align from end to end, on people who do not exist."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageFilter
from test_image import STORED

from facetpu.alignment import shards
from facetpu.alignment.crop_tables import COLUMNS
from facetpu.alignment.journal import Entry, Journal
from facetpu.alignment.review import Sample
from facetpu.alignment.shards import Shard
from facetpu.artefacts import files_under, read_manifest
from facetpu.cli import main
from facetpu.errors import FacetpuError
from facetpu.image import align_face, read_image
from facetpu.mtcnn.detector import Detector, main_face
from facetpu.mtcnn.weights import write_networks
from facetpu.portraits import draw_people, render
from facetpu.stages import align as stage
from facetpu.stages.align import AlignConfig, Alignment, align
from facetpu.workers import AHEAD

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


TABLES = ("boxes.csv", "flags.csv", "manifest.json")
CROP_OF = {
    'Ana/it\'s "two"\nlines.jpg': 'Ana/it\'s "two"\nlines.png',
    "Ana/one.jpg": "Ana/one.png",
    "Ana/summer 2019/three.jpeg": "Ana/summer 2019/three.png",
    "loose.jpg": "loose.png",
    "Žofie 蔡/A.JPG": "Žofie 蔡/A.JPG.png",
    "Žofie 蔡/a.jpg": "Žofie 蔡/a.jpg.png",
}


def test_crops_stand_where_their_photos_stood(crops: Path) -> None:
    assert set(tree(crops)) == {*CROP_OF.values(), *TABLES}
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
    assert set(tree(copy)) == {*numbered, *TABLES}
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


def test_crops_of_photos_that_share_a_name_are_kept_apart(tmp_path: Path) -> None:
    names = ["p/a.jpg", "p/a.png", "p/b.jpg", "q/a.jpg", "p/B.webp", "r/c.jpg", "r/c.png", "r/c.jpg.jpg"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with Journal.of(tmp_path) as journal:
        stems = {entry.photo: entry.stem for entry in journal.left()}
    assert stems == {
        **{name: name for name in names},
        "q/a.jpg": "q/a",
    }


# Which face, and in which form


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo with a large face left, a middling one in the middle and a small one right."""
    folder = tmp_path_factory.mktemp("trio") / "photos"
    page = np.full((260, 620, 3), 200, np.uint8)
    for left, side, person in ((0, 250, ANA), (250, 120, BEN), (480, 90, ANA)):
        top = (260 - side) // 2
        page[top : top + side, left : left + side] = render(person, np.random.default_rng(1), side).image
    save(folder / "trio.png", page)
    return folder


@pytest.mark.parametrize("rule", ["main", "largest", "central", "best"])
def test_the_face_asked_for_is_cropped(trio: Path, tmp_path: Path, detector: Detector, rule: str) -> None:
    faces = detector.detect(read_image(trio / "trio.png"))
    assert len(faces) == 3
    left, middle = sorted(faces, key=lambda face: face.box[0])[:2]
    wanted = {"main": middle, "largest": left, "central": middle, "best": faces[0]}[rule]
    align(trio, tmp_path / "crops", AlignConfig(face=rule), workers=1)
    (row,) = rows(tmp_path / "crops")
    np.testing.assert_allclose([float(row[side]) for side in COLUMNS[1:5]], wanted.box, atol=0.01)


def test_jpeg_crops_are_small_and_close_to_the_png_ones(photos: Path, crops: Path, tmp_path: Path) -> None:
    align(photos, tmp_path / "crops", AlignConfig(format="jpeg"), workers=1)
    assert set(tree(tmp_path / "crops")) == {*(c[:-4] + ".jpg" for c in CROP_OF.values()), *TABLES}
    for crop in CROP_OF.values():
        jpeg = tmp_path / "crops" / f"{crop[:-4]}.jpg"
        with Image.open(jpeg) as image:
            assert (image.format, image.layer[1][1:3]) == ("JPEG", (1, 1))  # full colour: 4:4:4
        assert np.abs(read_image(jpeg).astype(int) - read_image(crops / crop)).mean() < 2
        assert jpeg.stat().st_size < (crops / crop).stat().st_size / 2
    assert (tmp_path / "crops" / "boxes.csv").read_bytes() == (crops / "boxes.csv").read_bytes()


def test_margin_widens_the_box(photos: Path, tmp_path: Path, detector: Detector) -> None:
    config = AlignConfig(template="box", margin=30, size=80)
    shutil.copytree(photos / "Ana" / "summer 2019", tmp_path / "photos" / "Ana")
    align(tmp_path / "photos", tmp_path / "crops", config, workers=1)
    image = read_image(tmp_path / "photos/Ana/three.jpeg")
    (face,) = detector.detect(image)
    expected = align_face(image, face, "box", 80, 30)
    np.testing.assert_array_equal(read_image(tmp_path / "crops/Ana/three.png"), expected)


# What is said of the crops


def flags(crops: Path) -> dict[str, dict[str, str]]:
    with open(crops / "flags.csv", encoding="utf-8", newline="") as file:
        return {row["crop"]: row for row in csv.DictReader(file)}


def test_flags_say_what_is_doubtful_and_what_is_a_copy(tmp_path: Path) -> None:
    good = portrait(BEN, 1)
    small = np.asarray(Image.fromarray(portrait(BEN, 1)).resize((60, 60), Image.Resampling.BOX))
    save(tmp_path / "photos/Ana/a good.jpg", good)
    Image.fromarray(good).save(tmp_path / "photos/Ana/saved again.jpg", quality=75)
    save(tmp_path / "photos/Ben/brighter.jpg", np.minimum(good * 1.15, 255).astype(np.uint8))
    save(
        tmp_path / "photos/Ben/blurred.jpg",
        np.asarray(Image.fromarray(portrait(BEN, 2)).filter(ImageFilter.GaussianBlur(4))),
    )
    save(tmp_path / "photos/Ben/dark.jpg", portrait(BEN, 3) // 7)
    save(tmp_path / "photos/Ben/two.jpg", np.concatenate([portrait(ANA, 4), portrait(BEN, 4)], axis=1))
    save(tmp_path / "photos/Ben/tiny.jpg", np.pad(small, ((20, 20), (20, 20), (0, 0)), mode="edge"))
    align(tmp_path / "photos", tmp_path / "crops", workers=2)
    table = flags(tmp_path / "crops")
    assert {crop: row["duplicate_of"] for crop, row in table.items() if row["duplicate_of"]} == {
        "Ana/saved again.png": "Ana/a good.png",
        "Ben/brighter.png": "Ana/a good.png",
    }
    words = {crop: set(row["flags"].split()) for crop, row in table.items()}
    assert words["Ana/a good.png"] == set()
    assert words["Ana/saved again.png"] == words["Ben/brighter.png"] == {"duplicate"}
    assert "blurred" in words["Ben/blurred.png"]
    assert "dark" in words["Ben/dark.png"]
    assert "several" in words["Ben/two.png"]
    assert table["Ben/two.png"]["faces"] == "2"
    assert "tiny" in words["Ben/tiny.png"]


def test_flags_do_not_depend_on_the_form_of_the_crops(photos: Path, crops: Path, tmp_path: Path) -> None:
    align(photos, tmp_path / "crops", AlignConfig(size=64, template="box"), workers=1)
    assert (tmp_path / "crops/flags.csv").read_text("utf-8") == (crops / "flags.csv").read_text("utf-8")


def test_the_review_shows_crops_misses_and_doubts(photos: Path, crops: Path, tmp_path: Path) -> None:
    shutil.copytree(crops, tmp_path / "crops")
    done = CliRunner().invoke(main, ["align", str(photos), str(tmp_path / "crops"), "--review"])
    assert done.exit_code == 0
    page = (tmp_path / "crops" / "review.html").read_text("utf-8")
    assert set(tree(tmp_path / "crops")) == {*tree(crops), "review.html"}
    for text in ("wall.jpg", "diary.jpg", "is empty", "Photos without a face", "several: another face"):
        assert text in page
    assert page.count("data:image/jpeg") >= 8  # six crops, a miss and a doubt
    align(photos, tmp_path / "crops", review=True)
    assert (tmp_path / "crops" / "review.html").read_text("utf-8") == page


def test_the_review_of_very_many_shows_an_even_sample() -> None:
    sample: Sample[int] = Sample(10)
    for number in range(100_000):
        sample.add(number)
    chosen = list(sample)
    assert (sample.seen, len(chosen), chosen[0]) == (100_000, 10, 0)
    assert all(4_000 < step < 16_000 for step in np.diff(chosen))
    few: Sample[int] = Sample(10)
    for number in range(3):
        few.add(number)
    assert list(few) == [0, 1, 2]
    assert list(Sample(10)) == []


# Hard files: each is aligned, or listed with its reason


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def hard_files() -> dict[str, bytes]:
    """What folders of photos hold, by name; names that start with ``good`` show Ana."""
    pixels = portrait(ANA, 1)
    image = Image.fromarray(pixels)
    grey = image.convert("L")
    jpeg = encoded(image, "JPEG", quality=93)
    flipped = bytearray(jpeg)
    for place in range(700, len(flipped) - 2, len(flipped) // 23):
        flipped[place] ^= 0x55
    files = {
        "empty.jpg": b"",
        "text.jpg": b"Today I took no photo.\n" * 40,
        "header.jpg": jpeg[:20],
        "half.jpg": jpeg[: len(jpeg) // 2],
        "half.png": encoded(image, "PNG")[:20_000],
        "flipped.jpg": bytes(flipped),
        "flipped.png": encoded(image, "PNG").replace(b"IDAT", b"IDAU", 1),
        "1x1.png": encoded(Image.new("RGB", (1, 1)), "PNG"),
        "11x11.png": encoded(Image.new("RGB", (11, 11)), "PNG"),
        "1x5000.png": encoded(Image.new("RGB", (1, 5000)), "PNG"),
        "5000x1.png": encoded(Image.new("RGB", (5000, 1)), "PNG"),
        "good.jpg": jpeg,
        "good grey.jpg": encoded(grey, "JPEG"),
        "good 16 bit.png": encoded(Image.fromarray(np.asarray(grey).astype(np.uint16) * 257), "PNG"),
        "good RGBA.png": encoded(image.convert("RGBA"), "PNG"),
        "good LA.png": encoded(grey.convert("LA"), "PNG"),
        "good palette.png": encoded(image.convert("P", palette=Image.Palette.ADAPTIVE), "PNG"),
        "good.gif": encoded(image.convert("P", palette=Image.Palette.ADAPTIVE), "GIF"),
        "good CMYK.jpg": encoded(image.convert("CMYK"), "JPEG", quality=93),
        "good WebP.jpg": encoded(image, "WEBP", quality=95),
        "good.tif": encoded(image, "TIFF"),
        "good.jp2": encoded(image, "JPEG2000"),
    }
    for orientation, stored in STORED.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        turned = Image.fromarray(np.ascontiguousarray(stored(pixels)))
        files[f"good EXIF {orientation}.jpg"] = encoded(turned, "JPEG", exif=exif, quality=93)
    return files


def test_hard_files_are_aligned_or_listed_with_their_reason(crops: Path, tmp_path: Path) -> None:
    files = hard_files()
    (tmp_path / "photos" / "Ana").mkdir(parents=True)
    for name, data in files.items():
        (tmp_path / "photos" / "Ana" / name).write_bytes(data)
    align(tmp_path / "photos", tmp_path / "crops", workers=2)
    manifest = read_manifest(tmp_path / "crops")
    reasons = {entry["photo"].split("/")[1]: entry["reason"] for entry in manifest["unreadable"]}
    assert {name: reasons[name][:12] for name in sorted(reasons)} == {
        "empty.jpg": "is empty",
        "flipped.png": "is no image ",
        "half.jpg": "cannot be de",
        "half.png": "cannot be de",
        "header.jpg": "is no image ",
        "text.jpg": "is no image ",
    }
    small = ("1x1.png", "11x11.png", "1x5000.png", "5000x1.png")
    assert set(manifest["no_face"]) >= {f"Ana/{name}" for name in small}
    found = {row["photo"].split("/")[1]: row for row in rows(tmp_path / "crops")}
    good = {name for name in files if name.startswith("good")}
    assert {*found, *reasons, *(photo.split("/")[1] for photo in manifest["no_face"])} == set(files)
    assert good <= set(found)
    true_box = [float(rows(crops)[1][side]) for side in COLUMNS[1:5]]  # of Ana/one.jpg
    for name in good:
        box = [float(found[name][side]) for side in COLUMNS[1:5]]
        np.testing.assert_allclose(box, true_box, atol=8, err_msg=name)  # no colours move it a little


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


COMMAND = [sys.executable, "-c", "import sys; from facetpu.cli import main; main(sys.argv[1:])", "align"]


def running(photos: Path, crops: Path) -> subprocess.Popen:
    command = [*COMMAND, str(photos), str(crops), "--workers", "2", "--quiet"]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})


def workers_of(run: subprocess.Popen) -> list[int]:
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def written(folder: Path) -> dict[Path, int]:
    """When each crop below ``folder`` was written."""
    return {path: path.stat().st_mtime_ns for path in files_under(folder) if path.suffix == ".png"}


def wait_for_crops(run: subprocess.Popen, partial: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while len(written(partial)) < count:
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
def test_a_run_killed_again_and_again_ends_with_the_same_bytes(photos: Path, tmp_path: Path) -> None:
    many = tmp_path / "photos"
    for number in range(24):
        shutil.copytree(photos, many / f"group {number:02d}")
    align(many, tmp_path / "undisturbed", workers=2)
    total = len(written(tmp_path / "undisturbed"))

    crops, partial = tmp_path / "crops", tmp_path / ".crops.partial"
    rng = random.Random(os.getpid())  # other moments every time
    before: dict[Path, int] = {}
    for share in (0.1, 0.4):
        run = running(many, crops)
        wait_for_crops(run, partial, round(share * total))
        for worker in workers_of(run)[: rng.randrange(2)]:
            os.kill(worker, signal.SIGKILL)
        time.sleep(rng.uniform(0, 0.1))
        run.kill()
        run.wait()
        assert not crops.exists()
        after = written(partial)
        again = [path for path, time in before.items() if after[path] != time]
        assert len(again) <= 2 * AHEAD  # what two workers had in hand
        before = after
    run = running(many, crops)
    wait_for_crops(run, partial, len(before) + 2)
    os.kill(workers_of(run)[0], signal.SIGKILL)  # the run itself outlives this
    assert run.wait(120) == 0
    assert tree(crops) == tree(tmp_path / "undisturbed")
    assert sorted(os.listdir(tmp_path)) == ["crops", "photos", "undisturbed"]


def kill_itself_at_bombs(entry: Entry) -> tuple[str, dict[str, Any]]:
    """A stand-in for a decoder that some photos crash."""
    if "bomb" in entry.photo:
        crop = stage._job.out / f"{entry.stem}.png"
        crop.parent.mkdir(exist_ok=True)
        crop.write_bytes(b"what it wrote before it died")
        os.kill(os.getpid(), signal.SIGSEGV)
    return stage._align_photo(entry)


@pytest.mark.skipif(os.name != "posix", reason="processes die otherwise elsewhere")
def test_photos_that_crash_their_reader_are_listed_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("Ana/a", "Ana/bomb", "Ana/c", "Ben/bomb", "Ben/wall"):
        image = portrait(ANA, 5) if "wall" not in name else np.full((50, 50, 3), 99, np.uint8)
        save(tmp_path / "photos" / f"{name}.jpg", image)
    monkeypatch.setattr(stage, "_align_photo", kill_itself_at_bombs)
    result = align(tmp_path / "photos", tmp_path / "crops", workers=2)
    assert result == Alignment(tmp_path / "crops", photos=5, aligned=2, no_face=1, unreadable=2, faces=2)
    reason = "crashed the process that read it, which died of SIGSEGV"
    assert read_manifest(tmp_path / "crops")["unreadable"] == [
        {"photo": "Ana/bomb.jpg", "reason": reason},
        {"photo": "Ben/bomb.jpg", "reason": reason},
    ]
    assert set(tree(tmp_path / "crops")) == {"Ana/a.png", "Ana/c.png", *TABLES}
    assert f"{tmp_path}/photos/Ana/bomb.jpg: {reason}" in caplog.text


def test_a_crop_lost_to_a_power_cut_is_made_again(photos: Path, crops: Path, tmp_path: Path) -> None:
    """The journal of a complete run, and its crops but for one that the disk never received."""
    out = tmp_path / "crops"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "_write_results", interrupt)
        with pytest.raises(KeyboardInterrupt):
            align(photos, out, workers=2)
    partial = tmp_path / ".crops.partial"
    (partial / "Ana" / "one.png").write_bytes(b"")
    before = written(partial)
    align(photos, out, workers=1)
    after = {partial / path.relative_to(out): time for path, time in written(out).items()}
    assert {path.name for path in before if after[path] != before[path]} == {"one.png"}
    assert tree(out) == tree(crops)


def interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def test_a_damaged_journal_is_named(photos: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "_write_results", interrupt)
        with pytest.raises(KeyboardInterrupt):
            align(photos, tmp_path / "crops", workers=1)
    (tmp_path / ".crops.partial" / ".journal").write_bytes(b"not a journal at all" * 100)
    with pytest.raises(FacetpuError, match=r"\.crops\.partial/\.journal: is damaged \(.*; delete its folder"):
        align(photos, tmp_path / "crops")


# Shards


def test_shards_gathered_are_the_undivided_run(photos: Path, crops: Path, tmp_path: Path) -> None:
    out = tmp_path / "crops"
    results = [align(photos, out, workers=1, shard=Shard(number, 3)) for number in (1, 2, 3)]
    assert [result.out.name for result in results] == ["crops.1-of-3", "crops.2-of-3", "crops.3-of-3"]
    assert [result.photos for result in results] == [4, 3, 3]
    assert sum(result.faces for result in results) == 6
    assert read_manifest(results[0].out)["inputs"]["shard"] == "1/3"
    assert align(photos, out, workers=1, shard=Shard(1, 3)) == results[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "_align_photo", None)  # There is nothing left to do.
        assert align(photos, out) == Alignment(out, 10, 6, 1, 3, 6)
    assert tree(out) == tree(crops)
    assert os.listdir(tmp_path) == ["crops"]


def test_what_a_failed_shard_left_undone_is_done_by_the_undivided_run(
    photos: Path, crops: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "crops"
    align(photos, out, workers=1, shard=Shard(2, 2))
    other = align(photos, out, AlignConfig(size=96), workers=1, shard=Shard(1, 2))
    with caplog.at_level(logging.INFO, "facetpu"):
        align(photos, out, workers=1)
    assert "crops: 5 photos were done before" in caplog.text
    assert f"{other.out}: is not of these photos with these settings" in caplog.text
    assert tree(out) == tree(crops)
    assert sorted(os.listdir(tmp_path)) == ["crops", "crops.1-of-2"]


def test_gathering_goes_on_after_a_kill(photos: Path, crops: Path, tmp_path: Path) -> None:
    out = tmp_path / "crops"
    for number in (1, 2):
        align(photos, out, AlignConfig(), workers=1, shard=Shard(number, 2))
    moves = []

    def moved(*arguments: Any) -> bool:
        moves.append(arguments)
        if len(moves) > 4:
            raise KeyboardInterrupt
        return before(*arguments)

    before = shards._moved
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "_moved", moved)
        with pytest.raises(KeyboardInterrupt):
            align(photos, out)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "_align_photo", None)
        align(photos, out)
    assert tree(out) == tree(crops)


def test_more_shards_than_photos_leave_some_empty(tmp_path: Path) -> None:
    save(tmp_path / "photos" / "Ana" / "a.jpg", portrait(ANA, 5))
    result = align(tmp_path / "photos", tmp_path / "crops", workers=1, shard=Shard(2, 2))
    assert result == Alignment(tmp_path / "crops.2-of-2", 0, 0, 0, 0, 0)


@pytest.mark.parametrize("text", ["3", "0/2", "3/2", "1/0", "a/b", "-1/2", "1/2/3", ""])
def test_bad_shards_are_refused_in_one_line(photos: Path, tmp_path: Path, text: str) -> None:
    done = CliRunner().invoke(main, ["align", str(photos), str(tmp_path / "crops"), "--shard", text])
    assert done.exit_code == 2
    assert re.search(
        rf"Error: Invalid value for '--shard': '{text}' is (not of the form|none of)", done.stderr
    )
    assert os.listdir(tmp_path) == []


@pytest.mark.data
def test_real_photos_are_aligned(data: Path, tmp_path: Path) -> None:
    for person in sorted((data / "lfw").iterdir())[:12]:
        shutil.copytree(person, tmp_path / "photos" / person.name)
    result = align(tmp_path / "photos", tmp_path / "crops", workers=2)
    assert result.aligned == result.photos >= 12
