"""Training: that it learns, what it leaves on disk, and how it goes on after a kill."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from crops import write_crops

from facetpu.cli import main
from facetpu.config import TrainConfig, write_config
from facetpu.errors import FacetpuError
from facetpu.labels import read_labels
from facetpu.stages.pack import pack

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    write_crops(folder / "crops", people=4, photos=10)
    pack(folder / "crops", folder / "records", shards=2, validation=0.2)
    return folder / "records"


def settings(**changes: Any) -> TrainConfig:
    network = {"name": "tiny", "image_size": 32, "embedding_dim": 8, "batch_norm_decay": 0.8}
    asked = {
        "network": network, "steps": 80, "batch_size": 8, "checkpoint_every": 10, "validate_every": 12,
        "optimizer": {"learning_rate": 0.01},
    }  # fmt: skip
    return TrainConfig.model_validate({**asked, **changes})


@pytest.fixture(scope="module")
def whole(records: Path, tmp_path_factory: pytest.TempPathFactory, tiny: None) -> Any:
    """What a training of 80 steps told; its folder is for looking at, or to be copied."""
    from facetpu.stages.train import train

    return train(settings(), records, tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def run(whole: Any, records: Path) -> Iterator[Path]:
    """A copy of that training's folder, as far from the records as the original."""
    copy = whole.run.with_name("copy")
    yield shutil.copytree(whole.run, copy)
    shutil.rmtree(copy)


def variables(run: Path) -> dict[str, np.ndarray]:
    from facetpu.nets.tensorflow import tf

    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(run / "checkpoints")))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def test_a_training_learns_and_says_how_well(whole: Any, records: Path) -> None:
    assert whole.steps == 80
    assert whole.loss < 1.0  # a guess among four people costs 1.39
    assert whole.validation_accuracy == 1.0
    assert whole.images_per_second > 0
    found = {path.relative_to(whole.run).parts[0] for path in whole.run.rglob("*")}
    assert found == {
        *("checkpoints", "config.yaml", "events", "history.csv", "labels.txt", "manifest.json"),
        "report.html",
    }
    manifest = json.loads((whole.run / "manifest.json").read_text())
    assert manifest["alignment"] == {"template": "arcface", "size": 32, "margin": 44}
    assert (whole.run / manifest["records"]).resolve() == records.resolve()


def test_tensorboard_gets_its_curves(whole: Any) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(whole.run / "events"))
    events.Reload()
    steps = {tag: [event.step for event in events.Tensors(tag)] for tag in sorted(events.Tags()["tensors"])}
    assert steps == {
        "images_per_second": [1, 21, 41, 61],
        "learning_rate": [1, 21, 41, 61],
        "loss": [1, 21, 41, 61],
        "validation_accuracy": [12, 24, 36, 48, 60, 72, 80],
        "validation_auc": [12, 24, 36, 48, 60, 72, 80],
        "validation_tar": [12, 24, 36, 48, 60, 72, 80],
        "hard_pairs": [12, 24, 36, 48, 60, 72, 80],
    }


def test_a_rerun_does_nothing_and_another_training_is_not_overwritten(
    whole: Any, run: Path, records: Path
) -> None:
    from facetpu.artefacts import locked
    from facetpu.stages.train import train

    before = (run / "manifest.json").stat().st_mtime_ns
    assert train(settings(), records, run) == whole._replace(run=run, images_per_second=None)
    assert (run / "manifest.json").stat().st_mtime_ns == before
    with pytest.raises(FacetpuError, match=r"copy: exists; pass --resume .* or --overwrite"):
        train(settings(steps=3), records, run)
    assert train(settings(steps=3), records, run, overwrite=True).steps == 3
    with locked(run), pytest.raises(FacetpuError, match=r"copy: another run is writing it"):
        train(settings(steps=4), records, run, resume=True)


