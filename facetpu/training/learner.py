"""What is trained, and one step of it: the classifier, its objective, its optimiser, its averages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..config import TrainConfig
from ..losses import Objective, compares_photos, trains_head
from ..nets.checkpoint import by_name
from ..nets.classifier import Classifier
from ..nets.replicas import gathered, replicas, summed
from ..nets.scopes import check_scopes, in_scopes
from ..nets.tensorflow import tf, v1
from ..nets.warm_start import spread_batch_norm, warm_start
from .averages import Averages
from .devices import Crew
from .records import Batch, Records, all_photos
from .sampling import read_index
from .teacher import cosine_loss

LOSS_MEMORY = 0.9  # share of the old average loss kept at each step
# Of training photos, over which the batch norm of a .tflite is spread and the first ranges are measured.
SPREAD_BATCHES = 8


class Learner:
    """The classifier and all that is trained with it."""

    def __init__(self, config: TrainConfig, records: Records, crew: Crew) -> None:
        self.crew = crew
        self.config = config
        self.records = records
        self.steps = config.total_steps(records.photos)
        self.head_is_trained = config.loss.weight > 0 and trains_head(config.loss.name)
        tf.random.set_seed(config.seed)
        network, people = config.network, len(records.labels)
        self.model = Classifier(network, people)
        self.objective = Objective(config.loss, people, network.embedding_dim, records.unknown)
        self.rate = tf.Variable(0.0, trainable=False)
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False, name="global_step")
        self.average = tf.Variable(0.0, trainable=False, name="average_loss")
        side = network.image_size
        photos = [tf.TensorSpec([None, side, side, 3]), tf.TensorSpec([None], tf.int64)]
        # Of a network that is trained for integers, it moves nothing but the ranges of its activations.
        self.measure = tf.function(lambda pixels: self.model(pixels, True), photos[:1], autograph=False)
        self.measure.get_concrete_function()
        self.trained = [weight for weight in self.model.trainable_variables if self._is_trained(weight)]
        check_scopes(by_name(self.model.trainable_variables), network.trainable_scopes)
        if config.loss.scale is not None:
            by_name(self.model.variables)["Logits/scale"].assign(config.loss.scale)
        self.averages = Averages(self.trained, config.optimizer.average)
        self.optimizer = _optimizer(config, lambda: self.rate)
        dim = config.network.embedding_dim if config.teacher else 0  # a teacher's is the same
        self.update = tf.function(self._update, [*photos, tf.TensorSpec([None, dim])], autograph=False)
        self.update.get_concrete_function()
        self.run_model = tf.function(self._run_model, photos[:1], autograph=False)

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
    def validates_here(self) -> bool:
        """Whether the steps done are a number to validate at, before the last."""
        return 0 < self.done < self.steps and self.done % self.config.validate_every == 0

    @property
    def average_loss(self) -> float:
        """The loss, averaged over the last steps."""
        return float(self.average.numpy())

    def start(self, path: Path) -> None:
        """Begin with the weights in ``path``; see :func:`facetpu.nets.warm_start.warm_start`."""
        variables = by_name(self.model.variables)
        network = self.config.network
        warm_start(path, network, variables)
        photos = all_photos(self.records, self.records.train, self.config.batch_size).take(SPREAD_BATCHES)
        if network.quantization_aware:
            for pixels, _ in photos:
                self.measure(pixels)
        elif path.suffix == ".tflite":
            spread_batch_norm(network, variables, [pixels.numpy() for pixels, _ in photos])
        self.averages.start()

    def agree(self) -> None:
        """Take over what the chief begins with, where this is another worker."""
        self.crew.agree(list(self.variables.values()))

    def advance(self, batch: Batch) -> float:
        """Train a step on this worker's share of a batch.

        Returns:
            The loss of the whole batch, without the weight decay.

        Raises:
            FacetpuError: another worker is gone.
        """
        self.rate.assign(self.config.optimizer.learning_rate_at(self.done, self.steps))
        with self.crew.together():
            return float(self.update(batch.pixels, batch.labels, batch.targets))

    def ends_here(self, stale: int) -> bool:
        """Whether the chief, which has seen ``stale`` validations without a better one, has lost patience."""
        patience = self.config.patience
        return patience is not None and bool(self.crew.tell(np.array(stale)) >= patience)

    def embed(self, batches: Any) -> np.ndarray:
        """Unit embeddings, float32 [n, D], of batches of photos."""
        rows = np.concatenate([self.run_model(pixels)[0] for pixels, _ in batches])
        rows = rows.reshape(len(rows), -1)
        return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))

    def set_head(self) -> None:
        """Give the head, which was not trained, each person's mean embedding as its row."""
        photos = all_photos(self.records, self.records.train, self.config.batch_size)
        labels = read_index(self.records.train).labels
        with self.averages:
            embeddings = self.embed(photos)
        rows = np.zeros((len(self.records.labels), embeddings.shape[1]), np.float32)
        np.add.at(rows, labels[labels >= 0], embeddings[labels >= 0])
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        by_name(self.model.variables)["Logits/weights"].assign(rows.T[None, None])

    def _update(self, pixels: Any, labels: Any, targets: Any) -> Any:
        """One step of the optimiser; returns the loss without the weight decay."""
        loss, gradients, learnt = self.crew.run(self._gradients, pixels, labels, targets)
        self.average.assign(
            tf.where(self.step == 0, loss, LOSS_MEMORY * self.average + (1 - LOSS_MEMORY) * loss)
        )
        if self.config.optimizer.clip_norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, self.config.optimizer.clip_norm)
        self.optimizer.apply_gradients(zip(gradients, self.trained, strict=True), global_step=self.step)
        self.objective.update(*learnt)
        self.averages.update(self.step)
        return loss

    def _gradients(self, pixels: Any, labels: Any, targets: Any) -> tuple[Any, Any, Any]:
        """Over all replicas: the loss without the weight decay, the gradients, what the centres move by."""
        with tf.GradientTape() as tape:
            output = self.model(pixels, True)
            loss = self._loss(output, labels, targets)
            decayed = [tf.nn.l2_loss(weight) for weight in self.trained if weight.name.endswith("/weights:0")]
            # Each replica's share of the whole loss: they are added up.
            total = loss + self.config.optimizer.weight_decay / replicas() * tf.add_n(decayed)
        loss, *gradients = summed([loss, *tape.gradient(total, self.trained)])
        everybody = _everybody(output, labels) if self.objective.centers is not None else (output, labels)
        return loss, gradients, everybody

    def _loss(self, output: Any, labels: Any, targets: Any) -> Any:
        """This replica's share of the loss."""
        settings, teacher = self.config.loss, self.config.teacher
        loss = 0.0
        if settings.weight:
            loss = self._labels_loss(output, labels)
            if settings.weight != 1:
                loss *= settings.weight
        if teacher is not None:
            loss += teacher.weight / replicas() * cosine_loss(output.embedding, targets)
        return loss

    def _labels_loss(self, output: Any, labels: Any) -> Any:
        """A mean over photos is shared by their numbers; what compares photos takes those of all replicas."""
        done = tf.cast(self.step, tf.float32) / self.steps
        if compares_photos(self.config.loss.name):
            output, labels = _everybody(output, labels)
        share = 1 / replicas()
        if self.records.unlabelled or self.config.augmentation.mix:
            if not compares_photos(self.config.loss.name):
                known = tf.reduce_sum(tf.cast(labels >= 0, tf.float32))
                share = tf.math.divide_no_nan(known, summed(known))
            loss = tf.cond(
                tf.reduce_any(labels >= 0),
                lambda: self.objective(*_labelled(output, labels), done),
                lambda: tf.constant(0.0),
            )
        else:
            loss = self.objective(output, labels, done)
        return loss if replicas() == 1 else share * loss

    def _run_model(self, pixels: Any) -> Any:
        output = self.model(pixels, False)
        return output.embedding, output.cosines

    def _is_trained(self, weight: Any) -> bool:
        name = weight.name.split(":")[0]
        if name.startswith("Logits/"):
            fixed = name == "Logits/scale" and self.config.loss.scale is not None
            return self.head_is_trained and not fixed
        return in_scopes(name, self.config.network.trainable_scopes)


def _everybody(output: Any, labels: Any) -> tuple[Any, Any]:
    """The embeddings, without their cosines, and the labels of the whole batch."""
    if replicas() == 1:
        return output, labels
    embedding, labels = gathered(output.embedding), gathered(labels)
    return output._replace(embedding=embedding, cosines=tf.zeros([tf.shape(labels)[0], 0])), labels


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
