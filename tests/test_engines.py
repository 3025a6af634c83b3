"""The choice of an engine, and that what is made does not depend on it. What needs Ray is in test_ray.py."""

from __future__ import annotations

import logging
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from crops import write_crops
from small_base import pixels_as_embedding

from facetpu import storage
from facetpu.alignment import kept
from facetpu.cli import main
from facetpu.engines import choose_engine
from facetpu.engines.local import Processes, ThisProcess
from facetpu.errors import FacetpuError
from facetpu.progress import progress
from facetpu.stages.align import align
from facetpu.stages.embed import embed
from facetpu.stages.pack import pack
from facetpu.workers import cores


class Shuffled:
    """An engine that does the work in another order, and stops after so many results."""

    def __init__(self, stop: int = 1000) -> None:
        self.stop = stop
        self.done = 0

    def each(self, task: Any, items: Any, start: Any, arguments: Any, crashed: Any = None) -> Iterator[Any]:
        start(*arguments)
        shuffled = list(items)
        random.Random(1).shuffle(shuffled)
        for item in shuffled:
            if self.done == self.stop:
                raise KeyboardInterrupt
            self.done += 1
            yield task(item)

    def status(self) -> str:
        return "all is well"


class Elsewhere(Shuffled):
    """An engine whose workers run in another folder than the command."""

    def each(self, task: Any, items: Any, start: Any, arguments: Any, crashed: Any = None) -> Iterator[Any]:
        def there(work: Any) -> Any:
            def run(*given: Any) -> Any:
                here = os.getcwd()
                os.chdir("/")
                try:
                    return work(*given)
                finally:
                    os.chdir(here)

            return run

        return super().each(there(task), items, there(start), arguments)


class Forgetful(Shuffled):
    """An engine that leaves the last item out and says nothing."""

    def each(self, task: Any, items: Any, start: Any, arguments: Any, crashed: Any = None) -> Iterator[Any]:
        return super().each(task, list(items)[:-1], start, arguments, crashed)


def tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def work_of(_: int) -> int:
    return cores()


def nothing() -> None:
    pass


def test_records_do_not_depend_on_the_engine_and_are_gone_on_with(tmp_path: Path) -> None:
    crops = write_crops(tmp_path / "crops", people=4, photos=6)
    pack(crops, tmp_path / "records", shards=4, validation=0.25)
    expected = tree(tmp_path / "records")
    first = Shuffled(stop=3)
    with pytest.raises(KeyboardInterrupt):
        pack(crops, tmp_path / "others", shards=4, validation=0.25, engine=first)
    second = Shuffled()
    pack(crops, tmp_path / "others", shards=4, validation=0.25, engine=second)
    assert tree(tmp_path / "others") == expected
    assert (first.done, second.done) == (3, len(list((tmp_path / "records").glob("*.tfrecord"))) - 3)


def test_what_a_killed_worker_was_at_is_not_in_the_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crops = write_crops(tmp_path / "crops", people=2, photos=6)
    pack(crops, tmp_path / "records", shards=2)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", killed)
        with pytest.raises(KeyboardInterrupt):
            pack(crops, tmp_path / "others", shards=2, engine=Shuffled())
    assert list((tmp_path / ".others.partial").rglob("*.tfrecord")) == []  # none that a power cut may empty
    pack(crops, tmp_path / "others", shards=2, engine=Shuffled())
    assert tree(tmp_path / "others") == tree(tmp_path / "records")


def test_an_item_that_an_engine_leaves_out_is_noticed(tmp_path: Path) -> None:
    crops = write_crops(tmp_path / "crops", people=2, photos=6)
    with pytest.raises(FacetpuError, match=r"^\w+-0000\d-of-0000\d.tfrecord: was not packed; run the same"):
        pack(crops, tmp_path / "records", shards=4, engine=Forgetful())
    with pytest.raises(
        FacetpuError, match=r"crops: 1 of 12 photos were left undone; run the same command again"
    ):
        align(crops, tmp_path / "aligned", engine=Forgetful())


