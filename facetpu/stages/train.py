"""Config + records -> run: a trained classifier, its checkpoints and its TensorBoard events.

A run folder is alive while it trains: TensorBoard can watch it, a kill leaves the last good
checkpoint, and the newest checkpoint can be exported at any time.
"""

from __future__ import annotations

import logging
import math
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

from ..artefacts import digest, finished, new_folder, write_manifest
from ..config import TrainConfig, read_config, write_config
from ..errors import FacetpuError
from ..labels import read_labels, write_labels
from ..losses import find_loss
from ..nets.checkpoint import PREFIX, by_name, check_checkpoint, latest_checkpoint, make_saver
from ..nets.classifier import Classifier, find_network
from ..nets.tensorflow import tf, v1
from ..progress import progress
from ..records import Records, find_damage, read_records, training_batches, validation_batches

log = logging.getLogger(__name__)

SUMMARY_EVERY = 20  # steps between two points of a TensorBoard curve
LOSS_MEMORY = 0.9  # share of the old average loss kept at each step


class TrainResult(NamedTuple):
    """Where the run is, and how it ended."""

    run: Path
    steps: int
    loss: float  # a moving average
    validation_accuracy: float | None  # None without validation photos
    images_per_second: float | None  # None where nothing was left to train

    def __str__(self) -> str:
        text = f"{self.run}: {self.steps} steps, loss {self.loss:.3f}"
        if self.validation_accuracy is not None:
            text += f", validation accuracy {self.validation_accuracy:.3f}"
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
        run: the folder to write: ``config.yaml``, ``labels.txt``, ``checkpoints/``, ``events/``.
        resume: go on from the newest checkpoint in ``run``, where there is one.
        overwrite: replace ``run``.

    Raises:
        FacetpuError: the config or the records are unfit, ``run`` exists, its checkpoint is of another
            network, a shard is damaged, or the loss is no longer a number.
    """
    run = Path(run)
    settings = config if isinstance(config, TrainConfig) else read_config(config)
    find_network(settings.network.name)
    find_loss(settings.loss)
    data = read_records(records)
    _check_size(settings, data)
    asked = {"config": settings.model_dump(), "inputs": {"records": digest(data.folder)}}
    done = finished(run, "train", **asked)
    if done and "steps" in done:
        log.info("%s: is up to date", run)
        return TrainResult(run, done["steps"], done["loss"], done["validation_accuracy"], None)

    going_on = resume and (run / "config.yaml").is_file()
    if going_on:
        _check_same(run, settings, data)
    elif (run / "config.yaml").is_file() and not overwrite:
        raise FacetpuError(f"{run}: exists; pass --resume to go on with it, or --overwrite to begin again")
    else:
        with new_folder(run, overwrite) as folder:
            write_labels(folder / "labels.txt", data.labels)
            _describe(folder, run, settings, data, asked)
    trainer = _Trainer(settings, data, run)
    if going_on:
        trainer.restore()
        _describe(run, run, settings, data, asked)
    speed = trainer.train()
    result = TrainResult(run, trainer.steps, trainer.average_loss, trainer.validate(), speed)
    results = {"steps": result.steps, "loss": result.loss, "validation_accuracy": result.validation_accuracy}
    _describe(run, run, settings, data, asked, **results)
    return result


class _Trainer:
    """The classifier, its optimiser, and where they are."""

    def __init__(self, config: TrainConfig, records: Records, run: Path) -> None:
        self.config = config
        self.records = records
        self.run = run
        self.steps = config.total_steps(records.photos)
        tf.random.set_seed(config.seed)
        self.model = Classifier(config.network, len(records.labels))
        self.loss = find_loss(config.loss)
        self.rate = tf.Variable(0.0, trainable=False)
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False, name="global_step")
        self.average = tf.Variable(0.0, trainable=False, name="average_loss")
        self.optimizer = _optimizer(config, lambda: self.rate)
        side = config.network.image_size
        signature = [tf.TensorSpec([None, side, side, 3]), tf.TensorSpec([None], tf.int64)]
        self.update = tf.function(self._update, input_signature=signature)
        self.count_right = tf.function(self._count_right, input_signature=signature)
        # Tracing makes every variable, the optimiser's included, so that all can be restored.
        self.update.get_concrete_function()
        self.variables = by_name(
            [*self.model.variables, *self.optimizer.variables(), self.step, self.average]
        )
        self.saver = make_saver(self.variables, config.keep_checkpoints)
        self.events = tf.summary.create_file_writer(str(run / "events"))
        self.saved = -1

    @property
    def done(self) -> int:
        """Steps trained so far."""
        return int(self.step)

    @property
    def average_loss(self) -> float:
        """The loss, averaged over the last steps."""
        return float(self.average)

    def restore(self) -> None:
        """Go on from the newest checkpoint, if the run was not killed before its first."""
        prefix = latest_checkpoint(self.run / "checkpoints")
        if prefix is None:
            log.info("%s: has no checkpoint yet; beginning at step 0", self.run)
            return
        check_checkpoint(prefix, self.variables)
        self.saver.restore(None, prefix)
        self.saver.recover_last_checkpoints(
            tf.train.get_checkpoint_state(str(self.run / "checkpoints")).all_model_checkpoint_paths
        )
        self.saved = self.done
        if self.done > self.steps:
            raise FacetpuError(
                f"{self.run}: is at step {self.done} already, and the config ends at {self.steps}"
            )
        log.info("%s: going on from step %d", self.run, self.done)

    def train(self) -> float | None:
        """Train to the last step; returns images per second, or None if no step was left."""
        try:
            seconds = self._train()
        except (tf.errors.DataLossError, tf.errors.InvalidArgumentError):
            damage = find_damage(self.records)
            if damage is None:
                raise
            raise damage from None
        except KeyboardInterrupt:
            self.save()
            raise KeyboardInterrupt(
                f"{self.run}: stopped at step {self.done} of {self.steps}; "
                "run the same command with --resume to go on"
            ) from None
        self.save()
        return len(seconds) * self.config.batch_size / sum(seconds) if seconds else None

    def _train(self) -> list[float]:
        """Every step that is left; returns the seconds of each but the first, which loads the graph."""
        seconds = []
        batches = iter(training_batches(self.records, self.config, self.done))
        left = progress(range(self.done, self.steps), "train", self.steps, unit="step", done=self.done)
        for step in left:
            start = time.perf_counter()
            self.rate.assign(self.config.optimizer.learning_rate_at(step, self.steps))
            loss = float(self.update(*next(batches)))
            seconds.append(time.perf_counter() - start)
            self._check(loss)
            if step % SUMMARY_EVERY == 0:
                speed = self.config.batch_size / seconds[-1]
                self._record(loss=loss, learning_rate=float(self.rate), images_per_second=speed)
            if self.done % self.config.checkpoint_every == 0:
                self.save()
            if self.done % self.config.validate_every == 0 and self.done < self.steps:
                self.validate()
        return seconds[1:]

    def _check(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise FacetpuError(
                f"{self.run}: the loss is {loss} at step {self.done}; lower optimizer.learning_rate "
                f"or lengthen optimizer.warmup; the last checkpoint is from step {max(self.saved, 0)}"
            )

    def _record(self, **scalars: float) -> None:
        """Add a point to each of these TensorBoard curves."""
        with self.events.as_default():
            for name, value in scalars.items():
                tf.summary.scalar(name, value, step=self.done)

    def save(self) -> None:
        """Write a checkpoint; the state file names it only once it is whole."""
        if self.done != self.saved:
            folder = self.run / "checkpoints"
            folder.mkdir(exist_ok=True)
            self.saver.save(None, str(folder / PREFIX), global_step=self.done)
            self.saved = self.done

    def validate(self) -> float | None:
        """The share of validation photos that are told right, or None if there are none."""
        if not self.records.validation_photos:
            return None
        batches = validation_batches(self.records, self.config.batch_size)
        right = sum(int(self.count_right(*batch)) for batch in batches)
        accuracy = right / self.records.validation_photos
        log.info("step %d: loss %.3f, validation accuracy %.3f", self.done, self.average_loss, accuracy)
        self._record(validation_accuracy=accuracy)
        return accuracy

    def _update(self, pixels: Any, labels: Any) -> Any:
        """One step of the optimiser; returns the loss without the weight decay."""
        with tf.GradientTape() as tape:
            loss = self.loss(self.model(pixels, True), labels)
            weights = self.model.trainable_variables
            decayed = [tf.nn.l2_loss(weight) for weight in weights if weight.name.endswith("/weights:0")]
            total = loss + self.config.optimizer.weight_decay * tf.add_n(decayed)
        self.average.assign(
            tf.where(self.step == 0, loss, LOSS_MEMORY * self.average + (1 - LOSS_MEMORY) * loss)
        )
        gradients = tape.gradient(total, weights)
        self.optimizer.apply_gradients(zip(gradients, weights, strict=True), global_step=self.step)
        return loss

    def _count_right(self, pixels: Any, labels: Any) -> Any:
        named = tf.argmax(self.model(pixels, False).cosines, axis=1)
        return tf.reduce_sum(tf.cast(named == labels, tf.int32))


def _optimizer(config: TrainConfig, rate: Any) -> Any:
    """TensorFlow 1's optimisers: they name their slots as slim's checkpoints do."""
    if config.optimizer.name == "adam":
        return v1.train.AdamOptimizer(rate, beta1=config.optimizer.momentum)
    return v1.train.MomentumOptimizer(rate, config.optimizer.momentum)


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
    for name in ("name", "depth_multiplier", "image_size", "embedding_dim"):
        old, new = getattr(before, name), getattr(config.network, name)
        if old != new:
            raise FacetpuError(
                f"{run}: network.{name} is {old} there and {new} in the config; "
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
