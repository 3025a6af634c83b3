"""The loop of a training: steps, checkpoints, validation, and how it ends."""

from __future__ import annotations

import contextlib
import logging
import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..config import TrainConfig
from ..errors import FacetpuError
from ..history import History
from ..nets.checkpoint import BEST, PREFIX, check_checkpoint, latest_checkpoint, make_saver
from ..nets.tensorflow import tf
from ..progress import progress
from .devices import Crew
from .feed import Feed
from .learner import Learner
from .records import Batch, Records
from .sampling import read_index
from .validation import Validated, accuracy, validate_pairs

log = logging.getLogger(__name__)

SUMMARY_EVERY = 20  # steps between two points of a TensorBoard curve
NAMED = 3  # photos of a bad batch that a message names


class Trainer:
    """A learner, what it is fed with, and what is kept of it in the folder ``run``."""

    def __init__(self, config: TrainConfig, records: Records, run: Path, crew: Crew) -> None:
        self.config = config
        self.records = records
        self.run = run
        self.learner = Learner(config, records, crew)
        self.feed = Feed(self.learner, run)
        self.saver = make_saver(self.learner.variables, config.keep_checkpoints)
        self.best_saver = make_saver(self.learner.variables, 1)
        self.events = tf.summary.create_file_writer(str(run / "events"))
        self.history = History(run)
        self.saved = -1
        self.best: tuple[tuple[float, ...], int] = ((), 0)  # score and step
        self.stale = 0  # validations since then
        self.validated: Validated | None = None

    @property
    def done(self) -> int:
        """Steps trained so far."""
        return self.learner.done

    def restore(self) -> None:
        """Go on from the newest checkpoint, if the run was not killed before its first."""
        prefix = latest_checkpoint(self.run / "checkpoints")
        if prefix is None:
            log.info("%s: has no checkpoint yet; beginning at step 0", self.run)
            self.history.cut(0)
            return
        check_checkpoint(prefix, self.learner.variables)
        reader = tf.train.load_checkpoint(prefix)
        for name, variable in self.learner.variables.items():
            variable.assign(reader.get_tensor(name))
        for saver, folder in ((self.saver, "checkpoints"), (self.best_saver, f"checkpoints/{BEST}")):
            state = tf.train.get_checkpoint_state(str(self.run / folder))
            if state is not None:
                saver.recover_last_checkpoints(state.all_model_checkpoint_paths)
        self.saved = self.done
        if self.done > self.learner.steps:
            raise FacetpuError(
                f"{self.run}: is at step {self.done} already, and the config ends at {self.learner.steps}"
            )
        self.history.cut(self.done)
        for row in self.history.rows:
            score = _score(row)
            if score is not None:
                self._rank(score, int(row["step"]))
        log.info("%s: going on from step %d", self.run, self.done)

    def train(self) -> float | None:
        """Train to the last step; returns images per second, or None if no step was left."""
        try:
            seconds = self._train()
        except KeyboardInterrupt:
            self.save()
            raise KeyboardInterrupt(
                f"{self.run}: stopped at step {self.done} of {self.learner.steps}; "
                "run the same command with --resume to go on"
            ) from None
        if not self.learner.head_is_trained:
            self.learner.set_head()
            self.saved = -1  # the head is new
        self.save()
        return len(seconds) * self.config.batch_size / sum(seconds) if seconds else None

    def _train(self) -> list[float]:
        """Every step that is left; returns the seconds of each but the first, which loads the graph."""
        seconds: list[float] = []
        before = self.history.seconds
        batches = self.feed.batches()
        left = progress(
            range(self.done, self.learner.steps), "train", self.learner.steps, unit="step", done=self.done
        )
        for step in left:
            if self.learner.validates_here and self._ends_here(before + sum(seconds)):
                break
            start = time.perf_counter()
            batch = next(batches)
            loss = self.learner.advance(batch)
            seconds.append(time.perf_counter() - start)
            self._check(loss, batch)
            if step % SUMMARY_EVERY == 0:
                speed = self.config.batch_size / seconds[-1]
                figures = {
                    "loss": loss,
                    "learning_rate": float(self.learner.rate.numpy()),
                    "images_per_second": speed,
                }
                self._record(before + sum(seconds), figures)
            if self.done % self.config.checkpoint_every == 0:
                self.save()
        return seconds[1:]

    def _ends_here(self, seconds: float) -> bool:
        """Validate, unless a run that goes on has it on record; whether patience ends with that.

        Args:
            seconds: of training up to now.
        """
        if all(row["step"] != self.done or _score(row) is None for row in self.history.rows):
            self.validate(seconds)
        ends = self.learner.ends_here(self.stale)
        if ends:
            log.info("step %d: no better for %d validations; ending", self.done, self.stale)
        return ends

    def _check(self, loss: float, batch: Batch) -> None:
        if math.isfinite(loss):
            return
        where = f"the last checkpoint is from step {max(self.saved, 0)}"
        rows = batch.rows.numpy()
        names = [read_index(self.records.train).names[row] for row in rows[:NAMED]]
        where += f", and the batch held {', '.join(names)} and {len(rows) - len(names)} others"
        raise FacetpuError(
            f"{self.run}: the loss is {loss} at step {self.done}; lower optimizer.learning_rate "
            f"or lengthen optimizer.warmup; {where}"
        )

    def _record(self, seconds: float, figures: dict[str, float]) -> None:
        """Add a point to each of these curves."""
        self.history.add(step=self.done, seconds=seconds, **figures)
        with self._curves():
            for name, value in figures.items():
                tf.summary.scalar(name, value, step=self.done)

    def save(self) -> None:
        """Write a checkpoint; the state file names it only once it is whole."""
        if self.done != self.saved:
            self._write(self.saver, self.run / "checkpoints")
            self.saved = self.done

    def _write(self, saver: Any, folder: Path) -> None:
        with self._written(folder, f"the checkpoint of step {self.done}"):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                saver.save(None, str(folder / PREFIX), global_step=self.done)
            except tf.errors.OpError:
                for part in folder.glob(f"{PREFIX}-{self.done}.*"):
                    part.unlink()  # half a checkpoint only takes room
                raise

    @contextlib.contextmanager
    def _curves(self) -> Iterator[None]:
        """Where TensorFlow's summaries go to the run's events."""
        with self._written(self.run / "events", "TensorBoard's curves"), self.events.as_default():
            yield

    @contextlib.contextmanager
    def _written(self, folder: Path, what: str) -> Iterator[None]:
        """Where TensorFlow cannot write to ``folder``, as on a full disk, say how to go on."""
        try:
            yield
        except tf.errors.OpError as error:
            reason = re.sub(r"\{\{.*?\}\} | \[Op:.*", "", str(error.message).splitlines()[0])
            raise FacetpuError(
                f"{folder}: {what} cannot be written: {reason}; free some space "
                f"and go on with --resume from step {max(self.saved, 0)}"
            ) from None

    def validate(self, seconds: float | None = None) -> dict[str, float]:
        """How well photos and people are told apart that were not trained on; empty without any.

        Args:
            seconds: of training up to now; None to take the last that was measured.
        """
        figures: dict[str, float] = {}
        with self.learner.averages:
            if self.records.validation_photos and self.learner.head_is_trained:
                figures["validation_accuracy"] = accuracy(self.learner)
            self.validated = validate_pairs(self.learner)
        if self.validated is not None:
            figures["validation_auc"], _, figures["validation_tar"] = self.validated.figures
            with self._curves():
                tf.summary.image("hard_pairs", self.validated.hardest[None], step=self.done)
        if figures:
            text = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in figures.items())
            log.info("step %d: loss %.3f, %s", self.done, self.learner.average_loss, text)
            score = _score(figures)
            if score is not None and self._rank(score, self.done) and self.config.keep_best:
                if not self.learner.head_is_trained:
                    self.learner.set_head()
                self._write(self.best_saver, self.run / "checkpoints" / BEST)
            # Only now: what is on record is not validated again, should this be killed.
            self._record(self.history.seconds if seconds is None else seconds, figures)
        return figures

    def _rank(self, score: tuple[float, ...], step: int) -> bool:
        """Whether ``score`` is the best so far."""
        if score > self.best[0]:
            self.best, self.stale = (score, step), 0
            return True
        self.stale += 1
        return False


def _score(figures: dict[str, float]) -> tuple[float, ...] | None:
    """What says which checkpoint is best: people told apart, else photos told right.

    By TAR at FAR 1% first, and by AUC where that says nothing. The other way round it would count most how
    the pairs are told apart that nobody takes for one person, as those of two collections of photos.
    """
    if "validation_tar" in figures:
        return figures["validation_tar"], figures["validation_auc"]
    return (figures["validation_accuracy"],) if "validation_accuracy" in figures else None