def test_a_killed_training_resumes_as_if_undisturbed(
    whole: Any, records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from facetpu.history import read_history
    from facetpu.stages import train as stage
    from facetpu.training import trainer

    def killed(steps: range, *args: Any, **kwargs: Any) -> Iterator[int]:
        yield from steps[:15]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "progress", killed)
        with pytest.raises(KeyboardInterrupt, match=r"stopped at step 15 of 80; .* --resume"):
            stage.train(settings(), records, tmp_path / "run")
    with pytest.raises(FacetpuError, match="run: exists; pass --resume"):
        stage.train(settings(), records, tmp_path / "run")
    # A power cut in the middle of writing step 15 leaves its files but not its name in the list.
    shutil.copy(
        tmp_path / "run/checkpoints/model.ckpt-15.index", tmp_path / "run/checkpoints/model.ckpt-99.index"
    )
    resumed = stage.train(settings(), records, tmp_path / "run", resume=True)
    assert resumed._replace(run=whole.run, images_per_second=None) == whole._replace(images_per_second=None)
    one, other = variables(whole.run), variables(tmp_path / "run")
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    for column in ("step", "loss", "validation_auc"):
        curves = [[row.get(column) for row in read_history(run)] for run in (whole.run, tmp_path / "run")]
        assert curves[0] == curves[1], column


def test_resume_begins_where_there_is_nothing_yet(records: Path, tmp_path: Path) -> None:
    from facetpu.stages.train import train

    assert train(settings(steps=1), records, tmp_path / "run", resume=True).steps == 1


def test_a_damaged_history_is_told_before_a_run_goes_on(run: Path, records: Path) -> None:
    from facetpu.stages.train import train

    history = run / "history.csv"
    lines = history.read_text().splitlines()
    history.write_text("\n".join([*lines[:2], "no numbers", *lines[2:]]) + "\n")
    with pytest.raises(FacetpuError, match=r"history.csv: line 3 is no measurement .* delete that line"):
        train(settings(steps=90), records, run, resume=True)
    history.write_text("\n".join(lines) + "\n")
    assert train(settings(steps=90), records, run, resume=True).steps == 90


def test_a_run_of_another_network_is_not_resumed(run: Path, records: Path) -> None:
    from facetpu.stages.train import train

    other = settings(network={"name": "tiny", "image_size": 32, "embedding_dim": 9})
    with pytest.raises(FacetpuError, match=r"network.embedding_dim is 8 there and 9 in the config"):
        train(other, records, run, resume=True)
    (run / "labels.txt").write_text("0  somebody else\n")
    with pytest.raises(FacetpuError, match="trained on other people"):
        train(settings(steps=90), records, run, resume=True)


def test_a_loss_that_is_no_number_stops_the_training(records: Path, tmp_path: Path) -> None:
    from facetpu.stages.train import train

    wild = settings(optimizer={"learning_rate": 1e30, "warmup": 0}, checkpoint_every=1)
    told = r"the loss is (nan|inf) at step \d+; lower optimizer.learning.* held person \d/\d.png, .* 5 others"
    with pytest.raises(FacetpuError, match=told):
        train(wild, records, tmp_path / "run")


