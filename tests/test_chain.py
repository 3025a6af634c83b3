"""The whole chain, command by command as a user gives them, on rendered people; and what goes wrong in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from click.testing import CliRunner

from facetpu.board.imprint import ImprintingEngine
from facetpu.cli import main
from facetpu.image import read_image, write_png
from facetpu.portraits import write_people
from facetpu.runtime import interpreter

CONFIG = """
network: {depth_multiplier: 0.25, image_size: 64, embedding_dim: 32, batch_norm_decay: 0.8}
steps: 24
batch_size: 16
optimizer: {learning_rate: 0.03}
"""


class Answer(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def facetpu(*arguments: Any) -> Answer:
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Answer(done.exit_code, done.stdout, done.stderr)


def ok(*arguments: Any) -> Any:
    answer = facetpu(*arguments, "--json")
    assert answer.code == 0, answer.err
    return answer.json


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder`` and its bytes."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the chain ran once, each command's answer in ``answers.json``."""
    work = tmp_path_factory.mktemp("chain with spaces, and ünïcode")
    write_people(work / "photos", 6, 4, seed=1)
    write_people(work / "people", 3, 3, seed=2)
    write_people(work / "others", 12, 1, seed=3)
    (work / "config.yaml").write_text(CONFIG)
    answers = {
        "align": ok("align", work / "photos", work / "crops", "--size", 64, "--workers", 1),
        "pack": ok("pack", work / "crops", work / "records", "--shards", 2, "--validation", 0.2),
        "train": ok("train", work / "config.yaml", work / "records", work / "run"),
        "export": ok("export", work / "run", work / "model"),
        "imprint": ok(
            "imprint", work / "model", work / "people", work / "known", "--strangers", work / "others"
        ),
        "identify": ok("identify", work / "known", work / "people"),
        "evaluate": ok("evaluate", work / "model", work / "crops"),
    }
    (work / "answers.json").write_text(json.dumps(answers))
    return work


@pytest.fixture
def answers(work: Path) -> Any:
    return json.loads((work / "answers.json").read_text())


def test_every_stage_counts_what_it_was_given(work: Path, answers: Any) -> None:
    assert {key: answers["align"][key] for key in ("aligned", "no_face", "unreadable")} == {
        "aligned": 24,
        "no_face": 0,
        "unreadable": 0,
    }
    assert answers["pack"]["people"] == 6
    assert answers["pack"]["train"] + answers["pack"]["validation"] == 24
    assert answers["train"]["steps"] == 24
    assert answers["export"]["tpu_ops"] == 31
    assert answers["export"]["cpu_ops"] == 0
    assert answers["export"]["cosine"] > 0.9
    faces = [face for photo in answers["identify"]["photos"] for face in photo["faces"]]
    assert len(faces) == 9
    assert set(faces[0]) == {"name", "cosine", "threshold", "margin", "box", "landmarks", "score"}
    assert 0 <= answers["evaluate"]["accuracy"] <= 1
    assert set(answers["evaluate"]["tar"]) == {"0.1", "0.01", "0.001"}


def test_an_export_folder_is_all_a_board_needs(work: Path, tmp_path: Path) -> None:
    """Moved alone to another place, the folders still enrol, identify and forget."""
    shutil.copytree(work / "model", tmp_path / "model")
    shutil.copytree(work / "people", tmp_path / "people")
    told = ok("imprint", tmp_path / "model", tmp_path / "people", tmp_path / "known")
    assert len(told["people"]) == 3
    shutil.rmtree(tmp_path / "model")
    photo = next((tmp_path / "people").rglob("*.jpg"))
    (seen,) = ok("identify", tmp_path / "known", photo)["photos"]
    assert len(seen["faces"]) == 1


def test_stages_one_by_one_make_what_export_makes(work: Path, tmp_path: Path) -> None:
    ok("freeze", work / "run", tmp_path / "frozen")
    ok("quantize", tmp_path / "frozen", tmp_path / "quantized", "--calibration", work / "records")
    parts = tmp_path / "quantized"
    ok("join", parts / "base.tflite", parts / "head.tflite", tmp_path / "model.tflite")
    for name in ("base.tflite", "head.tflite"):
        assert (parts / name).read_bytes() == (work / "model" / name).read_bytes(), name
    assert (tmp_path / "model.tflite").read_bytes() == (work / "model" / "model.tflite").read_bytes()
    ok("split", tmp_path / "model.tflite", tmp_path / "parts")
    ok("join", tmp_path / "parts/base.tflite", tmp_path / "parts/head.tflite", tmp_path / "again.tflite")
    crop = read_image(next((work / "crops").rglob("*.png")))
    assert (run(tmp_path / "again.tflite", crop) == run(tmp_path / "model.tflite", crop)).all()


