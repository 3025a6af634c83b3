"""The ground that the rooms stand on: who imports whom, artefacts, names, progress, the command line."""

from __future__ import annotations

import ast
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import facetpu
from facetpu import artefacts, labels, people, progress
from facetpu.cli import main
from facetpu.errors import FacetpuError, missing_module, os_error

PACKAGE = Path(facetpu.__file__).parent

# From the top down: a module imports only from lines below its own, or from its own room.
FLOORS = [
    {"__main__"},
    {"cli"},
    {"demo"},
    {"export", "doctor", "ray_training"},
    {"serve", "stages", "portraits", "web", "ondevice"},
    {"quantization"},
    {"training"},
    {"evaluation"},
    {"sources"},
    {"board", "losses"},
    {"nets"},
    {"edgetpu", "metrics", "mtcnn"},
    {"tflite"},
    {"alignment", "trial"},
    {"quality"},
    {"contact_sheet", "image", "page", "runtime", "config", "people", "options"},
    {"engines"},
    {"history", "labels", "lettering", "png", "progress", "workers"},
    {"artefacts"},
    {"storage"},
    {"errors"},
    {"__init__"},
]
ON_THE_BOARD = {
    *("cli", "options", "errors", "artefacts", "labels", "people", "progress", "runtime", "image", "quality"),
    *("contact_sheet", "lettering", "page", "metrics", "mtcnn", "tflite", "edgetpu", "board", "doctor"),
    *("png", "trial", "serve", "storage"),
}


def modules() -> list[tuple[str, Path]]:
    """Every module of the package as (room, file)."""
    return [
        (file.relative_to(PACKAGE).parts[0].removesuffix(".py"), file)
        for file in sorted(PACKAGE.rglob("*.py"))
    ]


def imports(file: Path) -> set[str]:
    """The dotted names that ``file`` imports, wherever in it, relative ones made absolute."""
    package = ("facetpu", *file.relative_to(PACKAGE).parts[:-1])
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


def test_rooms_import_downwards_only():
    floor = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
    wrong = []
    for room, file in modules():
        for name in imports(file):
            parts = name.split(".")
            if parts[0] != "facetpu" or len(parts) < 2 or parts[1] not in floor:
                continue
            if parts[1] != room and floor[parts[1]] <= floor[room]:
                wrong.append(f"{file.relative_to(PACKAGE)} imports {name}")
            if room == "stages" and parts[1] == "stages" and len(parts) > 2:
                wrong.append(f"the stage {file.name} imports {name}")
    assert sorted(set(wrong)) == []
    assert {room for room, _ in modules()} <= set(floor)


def test_the_board_never_imports_tensorflow_and_stages_never_click():
    heavy = ("tensorflow", "tf_slim", "tf_keras")
    wrong = [
        f"{file.relative_to(PACKAGE)} imports {name}"
        for room, file in modules()
        for name in imports(file)
        if (room in ON_THE_BOARD and name.split(".")[0] in heavy)
        or (room == "stages" and name.split(".")[0] == "click")
    ]
    assert wrong == []


