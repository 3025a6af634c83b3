"""The demo, at a scale that proves the chain whole but learns nothing; and the sheets it draws."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import facetpu
from facetpu.config import read_config
from facetpu.contact_sheet import GREEN, PAPER, Cell, Section, contact_sheet
from facetpu.demo import CONFIG, DemoResult, Scale, demo
from facetpu.errors import FacetpuError
from facetpu.image import read_image
from facetpu.lettering import fitted, load_font
from facetpu.options import as_document

SMALL = Scale(photos=4, enrolled=2, portraits=2, strangers=2, tests=2, epochs=12)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> DemoResult:
    return demo(tmp_path_factory.mktemp("demo") / "out", people=20, scale=SMALL)


@pytest.mark.slow
def test_the_chain_leaves_all_that_it_says(finished: DemoResult) -> None:
    out = finished.out
    explained = (out / "README.md").read_text(encoding="utf-8")
    for name in ("photos", "crops", "records", "run", "model", "known", "identified.png", "report.json"):
        assert (out / name).exists()
        assert name in explained
    assert (finished.trained, finished.portraits) == (20, 20 * 4 + 2 * 2 + 4 * 2)
    assert (finished.enrolled_tests, finished.stranger_tests) == (4, 4)
    assert finished.found > 0.9
    for share in (finished.recognised, finished.rejected, finished.auc):
        assert 0 <= share <= 1
    stages = ["render", "align", "pack", "train", "export", "imprint", "identify", "evaluate"]
    assert list(finished.seconds) == stages
    lines = str(finished).split("\n")
    assert all(any(line.strip().startswith(stage) for line in lines) for stage in [*stages, "in all"])
    assert json.loads(as_document(finished))["portraits"] == 92
    assert read_image(finished.picture).shape[2] == 3


@pytest.mark.slow
def test_a_finished_demo_is_left_as_it_is(finished: DemoResult) -> None:
    before = finished.picture.stat().st_mtime_ns
    assert demo(finished.out, people=20, scale=SMALL) == finished
    assert finished.picture.stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_killed_demo_goes_on_where_it_was(finished: DemoResult) -> None:
    report = finished.out / "report.json"
    report.write_text(json.dumps({"seconds": {"render": 7.0}}), encoding="utf-8")
    finished.picture.unlink()
    again = demo(finished.out, people=20, scale=SMALL)
    assert again._replace(seconds={}) == finished._replace(seconds={})
    assert again.seconds["render"] == 7.0
    assert again.seconds["train"] < 3
    assert finished.picture.is_file()


@pytest.mark.slow
def test_another_demo_is_not_written_over(finished: DemoResult) -> None:
    with pytest.raises(FacetpuError, match=r"out: exists; choose another name, or pass --overwrite"):
        demo(finished.out, people=20, seed=1, scale=SMALL)


def test_a_folder_of_others_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    for overwrite in (False, True):
        with pytest.raises(FacetpuError):
            demo(tmp_path, people=20, overwrite=overwrite)
    assert [file.name for file in tmp_path.iterdir()] == ["photo.jpg"]


def test_the_package_brings_the_config_that_configs_shows() -> None:
    package = Path(facetpu.__file__).parent
    assert read_config(package / CONFIG) == read_config(package.parent / "configs" / CONFIG)


def test_a_contact_sheet_holds_every_cell_in_its_place() -> None:
    red = np.zeros((50, 80, 3), np.uint8)
    red[..., 0] = 255
    blue = np.full((200, 100, 3), (0, 0, 255), np.uint8)
    cells = [Cell(red, "Ana"), Cell(blue, "Zoë", GREEN, (40, 80, 60, 110)), Cell(red)]
    sheet = contact_sheet([Section("People", cells), Section("", [Cell(blue)])], columns=2, side=100)
    height, width, _ = sheet.shape
    assert width == 2 * 100 + 3 * 8
    assert tuple(sheet[0, 0]) == PAPER
    top = next(y for y in range(height) if tuple(sheet[y, 58]) == (255, 0, 0))
    assert tuple(sheet[top + 50, 58]) == (255, 0, 0)
    assert tuple(sheet[top + 50, 8 + 100 + 8 + 20]) == (0, 0, 255)
    assert (sheet[top : top + 100, 116:216] == GREEN).all(axis=2).any()
    assert (sheet == (0, 0, 255)).all(axis=2).sum() > 1.8 * 100 * 100


def test_text_is_cut_to_its_width() -> None:
    font = load_font(12)
    assert fitted("Ana", font, 100) == "Ana"
    assert fitted("", font, 0) == ""
    cut = fitted("Wolfeschlegelsteinhausenbergerdorff", font, 60)
    assert cut.endswith("...")
    assert font.getbbox(cut)[2] <= 60