def test_the_imprinted_model_as_one_equals_its_base_and_its_head(work: Path, tmp_path: Path) -> None:
    ok("split", work / "known" / "model.tflite", tmp_path / "parts")
    for photo in sorted((work / "crops").rglob("*.png"))[:5]:
        crop = read_image(photo)
        embedding = run(work / "known" / "base.tflite", crop)
        assert (run(tmp_path / "parts" / "base.tflite", crop) == embedding).all()
        whole = run(work / "known" / "model.tflite", crop)
        assert (run(tmp_path / "parts" / "head.tflite", embedding) == whole).all()
    assert ImprintingEngine(work / "known" / "model.tflite", keep_classes=True).num_classes == 3


def test_inspect_says_where_each_op_runs(work: Path) -> None:
    told = ok("inspect", work / "known" / "model.tflite")
    assert {op["target"] for op in told["ops"]} == {"TPU"}
    assert [op["op"] for op in told["ops"]][-5:] == [
        "L2_NORMALIZATION",
        "CONV_2D",
        "MUL",
        "RESHAPE",
        "SOFTMAX",
    ]
    assert set(told["ops"][0]) >= {"index", "op", "version", "target", "reason"}


def test_a_rerun_of_any_stage_does_nothing(work: Path) -> None:
    before = tree(work)
    ok("align", work / "photos", work / "crops", "--size", 64, "--workers", 1)
    ok("pack", work / "crops", work / "records", "--shards", 2, "--validation", 0.2)
    ok("train", work / "config.yaml", work / "records", work / "run")
    ok("export", work / "run", work / "model")
    ok("imprint", work / "model", work / "people", work / "known", "--strangers", work / "others")
    assert tree(work) == before


def test_without_the_compiler_all_else_is_kept_and_the_way_is_told(work: Path, tmp_path: Path) -> None:
    if shutil.which("edgetpu_compiler"):
        pytest.skip("the compiler is here")
    answer = facetpu("export", work / "run", tmp_path / "model", "--edgetpu")
    assert answer.code == 1
    (line,) = [line for line in answer.err.splitlines() if line.startswith("Error: ")]
    assert "edgetpu-compiler" in line
    assert "facetpu join" in line
    kept = set(tree(tmp_path / "model"))
    assert {"base.tflite", "head.tflite", "model.tflite", "manifest.json", "detector/pnet.tflite"} <= kept


def run(model: Path, pixels: np.ndarray) -> np.ndarray:
    net = interpreter(model)
    net.allocate_tensors()
    net.set_tensor(net.get_input_details()[0]["index"], pixels[None] if pixels.ndim == 3 else pixels)
    net.invoke()
    return net.get_tensor(net.get_output_details()[0]["index"])


# --- what goes wrong: one line, exit 1, and nothing half-written