def test_bad_records_are_told_in_one_line(records: Path, tmp_path: Path) -> None:
    from facetpu.stages.train import train

    run = tmp_path / "run"
    (tmp_path / "empty").mkdir()
    with pytest.raises(FacetpuError, match="empty: holds no records; make them with facetpu pack"):
        train(settings(), tmp_path / "empty", run)
    large = settings(network={"name": "tiny", "image_size": 64})
    with pytest.raises(FacetpuError, match=r"photos of 32 px, and the config's network.image_size is 64"):
        train(large, records, run)
    copy = shutil.copytree(records, tmp_path / "copy")
    shard = copy / "train-00001-of-00002.tfrecord"
    whole = shard.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    shard.write_bytes(damaged)
    with pytest.raises(FacetpuError, match=r"train-00001-of-00002.tfrecord: is damaged after \d+ photos"):
        train(settings(), copy, run)
    shard.write_bytes(whole[:-9])
    with pytest.raises(FacetpuError, match=r"has \d+ bytes and should have \d+; pack the records again"):
        train(settings(), copy, run, overwrite=True)
    shard.unlink()
    with pytest.raises(FacetpuError, match=r"train-00001-of-00002.tfrecord: is missing"):
        train(settings(), copy, run, overwrite=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "softmx"}, "loss: there is no loss 'softmx'; did you mean softmax?"),
        (
            {"network": {"name": "mobilenet_v3"}},
            "network.name: there is no network 'mobilenet_v3'; did you mean mobilenet_v2?",
        ),
    ],
)
def test_an_unknown_network_or_loss_is_told(
    records: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    from facetpu.stages.train import train

    with pytest.raises(FacetpuError) as error:
        train(settings(**changes), records, tmp_path / "run")
    assert str(error.value) == message


def test_every_photo_comes_once_an_epoch_and_each_epoch_in_its_own_order(records: Path) -> None:
    from facetpu.config import Augmentation
    from facetpu.training.records import read_records, training_batches

    plain = Augmentation(flip=False, shift=0, zoom=0, brightness=0, contrast=0, saturation=0)
    config = settings(augmentation=plain)
    data = read_records(records)

    def sums(start: int, count: int) -> list[float]:
        batches = training_batches(data, config, start).take(count).as_numpy_iterator()
        return [float(pixels.sum()) for batch in batches for pixels in batch.pixels]

    three_epochs = sums(0, 12)  # 32 photos in batches of 8
    assert len(set(three_epochs)) == 32
    epochs = [three_epochs[index : index + 32] for index in (0, 32, 64)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(epochs[2])
    assert epochs[0] != epochs[1] != epochs[2]
    assert sums(5, 7) == three_epochs[40:]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"loss": {"name": "triplet_mined", "mine_every": 8}, "batch_size": 9, "optimizer": {"average": 0.9}},
        {
            "loss": {"name": "cosface", "center_weight": 0.1, "scale": 16, "margin_ramp": [0, 0.5]},
            "sampling": {"by": "people"},
            "optimizer": {"name": "adam", "learning_rate": 0.003, "clip_norm": 1.0},
        },
    ],
)
def test_whatever_it_holds_a_training_resumes_to_the_same_bits(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    from facetpu.stages.train import train
    from facetpu.training import trainer

    def killed(steps: range, *args: Any, **kwargs: Any) -> Iterator[int]:
        yield from steps[:12]
        raise KeyboardInterrupt

    whole = train(settings(steps=20, **changes), records, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "progress", killed)
        with pytest.raises(KeyboardInterrupt):
            train(settings(steps=20, **changes), records, tmp_path / "run")
    resumed = train(settings(steps=20, **changes), records, tmp_path / "run", resume=True)
    assert (resumed.loss, resumed.validation_auc) == (whole.loss, whole.validation_auc)
    one, other = variables(tmp_path / "whole"), variables(tmp_path / "run")
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_a_training_killed_while_it_validates_validates_again_and_keeps_the_same_best(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from facetpu.history import read_history
    from facetpu.nets.checkpoint import chosen_checkpoint
    from facetpu.stages.train import train
    from facetpu.training import trainer

    def killed(learner: Any) -> Any:
        if learner.done == 20:
            raise KeyboardInterrupt
        return validate_pairs(learner)

    validate_pairs = trainer.validate_pairs
    config = settings(steps=30, validate_every=10, keep_best=True)
    whole = train(config, records, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "validate_pairs", killed)
        with pytest.raises(KeyboardInterrupt):
            train(config, records, tmp_path / "run")
    resumed = train(config, records, tmp_path / "run", resume=True)
    assert (resumed.best_step, resumed.validation_auc) == (whole.best_step, whole.validation_auc)
    histories = [
        [(row["step"], row["validation_auc"]) for row in read_history(run) if "validation_auc" in row]
        for run in (whole.run, resumed.run)
    ]
    assert histories[0] == histories[1]
    assert [step for step, _ in histories[0]] == [10, 20, 30]
    chosen = [Path(chosen_checkpoint(run) or "").relative_to(run) for run in (whole.run, resumed.run)]
    assert chosen[0] == chosen[1]


def test_the_best_checkpoint_is_exported_and_patience_ends(records: Path, tmp_path: Path) -> None:
    from facetpu.stages.freeze import freeze
    from facetpu.stages.train import train

    config = settings(
        steps=60, validate_every=5, keep_best=True, patience=2, sampling={"by": "identities"},
        loss="triplet", optimizer={"learning_rate": 0.01},
    )  # fmt: skip
    result = train(config, records, tmp_path / "run")
    assert result.best_step is not None
    assert result.steps <= result.best_step + 10 or result.steps == 60
    assert freeze(tmp_path / "run", tmp_path / "frozen").step == result.best_step


def test_what_validates_best_has_the_highest_tar_and_then_auc(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from facetpu.stages.freeze import freeze
    from facetpu.stages.train import train
    from facetpu.training import trainer
    from facetpu.training.validation import PairFigures

    def found(learner: Any) -> Any:
        return validate_pairs(learner)._replace(figures=of_step[learner.done])

    validate_pairs = trainer.validate_pairs
    of_step = {
        5: PairFigures(auc=0.99, accuracy=0.9, tar=0.2),
        10: PairFigures(auc=0.8, accuracy=0.9, tar=0.5),
        15: PairFigures(auc=0.9, accuracy=0.8, tar=0.5),
        20: PairFigures(auc=0.95, accuracy=0.95, tar=0.4),
        25: PairFigures(auc=0.9, accuracy=0.9, tar=0.5),
    }
    config = settings(steps=25, validate_every=5, checkpoint_every=5, keep_best=True)
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "validate_pairs", found)
        result = train(config, records, tmp_path / "run")
        assert ", AUC of pairs 0.900, TAR at FAR 1% 0.500, best at step 15, " in str(result)
        assert train(config, records, tmp_path / "run", resume=True).best_step == 15
    assert freeze(tmp_path / "run", tmp_path / "frozen").step == 15


def test_a_run_whose_patience_ended_does_not_train_on_when_it_is_resumed(
    records: Path, tmp_path: Path
) -> None:
    from facetpu.history import read_history
    from facetpu.stages.train import train

    network = {"name": "tiny", "image_size": 32, "embedding_dim": 8, "trainable_scopes": ["Embedding"]}
    config = settings(
        steps=60, validate_every=5, checkpoint_every=5, patience=2, network=network,
        optimizer={"learning_rate": 1e-12},
    )  # fmt: skip
    ended = train(config, records, tmp_path / "run")
    assert ended.steps == 15  # nothing got better than at step 5
    history = read_history(tmp_path / "run")
    resumed = train(config, records, tmp_path / "run", resume=True)
    assert (resumed.steps, resumed.validation_auc) == (15, ended.validation_auc)
    assert read_history(tmp_path / "run") == history


def test_a_training_tells_people_apart_whom_it_never_saw_and_knows_the_unknown(tmp_path: Path) -> None:
    from facetpu.history import read_history
    from facetpu.metrics import auc, roc

    write_crops(tmp_path / "crops", people=6, photos=6)
    write_crops(tmp_path / "everybody", people=12, photos=2)
    for person in range(6, 12):
        shutil.move(tmp_path / "everybody" / f"person {person}", tmp_path / "others" / str(person))
    options = ["--held-out", 0.34, "--unknown", tmp_path / "others", "--validation", 0.2, "--shards", 2]
    facetpu("pack", tmp_path / "crops", tmp_path / "records", *options)
    config = settings(
        loss={"name": "cosface", "scale": 16}, optimizer={"name": "adam", "learning_rate": 0.01}, steps=160
    )
    write_config(tmp_path / "config.yaml", config)
    told = facetpu("train", tmp_path / "config.yaml", tmp_path / "records", tmp_path / "run", "--json")
    found = json.loads(told)
    assert found["validation_accuracy"] > 0.6  # a guess among four and the unknown is right once in five
    embeddings, labels = embed_run(tmp_path / "run", tmp_path / "records", "held_out")
    assert len(labels) == 12
    first, second = np.triu_indices(12, 1)
    curve = roc((embeddings @ embeddings.T)[first, second], (labels[:, None] == labels)[first, second])
    assert found["validation_auc"] == pytest.approx(auc(curve), abs=1e-6)
    assert found["validation_auc"] > 0.9
    last = read_history(tmp_path / "run")[-1]
    assert last["validation_auc"] == found["validation_auc"]
    assert last["validation_tar"] == found["validation_tar"]
    assert read_labels(tmp_path / "run" / "labels.txt")[-1] == "unknown"


def embed_run(run: Path, records: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows of the photos of ``split`` by the frozen network, and their labels."""
    from facetpu.evaluation.embedders import find_source, open_embedder
    from facetpu.training.records import all_photos, read_records

    data = read_records(records)
    pixels, labels = zip(*all_photos(data, getattr(data, split), 7), strict=True)
    rows = open_embedder(find_source(run)).embed(np.concatenate(pixels).astype(np.uint8))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), np.concatenate(labels)


@pytest.mark.parametrize("split", ["validation", "held_out"])
def test_damage_to_photos_that_are_not_trained_on_is_told_too(tmp_path: Path, split: str) -> None:
    from facetpu.stages.train import train

    write_crops(tmp_path / "crops", people=6, photos=4)
    pack(tmp_path / "crops", tmp_path / "records", shards=1, validation=0.5, held_out=0.34)
    shard = tmp_path / "records" / f"{split}-00000-of-00001.tfrecord"
    damaged = bytearray(shard.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    shard.write_bytes(damaged)
    with pytest.raises(FacetpuError, match=rf"{split}-00000-of-00001.tfrecord: is damaged after \d photos"):
        train(settings(steps=1), tmp_path / "records", tmp_path / "run")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can mount a small disk")
@pytest.mark.parametrize(
    ("what", "changes"),
    [
        (r"checkpoints: the checkpoint of step \d+", {"checkpoint_every": 1, "keep_checkpoints": 99}),
        pytest.param(
            "events: TensorBoard's curves",
            {"checkpoint_every": 2, "validate_every": 3},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_full_disk_leaves_the_last_good_checkpoint(
    whole: Any, records: Path, tmp_path: Path, what: str, changes: dict[str, Any]
) -> None:
    from facetpu.nets.checkpoint import latest_checkpoint

    config, small = tmp_path / "config.yaml", tmp_path / "small disk"
    write_config(config, settings(**{"validate_every": 500, **changes}))
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", small], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        told = facetpu("train", config, records, small / "run", fails=True)
        (line,) = [text for text in told.splitlines() if text.startswith("Error: ")]
        found = re.fullmatch(
            rf"Error: .*/run/{what} cannot be written: .*[Nn]o space left on device; "
            r"free some space and go on with --resume from step (\d+)",
            line,
        )
        assert found, line
        last, names = int(found[1]), {path.name for path in (small / "run/checkpoints").iterdir()}
        assert latest_checkpoint(small / "run/checkpoints") == str(
            small / f"run/checkpoints/model.ckpt-{last}"
        )
        assert last > 0
        assert not [name for name in names if name.startswith(f"model.ckpt-{last + 1}.")]
        subprocess.run(["mount", "-o", "remount,size=9m", small], check=True)
        write_config(config, settings(validate_every=500))
        facetpu("train", config, records, small / "run", "--resume")
        one, other = variables(whole.run), variables(small / "run")
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    finally:
        subprocess.run(["umount", "--lazy", small], check=True)  # TensorBoard's file is open yet


def facetpu(*arguments: Any, fails: bool = False) -> str:
    """What the command prints; its errors where it ``fails``."""
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert (done.exit_code != 0) == fails, done.stderr
    return done.stderr if fails else done.stdout
