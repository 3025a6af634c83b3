"""Changing whom a model knows: merged, carried over, by two at once, on a full disk, killed in the middle."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from small_export import DIM, build_base, build_model, write_export
from test_gallery import gallery_of, same

from facetpu import artefacts
from facetpu.artefacts import digest
from facetpu.board.embed import base_model
from facetpu.board.folder import ModelFolder
from facetpu.board.gallery import Gallery, read_gallery, write_gallery
from facetpu.board.people import (
    export_people,
    import_people,
    list_people,
    merge_people,
    remove_person,
    rename_person,
    show_person,
)
from facetpu.board.recogniser import base_digest, read_known, write_known
from facetpu.board.threshold import read_cohort
from facetpu.cli import main
from facetpu.errors import FacetpuError
from facetpu.tflite.model import read_model, tensor_data


def known_folder(folder: Path, gallery: Gallery, seed: int = 0) -> Path:
    """An imprinted folder that knows ``gallery``, without a photo having been looked at."""
    write_export(folder, seed)
    for name in ("labels.txt", "model.tflite", "cohort.npz"):
        (folder / name).rename(folder.parent / name)
    write_export(folder.parent / "whole", seed)
    source = ModelFolder.find(folder.parent / "whole")
    cohort = read_cohort(source.root / "cohort.npz", DIM)
    write_known(folder, source, gallery._replace(base=base_digest(source)), cohort)
    shutil.rmtree(source.root)
    for name in ("labels.txt", "model.tflite", "cohort.npz"):
        (folder.parent / name).unlink()
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    gallery = gallery_of({"Ana": 3, "Bea": 1, "Cyd": 2}, dim=DIM)
    return known_folder(tmp_path_factory.mktemp("made") / "known", gallery)


@pytest.fixture
def known(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "known"))


def rows_of(folder: Path) -> np.ndarray:
    record = read_model(folder / "model.tflite")
    kernel = tensor_data(record, record.subgraphs[0].tensors[record.subgraphs[0].operators[-4].inputs[1]])
    assert kernel is not None
    return kernel.reshape(len(kernel), -1)


# --- Merging and showing ---


def test_two_names_become_one_person(known: Path) -> None:
    before, rows = read_gallery(known / "gallery.npz"), rows_of(known)
    merge_people(known, "Bea", "Cyd")
    after = read_known(ModelFolder.find(known))
    assert after.people == ["Ana", "Cyd"]
    assert after.person.tolist() == [0, 0, 0, 1, 1, 1]
    assert np.array_equal(after.embeddings, before.embeddings)
    assert np.array_equal(rows_of(known)[0], rows[0])
    merge_people(known, "Cyd", "Ana")
    assert list_people(known).people == [("Ana", 0, 6)]
    for names, message in [(("Ana", "Ana"), "cannot be merged into Ana"), (("Dan", "Ana"), "knows no 'Dan'")]:
        with pytest.raises(FacetpuError, match=message):
            merge_people(known, *names)


def test_a_person_is_shown_with_photos_and_likeness(known: Path) -> None:
    gallery = read_gallery(known / "gallery.npz")
    vectors = gallery.vectors()
    shown = show_person(known, "Cyd")
    cosines = vectors[:2] @ vectors[2]
    assert (shown.class_id, shown.nearest) == (2, ["Ana", "Bea"][int(cosines.argmax())])
    assert shown.nearest_cosine == pytest.approx(cosines.max(), abs=1e-5)
    assert [photo.digest for photo in shown.photos] == gallery.photos[4:]
    pair = float(gallery.embeddings[4] @ gallery.embeddings[5])
    assert [photo.cosine for photo in shown.photos] == [pytest.approx(pair, abs=1e-5)] * 2
    done = CliRunner().invoke(main, ["people", str(known), "show", "Bea", "--json"])
    found = json.loads(done.stdout)
    assert [photo["cosine"] for photo in found["photos"]] == [None]
    assert "the only photo" in str(show_person(known, "Bea"))


# --- Carrying over ---


def test_people_go_to_another_model_of_the_same_base(made: Path, known: Path, tmp_path: Path) -> None:
    remove_person(known, "Bea")
    rename_person(known, "Cyd", "Dan")
    rows = rows_of(known)
    done = CliRunner().invoke(main, ["people", str(made), "export", str(tmp_path / "people.npz")])
    assert done.exit_code == 0, done.output
    assert stat.S_IMODE((tmp_path / "people.npz").stat().st_mode) == 0o600
    with pytest.raises(FacetpuError, match="exists"):
        export_people(made, tmp_path / "people.npz")
    with pytest.raises(FacetpuError, match=r"has a photo of Cyd that is Dan's here; rename one of them"):
        import_people(known, tmp_path / "people.npz")
    rename_person(known, "Dan", "Cyd")
    listed = import_people(known, tmp_path / "people.npz")
    assert listed.people == [("Ana", 0, 3), ("Cyd", 1, 2), ("Bea", 2, 1)]
    assert np.array_equal(rows_of(known)[:2], rows)
    assert import_people(known, tmp_path / "people.npz").people == listed.people  # nothing twice


def test_a_gallery_of_another_base_is_refused_with_its_peoples_names(known: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = known_folder(tmp_path / "other" / "known", gallery_of({"Eva": 2}, dim=DIM), seed=1)
    export_people(other, tmp_path / "eva.npz")
    before = digest(known, times=True)
    with pytest.raises(FacetpuError, match="another base, and embeddings hold for their own only; enrol Eva"):
        import_people(known, tmp_path / "eva.npz")
    shutil.copy(other / "gallery.npz", known / "gallery.npz")
    with pytest.raises(FacetpuError, match="was made with another base model"):
        list_people(known)
    assert before != digest(known, times=True)


@pytest.mark.parametrize("name", ["../../etc", "a/b", "..", ".hidden", "C:\\x", "a\nb", " a", ""])
def test_a_name_that_is_a_path_is_refused_from_wherever_it_comes(
    known: Path, tmp_path: Path, name: str
) -> None:
    gallery = read_gallery(known / "gallery.npz")
    write_gallery(tmp_path / "evil.npz", gallery._replace(people=[name, "Bea", "Cyd"], photos=["0" * 64] * 6))
    before = digest(known, times=True)
    with pytest.raises(FacetpuError, match=r"the name|is damaged"):
        import_people(known, tmp_path / "evil.npz")
    with pytest.raises(FacetpuError, match="the name"):
        rename_person(known, "Ana", name)
    assert digest(known, times=True) == before


def test_ten_thousand_photos_of_one_person_are_no_trouble(tmp_path: Path) -> None:
    folder = known_folder(tmp_path / "known", gallery_of({"Ana": 10_000, "Bea": 2}, dim=DIM))
    started = time.monotonic()
    assert list_people(folder).people == [("Ana", 0, 10_000), ("Bea", 1, 2)]
    assert len(show_person(folder, "Ana").photos) == 10_000
    assert list_people(remove_person(folder, "Ana").model).people == [("Bea", 0, 2)]
    assert time.monotonic() - started < 10
    assert (folder / "gallery.npz").stat().st_size < 10_000


# --- Two at once, and disasters ---


def test_a_second_run_says_that_another_is_writing(known: Path) -> None:
    with artefacts.new_folder(known, overwrite=True) as partial:
        with pytest.raises(FacetpuError, match="another run is writing it; wait for it to end"):
            remove_person(known, "Bea")
        assert len(list_people(known).people) == 3  # reading goes on
        shutil.copytree(known, partial, dirs_exist_ok=True)
    assert len(remove_person(known, "Bea").people) == 2


RENAME = """
import sys
from pathlib import Path
from facetpu.board.people import rename_person
from facetpu.errors import FacetpuError
folder, ours = Path(sys.argv[1]), sys.argv[2]
names = [ours, ours + "2"]
print("ready", flush=True)
done = 0
while done < int(sys.argv[3]):
    try:
        rename_person(folder, *names)
    except FacetpuError as error:
        if "another run is writing it" not in str(error):
            raise
        continue
    names.reverse()
    done += 1
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(Path(artefacts.__file__).parents[1])}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def test_two_at_once_lose_nothing_of_each_others(known: Path) -> None:
    """Each renames somebody else, an odd number of times, whenever the other lets it."""
    both = [start(RENAME, known, name, 7) for name in ("Ana", "Cyd")]
    assert [process.communicate(timeout=60)[1] for process in both] == ["", ""]
    assert [person.name for person in list_people(known).people] == ["Ana2", "Bea", "Cyd2"]