def test_workers_in_other_folders_find_relative_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    crops = write_crops(Path("crops"), people=2, photos=6, size=16)
    write_crops(Path("others"), people=2, photos=1, size=16)
    Path("base.tflite").write_bytes(pixels_as_embedding(16))
    assert align(crops, Path("aligned"), engine=Elsewhere()).photos == 12
    extra = {"unknown": Path("others"), "unlabelled": Path("others")}
    assert pack(crops, Path("records"), **extra, engine=Elsewhere()).unlabelled == 2
    assert embed(Path("base.tflite"), crops, Path("embeddings.npz"), engine=Elsewhere()).crops == 12


def test_a_model_for_an_edge_tpu_stays_on_this_machine(tmp_path: Path) -> None:
    crops = write_crops(tmp_path / "crops", people=2, photos=2, size=16)
    model = tmp_path / "compiled.tflite"
    model.write_bytes(pixels_as_embedding(16) + b"edgetpu-custom-op")
    with pytest.raises(FacetpuError, match=r"compiled.tflite: is for this machine's Edge TPU; give --engine"):
        embed(model, crops, tmp_path / "embeddings.npz", engine=Shuffled())


def test_embeddings_do_not_depend_on_the_engine(tmp_path: Path) -> None:
    crops = write_crops(tmp_path / "crops", people=4, photos=40, size=16)
    model = tmp_path / "base.tflite"
    model.write_bytes(pixels_as_embedding(16))
    files = [tmp_path / "here.npz", tmp_path / "there.npz"]
    for file, engine in zip(files, (None, Shuffled()), strict=True):
        embed(model, crops, file, flip=True, engine=engine)
    here, there = (np.load(file)["embeddings"] for file in files)
    assert here.shape == (160, 16 * 16 * 3)
    assert np.array_equal(here, there)


@pytest.mark.slow
def test_a_worker_has_one_core_and_this_process_has_all() -> None:
    assert list(Processes(1).each(work_of, [0], nothing, ())) == [1]
    assert list(ThisProcess().each(work_of, [0], nothing, ())) == [cores()]


def test_without_ray_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    for module in [name for name in sys.modules if name.startswith("facetpu.engines.")]:
        monkeypatch.delitem(sys.modules, module)
    for command in ("align a b", "pack a b", "evaluate a b", "embed a b c"):
        done = CliRunner().invoke(main, [*command.split(), "--engine", "ray"])
        assert done.stderr == "Error: ray is not installed: run pip install 'facetpu[ray]'\n"


def test_an_address_is_for_ray() -> None:
    with pytest.raises(FacetpuError, match="--address is of a Ray cluster; give --engine ray too"):
        choose_engine("local", "auto")


def test_urls_are_told_from_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("photos", "/data/photos", "a:b/c", "C:/photos", "s3:/photos"):
        assert storage.place(text) == Path(text)
        assert not storage.is_remote(storage.place(text))
    assert storage.lies_in(Path("/a/b/c"), Path("/a/b"))
    assert not storage.lies_in(Path("/a/bc"), Path("/a/b"))
    monkeypatch.setitem(sys.modules, "upath", None)
    done = CliRunner().invoke(main, ["align", "s3://bucket/photos", "crops"])
    assert "upath is not installed: run pip install 'facetpu[cloud]'" in done.stderr


def test_records_kept_in_parts_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST", 3)
    records = [(f"{number}.jpg", {"seen": number}) for number in range(8)]
    assert list(kept.keep(records, tmp_path)) == records
    assert len(list(tmp_path.iterdir())) == 3
    assert sorted(kept.kept(tmp_path)) == records


def test_progress_tells_what_the_engine_has_to_tell(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facetpu.progress.LINE_SECONDS", 0)
    caplog.set_level(logging.INFO, logger="facetpu")
    assert list(progress(range(2), "align", note=Shuffled().status)) == [0, 1]
    assert all(message.endswith("/s; all is well") for message in caplog.messages)
    assert len(caplog.messages) == 2