def test_help_imports_nothing_heavy():
    code = (
        "import sys, facetpu.cli; print([m for m in ('numpy','cv2','tensorflow','PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_command_has_help_with_an_example():
    def walk(group, path):
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from walk(command, [*path, name])
            else:
                yield " ".join([*path, name]), command.help

    commands = dict(walk(main, []))
    assert {"align", "train", "export", "imprint", "people rename"} <= set(commands)
    assert [name for name, text in commands.items() if "Example: facetpu" not in (text or "")] == []


# --- artefacts


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.txt"

    def write_half():
        with artefacts.new_file(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert list(tmp_path.iterdir()) == []
    artefacts.write_text(path, "one\n")
    with pytest.raises(FacetpuError, match=r"a\.txt: exists; choose another name, or pass --overwrite"):
        artefacts.write_text(path, "two\n")
    artefacts.write_text(path, "two\n", overwrite=True, mode=0o600)
    assert path.read_text() == "two\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_a_failed_folder_leaves_nothing(tmp_path):
    def write_half():
        with artefacts.new_folder(tmp_path / "out") as folder:
            (folder / "half").write_text("x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_a_kept_folder_is_taken_up_again_only_with_the_same_key(tmp_path):
    found = []

    def run(key, fail):
        with artefacts.new_folder(tmp_path / "out", resume_key=key, keep=True) as folder:
            found.append([file.name for file in folder.iterdir() if not file.name.startswith(".")])
            (folder / "work").write_text("x")
            if fail:
                raise RuntimeError

    for size in ((1, 2), (1, 2), (1, 3)):
        with pytest.raises(RuntimeError):
            run({"size": size}, fail=True)
        assert not (tmp_path / "out").exists()
    run({"size": (1, 3)}, fail=False)
    assert found == [[], ["work"], [], ["work"]]
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["work"]


def test_overwrite_replaces_only_what_facetpu_wrote(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "diary.txt").write_text("mine")
    with pytest.raises(FacetpuError, match="exists"), artefacts.new_folder(out):
        pass
    with (
        pytest.raises(FacetpuError, match="holds files that facetpu did not write"),
        artefacts.new_folder(out, overwrite=True),
    ):
        pass
    artefacts.write_manifest(out, "align", {}, {})
    with artefacts.new_folder(out, overwrite=True) as folder:
        (folder / "new").write_text("x")
    assert [file.name for file in out.iterdir()] == ["new"]


@pytest.mark.parametrize("new_one_stands", [False, True])
def test_a_kill_in_the_middle_of_replacing_a_folder_is_mended(tmp_path, new_one_stands):
    out = tmp_path / "out"
    for folder, content in ((tmp_path / ".out.old", "old"), (out, "new")):
        if folder is out and not new_one_stands:
            continue
        folder.mkdir()
        (folder / "gallery").write_text(content)
        artefacts.write_manifest(folder, "imprint", {}, {})
    with pytest.raises(FacetpuError, match="exists"), artefacts.new_folder(out):
        pass
    assert (out / "gallery").read_text() == ("new" if new_one_stands else "old")
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_two_runs_never_write_one_folder(tmp_path):
    with (
        artefacts.new_folder(tmp_path / "out", keep=True),
        pytest.raises(FacetpuError, match="another run is writing it"),
        artefacts.new_folder(tmp_path / "out", keep=True),
    ):
        pass
    assert (tmp_path / "out").is_dir()


def test_a_missing_or_closed_parent_is_named(tmp_path):
    with pytest.raises(FacetpuError, match="nowhere: no such folder; create it first"):
        artefacts.check_new(tmp_path / "nowhere" / "out")
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(FacetpuError, match="may not be written to"):
        artefacts.check_new(tmp_path / "out")


def test_a_manifest_knows_equal_work(tmp_path):
    config, inputs = {"size": 112, "box": (1, 2)}, {"photos": "abc"}
    assert artefacts.finished(tmp_path, "align", config, inputs) is None
    artefacts.write_manifest(tmp_path, "align", config, inputs, counts={"aligned": 3})
    assert artefacts.finished(tmp_path, "align", config, inputs)["counts"] == {"aligned": 3}
    assert artefacts.finished(tmp_path, "align", {**config, "size": 96}, inputs) is None
    assert artefacts.finished(tmp_path, "align", config, {"photos": "abd"}) is None
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(FacetpuError, match="is damaged"):
        artefacts.read_manifest(tmp_path)


def test_a_digest_sees_names_sizes_and_times_on_request(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "1.jpg").write_bytes(b"12")
    (tmp_path / ".hidden").write_bytes(b"x")
    first, timed = artefacts.digest(tmp_path), artefacts.digest(tmp_path, times=True)
    os.utime(tmp_path / "b" / "1.jpg", ns=(1, 1))
    assert artefacts.digest(tmp_path) == first
    assert artefacts.digest(tmp_path, times=True) != timed
    (tmp_path / "b" / "1.jpg").rename(tmp_path / "b" / "2.jpg")
    assert artefacts.digest(tmp_path) != first


# --- names


@given(st.lists(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1), max_size=8))
def test_fit_names_come_back_from_the_label_file(names):
    import tempfile

    fit = []
    for name in names:
        try:
            fit.append(labels.check_name(name, "test"))
        except FacetpuError:
            continue
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.txt"
        labels.write_labels(path, fit)
        assert labels.read_labels(path) == fit


@pytest.mark.parametrize(
    "name", ["", " Ana", "Ana ", "A\nna", "A\tna", "A\x00na", "../Ana", "A\\na", ".Ana", "A\u2028na"]
)
def test_unfit_names_are_refused(name):
    with pytest.raises(FacetpuError, match="rename it"):
        labels.check_name(name, "people")


@pytest.mark.parametrize("other", ["ana maría", "Ana  María", "Ana_María", "Ana Mari\u0301a"])
def test_two_spellings_of_one_name_are_refused(other):
    with pytest.raises(FacetpuError, match="look like one person"):
        labels.check_distinct(["Ana María", other], "people")
    labels.check_distinct(["Ana María", "Ana Marta"], "people")


@pytest.mark.parametrize(
    ("text", "line"),
    [("Ana\n", "line 1 is not"), ("0  Ana\n0  Bo\n", "line 2 is not"), ("0  Ana\n2  Bo\n", "not 0 to 1")],
)
def test_damaged_labels_are_named(tmp_path, text, line):
    path = tmp_path / "labels.txt"
    path.write_text(text)
    with pytest.raises(FacetpuError, match=line):
        labels.read_labels(path)


def test_labels_in_all_of_pycorals_forms(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("0  Ana\n1: Bo B\n 2 Çelik\n\n")
    assert labels.read_labels(path) == ["Ana", "Bo B", "Çelik"]


def test_people_and_photos_are_listed_in_order(tmp_path):
    for file in ("Bo/2.PNG", "Bo/1.jpg", "Ana/x/3.webp", "Ana/notes.txt", ".trash/1.jpg", "loose.jpg"):
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = people.people_under(tmp_path)
    assert {name: [p.name for p in photos] for name, photos in found.items()} == {
        "Ana": ["3.webp"],
        "Bo": ["1.jpg", "2.PNG"],
    }
    assert list(found) == ["Ana", "Bo"]


def test_what_is_no_folder_of_people_is_named(tmp_path):
    with pytest.raises(FacetpuError, match="no such folder"):
        people.people_under(tmp_path / "none")
    with pytest.raises(FacetpuError, match="holds no photo"):
        people.people_under(tmp_path)
    (tmp_path / "a.jpg").touch()
    with pytest.raises(FacetpuError, match="no folder for each person"):
        people.people_under(tmp_path)
    with pytest.raises(FacetpuError, match="is a file, and a folder is needed"):
        people.people_under(tmp_path / "a.jpg")


# --- progress and errors


def test_a_log_gets_plain_lines_with_rate_and_eta(monkeypatch, caplog):
    clock = iter([0.0, 1.0, 16.0, 20.0, 40.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    caplog.set_level(logging.INFO, logger="facetpu")
    assert list(progress.progress(range(4), "align", done=2)) == [0, 1, 2, 3]
    assert [record.getMessage() for record in caplog.records] == [
        "align: 4/6, 0:00:16 left, 0.1 photo/s",
        "align: 6/6, 0:00:00 left, 0.1 photo/s",
    ]


def test_what_the_system_refuses_is_one_line_with_advice():
    full = OSError(28, "No space left on device", "/out/x")
    assert str(os_error(full)) == (
        "/out/x: no space left on device; free some space and run the same command again"
    )
    absent = ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")
    assert str(missing_module(absent)) == "tensorflow is not installed: run pip install 'facetpu[train]'"
    assert missing_module(ModuleNotFoundError(name="facetpu.oops")) is None


def test_an_error_is_one_line_and_exit_1(tmp_path):
    arguments = ["align", str(tmp_path / "none"), str(tmp_path / "crops")]
    done = CliRunner().invoke(main, arguments)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == f"Error: {tmp_path / 'none'}: no such folder\n"
    done = CliRunner().invoke(main, [*arguments, "--json"])
    assert json.loads(done.stdout) == {"error": f"{tmp_path / 'none'}: no such folder"}
    assert CliRunner().invoke(main, ["align"]).exit_code == 2