def test_a_kill_leaves_the_gallery_before_or_after_and_never_between(made: Path, known: Path) -> None:
    """SIGKILL at 12 moments of a loop that does nothing but rewrite the folder."""
    rng = np.random.default_rng(0)
    gallery = read_gallery(made / "gallery.npz")
    in_the_middle = 0
    for _ in range(12):
        name = list_people(known).people[0].name
        process = start(RENAME, known, name, 10**6)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()[1]
        time.sleep(rng.uniform(0.01, 0.15))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        after = read_known(ModelFolder.find(known))  # model, labels and gallery agree
        assert after.people[0].rstrip("2") == "Ana"
        assert same(after._replace(people=gallery.people, threshold=0.5), gallery._replace(threshold=0.5))
        assert np.array_equal(rows_of(known), rows_of(made))
        in_the_middle += (known.parent / ".known.partial").exists()
    assert in_the_middle > 0
    # What was left behind, the next run clears away.
    remove_person(known, "Bea")
    assert [path.name for path in known.parent.iterdir()] == ["known"]


FULL = """
import resource, signal, sys
from pathlib import Path
from facetpu.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
main(["people", sys.argv[1], "remove", "Bea"])
"""


@pytest.mark.parametrize("size", [100, 3000, 15_000])
def test_a_disk_that_takes_no_more_leaves_the_gallery_as_it_was(known: Path, size: int) -> None:
    """A limit on the size of files stands in for a full disk: writes fail likewise, part of them done."""
    before = digest(known, times=True)
    process = start(FULL, known, size)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    line = err.splitlines()[-1]
    assert line.startswith(f"Error: {known.parent}/.known.partial/")
    assert line.endswith(": file too large")
    assert "Traceback" not in err
    assert digest(known, times=True) == before
    assert [path.name for path in known.parent.iterdir()] == ["known"]
    assert len(list_people(known).people) == 3


