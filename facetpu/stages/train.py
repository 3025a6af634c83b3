"""Config + records -> run: a trained classifier, its checkpoints and its TensorBoard events.

A run folder is alive while it trains: TensorBoard can watch it, a kill leaves the last good
checkpoint, and the newest checkpoint can be exported at any time.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..artefacts import digest, finished, locked, new_folder, write_manifest
from ..config import TrainConfig, read_config, write_config
from ..errors import FacetpuError
from ..labels import read_labels, write_labels
from ..losses import find_loss
from ..nets.classifier import check_network
from ..training.devices import Crew, open_crew
from ..training.follower import Follower
from ..training.records import Records, damage_named, read_records
from ..training.report import write_projector, write_report
from ..training.teacher import teacher_key
from ..training.trainer import Trainer

log = logging.getLogger(__name__)


class TrainResult(NamedTuple):
    """Where the run is, and how it ended."""

    run: Path
    steps: int
    loss: float  # a moving average
    validation_accuracy: float | None  # None without validation photos
    images_per_second: float | None  # None where nothing was left to train
    validation_auc: float | None = None  # over pairs of photos; None without two of one person and of two
    validation_tar: float | None = None  # of the same pairs, at FAR 1%
    best_step: int | None = None  # which validated best

    def __str__(self) -> str:
        text = f"{self.run}: {self.steps} steps, loss {self.loss:.3f}"
        if self.validation_accuracy is not None:
            text += f", validation accuracy {self.validation_accuracy:.3f}"
        if self.validation_auc is not None:
            text += f", AUC of pairs {self.validation_auc:.3f}"
        if self.validation_tar is not None:
            text += f", TAR at FAR 1% {self.validation_tar:.3f}"
        if self.best_step is not None:
            text += f", best at step {self.best_step}"
        if self.images_per_second is not None:
            text += f", {self.images_per_second:.0f} images/s"
        return text


def train(
    config: Path | TrainConfig, records: Path, run: Path, resume: bool = False, overwrite: bool = False
) -> TrainResult:
    """Train the network of ``config`` on ``records``.

    Args:
        config: a YAML file, or the settings themselves.
        records: a folder of ``facetpu pack``.
        run: the folder to write: ``config.yaml``, ``labels.txt``, ``checkpoints/``, ``events/``,
            ``history.csv``, ``report.html``.
        resume: go on from the newest checkpoint in ``run``, where there is one.
        overwrite: replace ``run``.

    Raises:
        FacetpuError: the config or the records are unfit, ``run`` exists, its checkpoint is of another
            network, another training is going on in it, a shard is damaged, or the loss is no longer a
            number.
    """
    run = Path(run)
    settings = config if isinstance(config, TrainConfig) else read_config(config)
    check_network(settings.network)
    find_loss(settings.loss.name)
    data = read_records(records)
    _check_size(settings, data)
    asked = {"config": _plain(settings), "inputs": _digests(settings, data)}
    crew = open_crew(settings)
    done = (finished(run, "train", **asked) if crew.chief else None) or {}
    steps, loss = crew.tell(np.array([done.get("steps", -1), done.get("loss", 0.0)]))
    if steps >= 0:
        log.info("%s: is up to date", run)
        return _result(run, {"steps": int(steps), "loss": float(loss), **done}, None)
    if not crew.chief:
        return _follow(settings, data, run, crew)

    going_on = resume and (run / "config.yaml").is_file()
    if going_on:
        _check_same(run, settings, data)
    elif (run / "config.yaml").is_file() and not overwrite:
        raise FacetpuError(f"{run}: exists; pass --resume to go on with it, or --overwrite to begin again")
    else:
        with new_folder(run, overwrite) as folder:
            write_labels(folder / "labels.txt", data.labels)
            _describe(folder, run, settings, data, asked)
    with locked(run):  # as long as it is alive; two trainings would write each other's checkpoints
        return _lead(settings, data, run, crew, asked, going_on)


def _lead(
    config: TrainConfig, records: Records, run: Path, crew: Crew, asked: dict[str, Any], going_on: bool
) -> TrainResult:
    """Train in ``run``, which is there, and write down how it ended."""
    with damage_named(records):
        trainer = Trainer(config, records, run, crew)
        if going_on:
            trainer.restore()
            _describe(run, run, config, records, asked)
        if config.warm_start and trainer.done == 0:
            trainer.learner.start(Path(config.warm_start))
        trainer.learner.agree()
        speed = trainer.train()
        figures = trainer.validate()
    results = {
        "steps": trainer.done,
        "loss": trainer.learner.average_loss,
        "validation_accuracy": figures.get("validation_accuracy"),
        "validation_auc": figures.get("validation_auc"),
        "validation_tar": figures.get("validation_tar"),
        "best_step": trainer.best[1] if figures else None,
    }
    write_projector(trainer)
    write_report(trainer, run / "report.html")
    _describe(run, run, config, records, asked, **results)
    crew.tell(np.array(0))  # the others wait, so as to know whether it ended well
    return _result(run, results, speed)


def _follow(config: TrainConfig, records: Records, run: Path, crew: Crew) -> TrainResult:
    """Take part in the training that the chief leads, and end with it."""
    with damage_named(records):
        follower = Follower(config, records, run, crew)
        follower.learner.agree()
        follower.train()
    crew.tell(np.array(0))
    return _result(run, {"steps": follower.learner.done, "loss": follower.learner.average_loss}, None)


def _result(run: Path, found: dict[str, Any], speed: float | None) -> TrainResult:
    return TrainResult(
        run,
        found["steps"],
        found["loss"],
        found.get("validation_accuracy"),
        speed,
        found.get("validation_auc"),
        found.get("validation_tar"),
        found.get("best_step"),
    )


def _plain(config: TrainConfig) -> dict[str, Any]:
    """The settings without the paths in them, whose files the digests stand for."""
    settings = config.model_dump(exclude={"warm_start": True, "teacher": {"model"}})
    return dict(settings)


def _digests(config: TrainConfig, records: Records) -> dict[str, str]:
    """What the outcome depends on beside the settings.

    Raises:
        FacetpuError: the teacher, or what is to be started from, is not there.
    """
    inputs = {"records": digest(records.folder)}
    if config.teacher is not None:
        inputs["teacher"] = teacher_key(config.teacher)
    if config.warm_start is not None:
        path = Path(config.warm_start)
        index = path.with_name(f"{path.name}.index")
        found = next((place for place in (path, index) if place.exists()), None)
        if found is None:
            raise FacetpuError(f"{path}: no such run, checkpoint or .tflite; check warm_start in the config")
        inputs["warm_start"] = digest(found)
    return inputs


def _check_size(config: TrainConfig, records: Records) -> None:
    size = config.network.image_size
    if records.image_size != size:
        raise FacetpuError(
            f"{records.folder}: holds photos of {records.image_size} px, and the config's "
            f"network.image_size is {size}; change it, or align with --size {size} and pack again"
        )


def _check_same(run: Path, config: TrainConfig, records: Records) -> None:
    """Refuse to go on with another network, or on other people."""
    before = read_config(run / "config.yaml").network
    for name in ("name", "multiplier", "image_size", "embedding_dim", "quantization_aware"):
        old, new = getattr(before, name), getattr(config.network, name)
        if old != new:
            setting = "depth_multiplier" if name == "multiplier" else name
            raise FacetpuError(
                f"{run}: network.{setting} is {old} there and {new} in the config; "
                "resume with the same network, or train into another folder"
            )
    if read_labels(run / "labels.txt") != records.labels:
        raise FacetpuError(
            f"{run}: was trained on other people than those in {records.folder}; "
            "resume with the same records, or train into another folder"
        )


def _describe(
    folder: Path, run: Path, config: TrainConfig, records: Records, asked: dict[str, Any], **results: Any
) -> None:
    """Write ``config.yaml`` and ``manifest.json``; export finds the records again by their relative path."""
    write_config(folder / "config.yaml", config)
    write_manifest(
        folder,
        "train",
        **asked,
        alignment=records.alignment,
        people=len(records.labels),
        photos=records.photos,
        records=os.path.relpath(records.folder.resolve(), run.resolve()),
        **results,
    )
