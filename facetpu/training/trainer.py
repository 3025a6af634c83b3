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

import numpy as np

from ..config import TrainConfig
from ..errors import FacetpuError
from ..losses import Objective, trains_head
from ..nets.checkpoint import BEST, PREFIX, by_name, check_checkpoint, latest_checkpoint, make_saver
from ..nets.classifier import Classifier
from ..nets.scopes import check_scopes, in_scopes
from ..nets.tensorflow import tf, v1
from ..nets.warm_start import spread_batch_norm, warm_start
from ..progress import progress
from .averages import Averages
from .history import History
from .mining import mine, mining_rows
from .records import Batch, Records, all_photos, some_photos, training_batches
from .sampling import Choose, read_index, sampler
from .teacher import cosine_loss, read_targets
from .validation import PHOTOS, compare, hard_pairs

log = logging.getLogger(__name__)

SUMMARY_EVERY = 20  # steps between two points of a TensorBoard curve
LOSS_MEMORY = 0.9  # share of the old average loss kept at each step
SPREAD_BATCHES = 8  # of training photos, over which the batch norm of a .tflite is spread
NAMED = 3  # photos of a bad batch that a message names


class Trainer:
    """The classifier, its optimiser, and where they are."""

    def __init__(self, config: TrainConfig, records: Records, run: Path) -> None:
        self.config = config
        self.records = records
        self.run = run
        self.steps = config.total_steps(records.photos)
        self.targets = read_targets(config.teacher, records) if config.teacher else None
        if config.teacher and self.targets and self.targets.dim != config.network.embedding_dim:
            raise FacetpuError(
                f"{config.teacher.model}: gives embeddings of {self.targets.dim} and network.embedding_dim "
                f"is {config.network.embedding_dim}; make them equal"
            )
        self.head_is_trained = config.loss.weight > 0 and trains_head(config.loss.name)
        tf.random.set_seed(config.seed)
        self._build()
        self.choose = self._sampler()
        self.saver = make_saver(self.variables, config.keep_checkpoints)
        self.best_saver = make_saver(self.variables, 1)
        self.events = tf.summary.create_file_writer(str(run / "events"))
        self.history = History(run)
        self.saved = -1
        self.best = (-1.0, 0)  # score and step
        self.stale = 0  # validations since then

    def _build(self) -> None:
        """The classifier and all that is trained with it; tracing makes every variable."""
        config, records = self.config, self.records
        network, people = config.network, len(records.labels)
        self.model = Classifier(network, people)
        self.objective = Objective(config.loss, people, network.embedding_dim, records.unknown)
        self.rate = tf.Variable(0.0, trainable=False)
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False, name="global_step")
        self.average = tf.Variable(0.0, trainable=False, name="average_loss")
        side = network.image_size
        photos = [tf.TensorSpec([None, side, side, 3]), tf.TensorSpec([None], tf.int64)]
        tf.function(lambda pixels, labels: self.model(pixels, True), photos).get_concrete_function()
        self.trained = [weight for weight in self.model.trainable_variables if self._is_trained(weight)]
        check_scopes(by_name(self.model.trainable_variables), network.trainable_scopes)
        if config.loss.scale is not None:
            by_name(self.model.variables)["Logits/scale"].assign(config.loss.scale)
        self.averages = Averages(self.trained, config.optimizer.average)
        self.optimizer = _optimizer(config, lambda: self.rate)
        dim = self.targets.dim if self.targets else 0
        self.update = tf.function(self._update, [*photos, tf.TensorSpec([None, dim])])
        self.update.get_concrete_function()
        self.run_model = tf.function(self._run_model, photos[:1])

    @property
    def variables(self) -> dict[str, Any]:
        """All that a checkpoint holds, by name."""
        held = [*self.model.variables, *self.optimizer.variables(), *self.objective.variables]
        return by_name([*held, *self.averages.variables, self.step, self.average])

    @property
    def done(self) -> int:
        """Steps trained so far."""
        return int(self.step.numpy())

    @property
    def average_loss(self) -> float:
        """The loss, averaged over the last steps."""
        return float(self.average.numpy())

    def start(self, path: Path) -> None:
        """Begin with the weights in ``path``; see :func:`facetpu.nets.warm_start.warm_start`."""
        variables = by_name(self.model.variables)
        network = self.config.network
        warm_start(path, network, variables)
        if path.suffix == ".tflite":
            photos = all_photos(self.records, self.records.train, self.config.batch_size)
            batches = [pixels.numpy() for pixels, _ in photos.take(SPREAD_BATCHES)]
            spread_batch_norm(network, variables, batches)
        self.averages.start()

    def restore(self) -> None:
        """Go on from the newest checkpoint, if the run was not killed before its first."""
        prefix = latest_checkpoint(self.run / "checkpoints")
        if prefix is None:
            log.info("%s: has no checkpoint yet; beginning at step 0", self.run)
            self.history.cut(0)
            return
        check_checkpoint(prefix, self.variables)
        reader = tf.train.load_checkpoint(prefix)
        for name, variable in self.variables.items():
            variable.assign(reader.get_tensor(name))
        self.saver.recover_last_checkpoints(
            tf.train.get_checkpoint_state(str(self.run / "checkpoints")).all_model_checkpoint_paths
        )
        self.saved = self.done
        if self.done > self.steps:
            raise FacetpuError(
                f"{self.run}: is at step {self.done} already, and the config ends at {self.steps}"
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
                f"{self.run}: stopped at step {self.done} of {self.steps}; "
                "run the same command with --resume to go on"
            ) from None
        if not self.head_is_trained:
            self._set_head()
            self.saved = -1  # the head is new
        self.save()
        return len(seconds) * self.config.batch_size / sum(seconds) if seconds else None

    def _train(self) -> list[float]:
        """Every step that is left; returns the seconds of each but the first, which loads the graph."""
        seconds: list[float] = []
        before = self.history.seconds
        batches = self._batches()
        left = progress(range(self.done, self.steps), "train", self.steps, unit="step", done=self.done)
        for step in left:
            start = time.perf_counter()
            self.rate.assign(self.config.optimizer.learning_rate_at(step, self.steps))
            batch = next(batches)
            loss = float(self.update(batch.pixels, batch.labels, batch.targets))
            seconds.append(time.perf_counter() - start)
            self._check(loss, batch)
            if step % SUMMARY_EVERY == 0:
                speed = self.config.batch_size / seconds[-1]
                figures = {
                    "loss": loss,
                    "learning_rate": float(self.rate.numpy()),
                    "images_per_second": speed,
                }
                self._record(before + sum(seconds), figures)
            if self.done % self.config.checkpoint_every == 0:
                self.save()
            if self.done % self.config.validate_every == 0 and self.done < self.steps:
                self.validate(before + sum(seconds))
                if self.config.patience is not None and self.stale >= self.config.patience:
                    log.info("step %d: no better for %d validations; ending", self.done, self.stale)
                    break
        return seconds[1:]

    def _batches(self) -> Iterator[Batch]:
        """The batches of every step that is left; mined ones in stretches, each with its own triplets."""
        if self.config.loss.name != "triplet_mined":
            yield from self._stretch(self.done, self.choose)
            return
        every = self.config.loss.mine_every
        while True:
            begin = self.done // every * every
            batches = self._stretch(self.done, self._mined(begin))
            for _ in range(begin + every - self.done):
                yield next(batches)

    def _stretch(self, start: int, choose: Choose | None) -> Iterator[Batch]:
        teach = self.targets.of if self.targets else None
        return iter(training_batches(self.records, self.config, start, choose, teach))

    def _sampler(self) -> Choose | None:
        """The choice of photos that the config asks for, checked before anything is trained."""
        config = self.config
        if config.sampling.by == "photos" and config.loss.name != "triplet_mined":
            return None
        labels = read_index(self.records.train).labels
        return sampler(labels, config.sampling, config.batch_size, config.seed)

    def _mined(self, begin: int) -> Choose:
        """The batches of mined triplets from step ``begin`` on; a resumed training finds them on disk."""
        config, folder = self.config, self.run / "mined"
        path = folder / f"step-{begin}.npy"
        if not (path.is_file() and begin < self.done):
            folder.mkdir(exist_ok=True)
            labels = read_index(self.records.train).labels
            rows = mining_rows(labels, config.loss.mine_from, [config.seed, begin, 3])
            embeddings = self._embed(some_photos(self.records, rows, config.batch_size))
            margin, unknown = self.objective.margin, self.records.unknown
            triplets = mine(embeddings, labels[rows], margin, unknown, [config.seed, begin, 4])
            np.save(path, rows[triplets])
            log.info("step %d: mined %d triplets among %d photos", begin, len(triplets), len(rows))
        triplets = np.load(path)

        def choose(step: int) -> np.ndarray:
            count = config.batch_size // 3
            places = np.arange((step - begin) * count, (step - begin + 1) * count) % len(triplets)
            return np.asarray(triplets[places].reshape(-1))

        return choose

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
        with self.averages:
            if self.records.validation_photos and self.head_is_trained:
                figures["validation_accuracy"] = self._accuracy()
            found = self._pairs()
        if found is not None:
            figures["validation_auc"], _, figures["validation_tar"] = found
        if figures:
            text = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in figures.items())
            log.info("step %d: loss %.3f, %s", self.done, self.average_loss, text)
            self._record(self.history.seconds if seconds is None else seconds, figures)
            score = _score(figures)
            if score is not None and self._rank(score, self.done) and self.config.keep_best:
                if not self.head_is_trained:
                    self._set_head()
                self._write(self.best_saver, self.run / "checkpoints" / BEST)
        return figures

    def _rank(self, score: float, step: int) -> bool:
        """Whether ``score`` is the best so far."""
        if score > self.best[0]:
            self.best, self.stale = (score, step), 0
            return True
        self.stale += 1
        return False

    def _accuracy(self) -> float:
        """The share of validation photos that the head tells right."""
        right = 0
        for pixels, labels in all_photos(self.records, self.records.validation, self.config.batch_size):
            right += int(np.sum(np.argmax(self.run_model(pixels)[1], axis=1) == labels))
        return right / self.records.validation_photos

    def _pairs(self) -> Any:
        """Figures over pairs of people held out, or else of validation photos; a picture of the hardest."""
        shards = self.records.held_out or self.records.validation
        if not shards:
            return None
        batches = list(
            all_photos(self.records, shards, self.config.batch_size).unbatch().take(PHOTOS).batch(64)
        )
        labels = np.concatenate([labels for _, labels in batches])
        embeddings = self._embed(batches)
        found = compare(embeddings, labels) if np.isfinite(embeddings).all() else None
        if found is not None:
            pixels = np.concatenate([np.asarray(pixels) for pixels, _ in batches]).astype(np.uint8)
            self.hardest = hard_pairs(embeddings, labels, pixels)
            self.validated = (embeddings, labels)
            with self._curves():
                tf.summary.image("hard_pairs", self.hardest[None], step=self.done)
        return found

    def _embed(self, batches: Any) -> np.ndarray:
        """Unit embeddings, float32 [n, D], of batches of photos."""
        rows = np.concatenate([self.run_model(pixels)[0] for pixels, _ in batches])
        rows = rows.reshape(len(rows), -1)
        return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))

    def _set_head(self) -> None:
        """Give the head, which was not trained, each person's mean embedding as its row."""
        photos = all_photos(self.records, self.records.train, self.config.batch_size)
        labels = read_index(self.records.train).labels
        with self.averages:
            embeddings = self._embed(photos)
        rows = np.zeros((len(self.records.labels), embeddings.shape[1]), np.float32)
        np.add.at(rows, labels[labels >= 0], embeddings[labels >= 0])
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        by_name(self.model.variables)["Logits/weights"].assign(rows.T[None, None])

    def _update(self, pixels: Any, labels: Any, targets: Any) -> Any:
        """One step of the optimiser; returns the loss without the weight decay."""
        with tf.GradientTape() as tape:
            output = self.model(pixels, True)
            loss = self._loss(output, labels, targets)
            decayed = [tf.nn.l2_loss(weight) for weight in self.trained if weight.name.endswith("/weights:0")]
            total = loss + self.config.optimizer.weight_decay * tf.add_n(decayed)
        self.average.assign(
            tf.where(self.step == 0, loss, LOSS_MEMORY * self.average + (1 - LOSS_MEMORY) * loss)
        )
        gradients = tape.gradient(total, self.trained)
        if self.config.optimizer.clip_norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, self.config.optimizer.clip_norm)
        self.optimizer.apply_gradients(zip(gradients, self.trained, strict=True), global_step=self.step)
        self.objective.update(output, labels)
        self.averages.update()
        return loss

    def _loss(self, output: Any, labels: Any, targets: Any) -> Any:
        settings, teacher = self.config.loss, self.config.teacher
        done = tf.cast(self.step, tf.float32) / self.steps
        loss = 0.0
        if settings.weight:
            if self.records.unlabelled or self.config.augmentation.mix:
                loss = tf.cond(
                    tf.reduce_any(labels >= 0),
                    lambda: self.objective(*_labelled(output, labels), done),
                    lambda: tf.constant(0.0),
                )
            else:
                loss = self.objective(output, labels, done)
            if settings.weight != 1:
                loss *= settings.weight
        if teacher is not None:
            loss += teacher.weight * cosine_loss(output.embedding, targets)
        return loss

    def _run_model(self, pixels: Any) -> Any:
        output = self.model(pixels, False)
        return output.embedding, output.cosines

    def _is_trained(self, weight: Any) -> bool:
        name = weight.name.split(":")[0]
        if name.startswith("Logits/"):
            fixed = name == "Logits/scale" and self.config.loss.scale is not None
            return self.head_is_trained and not fixed
        return in_scopes(name, self.config.network.trainable_scopes)


def _score(figures: dict[str, float]) -> float | None:
    """What says which checkpoint is best: people told apart, else photos told right."""
    return figures.get("validation_auc", figures.get("validation_accuracy"))


def _labelled(output: Any, labels: Any) -> tuple[Any, Any]:
    """Those of a batch that have a label."""
    known = labels >= 0
    chosen = output._replace(
        embedding=tf.boolean_mask(output.embedding, known), cosines=tf.boolean_mask(output.cosines, known)
    )
    return chosen, tf.boolean_mask(labels, known)


def _optimizer(config: TrainConfig, rate: Any) -> Any:
    """TensorFlow 1's optimisers: they name their slots as slim's checkpoints do."""
    if config.optimizer.name == "adam":
        return v1.train.AdamOptimizer(rate, beta1=config.optimizer.momentum)
    return v1.train.MomentumOptimizer(rate, config.optimizer.momentum)