def test_where_folders_cannot_change_places_at_once_it_is_done_in_two_steps(
    known: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artefacts, "_exchanged", lambda *_: False)
    remove_person(known, "Bea")
    assert [person.name for person in list_people(known).people] == ["Ana", "Cyd"]
    assert [path.name for path in known.parent.iterdir()] == ["known"]


def test_a_label_file_or_a_model_that_disagrees_is_named(known: Path) -> None:
    labels = (known / "labels.txt").read_text()
    (known / "labels.txt").write_text("0  Ana\n1  Cyd\n2  Bea\n")
    with pytest.raises(FacetpuError, match="names Ana, Cyd, Bea, and the gallery Ana, Bea, Cyd"):
        remove_person(known, "Ana")
    (known / "labels.txt").write_text("0  Ana\n0  Bea\n")
    with pytest.raises(FacetpuError, match="line 2 is not 'id  name' with a new id"):
        list_people(known)
    (known / "labels.txt").write_text(labels)
    model = build_model(base_model(ModelFolder.find(known)), people=2)
    (known / "model.tflite").write_bytes(model)
    with pytest.raises(FacetpuError, match=r"has 2 classes, and labels\.txt 3 names"):
        list_people(known)
    (known / "base.tflite").write_bytes(build_base(seed=3))
    with pytest.raises(FacetpuError, match="was made with another base model"):
        list_people(known)