def spoil(work: Path, case: str) -> list[Any]:
    """Make the bad input ``case`` in ``work``, and give the command that meets it; OUT is ``work/out``."""
    given = {
        "an empty folder": ["align", work / "empty", work / "out"],
        "a missing folder": ["align", work / "none", work / "out"],
        "a file for a folder": ["align", work / "config.yaml", work / "out"],
        "a folder to be made elsewhere": ["align", work / "photos", work / "none" / "out"],
        "an out folder of one's own": ["align", work / "photos", work / "photos", "--overwrite"],
        "two spellings": ["align", work / "twice", work / "out"],
        "crops without people": ["pack", work / "loose", work / "out"],
        "records of another size": ["train", work / "large.yaml", work / "records", work / "out"],
        "a mistyped setting": ["train", work / "typo.yaml", work / "records", work / "out"],
        "no records": ["train", work / "config.yaml", work / "empty", work / "out"],
        "a run of another network": ["freeze", work / "other", work / "out"],
        "no run": ["export", work / "empty", work / "out"],
        "no model": ["imprint", work / "config.yaml", work / "people", work / "out"],
        "a base without its model": ["imprint", work / "bare/base.tflite", work / "people", work / "out"],
        "no tflite": ["inspect", work / "config.yaml"],
        "half a tflite": ["split", work / "half.tflite", work / "out"],
        "parts that do not fit": [
            "join",
            work / "model/head.tflite",
            work / "model/base.tflite",
            work / "out",
        ],
        "people without faces": ["imprint", work / "model", work / "faceless", work / "out"],
        "an existing out": ["imprint", work / "model", work / "people", work / "crops"],
        "no photo": ["identify", work / "known", work / "none.jpg"],
        "half a photo": ["verify", work / "known", work / "half.jpg", work / "half.jpg"],
        "pairs that are none": ["evaluate", work / "model", work / "crops", "--pairs", work / "config.yaml"],
        "a name with a slash": [
            "people",
            work / "known",
            "rename",
            next((work / "people").iterdir()).name,
            "a/b",
        ],
        "nobody": ["people", work / "known", "remove", "Nobody Here"],
    }[case]
    (work / "empty").mkdir(exist_ok=True)
    photo = next((work / "people").rglob("*.jpg"))
    for name in ("twice/Ana", "twice/ana", "loose"):
        (work / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, work / name / "1.jpg")
    (work / "faceless" / "Ana").mkdir(parents=True, exist_ok=True)
    write_png(work / "faceless" / "Ana" / "1.png", np.full([80, 80, 3], 90, np.uint8))
    (work / "bare").mkdir(exist_ok=True)
    shutil.copy(work / "model" / "base.tflite", work / "bare")
    (work / "half.jpg").write_bytes(photo.read_bytes()[: photo.stat().st_size // 2])
    model = (work / "model" / "model.tflite").read_bytes()
    (work / "half.tflite").write_bytes(model[: len(model) // 2])
    (work / "large.yaml").write_text(CONFIG.replace("64", "96"))
    (work / "typo.yaml").write_text(CONFIG.replace("batch_size", "bach_size"))
    if case == "a run of another network" and not (work / "other").exists():
        shutil.copytree(work / "run", work / "other")
        config = work / "other" / "config.yaml"
        config.write_text(config.read_text().replace("embedding_dim: 32", "embedding_dim: 48"))
    return given


@pytest.mark.parametrize(
    ("case", "line"),
    [
        ("an empty folder", "empty: holds no photo"),
        ("a missing folder", "none: no such folder"),
        ("a file for a folder", "config.yaml: is a file, and a folder is needed"),
        ("a folder to be made elsewhere", "none: no such folder; create it first"),
        ("an out folder of one's own", "holds files that facetpu did not write"),
        ("two spellings", "'Ana' and 'ana' look like one person; merge or rename them"),
        ("crops without people", "no folder for each person"),
        ("records of another size", "holds photos of 64 px, and the config's network.image_size is 96"),
        ("a mistyped setting", "bach_size is not a setting; did you mean batch_size?"),
        ("no records", "empty"),
        ("a run of another network", "other"),
        ("no run", "empty"),
        ("no model", "config.yaml: is no .tflite model"),
        (
            "a base without its model",
            "base.tflite: is a model by itself, with no model.tflite beside it; run facetpu export",
        ),
        ("no tflite", "config.yaml"),
        ("half a tflite", "half.tflite"),
        ("parts that do not fit", "base.tflite"),
        ("people without faces", "Ana"),
        ("an existing out", "crops: exists"),
        ("no photo", "none.jpg"),
        ("half a photo", "half.jpg"),
        ("pairs that are none", "config.yaml"),
        ("a name with a slash", "'a/b' holds a slash"),
        ("nobody", "Nobody Here"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(work: Path, case: str, line: str) -> None:
    command = spoil(work, case)
    shutil.rmtree(work / "out", ignore_errors=True)
    before = tree(work)
    answer = facetpu(*command)
    assert answer.code == 1
    errors = [text for text in answer.err.splitlines() if text.startswith("Error: ")]
    assert len(errors) == 1
    assert line in errors[0]
    assert "Traceback" not in answer.err
    assert tree(work) == before
    assert not (work / "out").exists()
    assert list(work.glob(".out*")) == []


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_is_named_and_leaves_nothing_half_written(work: Path, tmp_path: Path) -> None:
    small = tmp_path / "small disk"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", small], check=False)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        for command in (
            ["align", work / "photos", small / "out", "--workers", 1],
            ["pack", work / "crops", small / "out"],
            ["imprint", work / "model", work / "people", small / "out"],
        ):
            # A process of its own: it must not fill memory that this one holds, nor keep files open.
            done = subprocess.run(
                [sys.executable, "-c", "from facetpu.cli import main; main()", *map(str, command)],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 1, command
            (line,) = [text for text in done.stderr.splitlines() if text.startswith("Error: ")]
            assert "no space left on device; free some space" in line, command
            assert not (small / "out").exists()
            shutil.rmtree(small / ".out.partial", ignore_errors=True)  # what a later run would go on from
    finally:
        subprocess.run(["umount", small], check=True)
