"""The losses that a config can name, each a function of the classifier's output and the true labels.

The classifier's embeddings and weights are normalised: its logits are cosines times a scale. Where the
labels of people are 0 to N - 1 for a head of N, one of them may stand for many: the unknown, whose
photos are alike in nothing. A label of -1 marks a photo without one, which only a teacher tells of.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .config import Loss, nearest
from .errors import FacetpuError
from .nets.classifier import Output
from .nets.tensorflow import tf

FAR = 1e9  # above every squared distance of unit vectors, which is 4 at most


def softmax_cross_entropy(output: Output, labels: Any, margin: Any, unknown: int | None = None) -> Any:
    """The mean cross-entropy of ``softmax(scale * cosines)``, without a margin.

    Args:
        output: of B images, N people.
        labels: int64 ``[B]``, 0 to N-1.
        margin: has no meaning here.
        unknown: the label of other people's faces, where there is one; it is a class like any other.

    Returns:
        float32 scalar.
    """
    del margin, unknown
    return _cross_entropy(output.scale * output.cosines, labels)


def cosface(output: Output, labels: Any, margin: Any, unknown: int | None = None) -> Any:
    """The softmax with ``margin`` taken from the cosine of the right person, not of the unknown.

    Wang et al., CosFace, arXiv:1801.09414, equation 4.
    """
    right = tf.one_hot(labels, output.cosines.shape[1]) * _known(labels, unknown)
    return _cross_entropy(output.scale * (output.cosines - margin * right), labels)


def arcface(output: Output, labels: Any, margin: Any, unknown: int | None = None) -> Any:
    """The softmax with ``margin`` radians added to the angle to the right person, not to the unknown.

    Deng et al., ArcFace, arXiv:1801.07698, equation 3. Where the angle would pass pi, past which its
    cosine rises again, the cosine falls on linearly: cos(a) - margin * sin(margin), as their code has it.
    """
    right = tf.one_hot(labels, output.cosines.shape[1])
    cosine = tf.reduce_sum(output.cosines * right, axis=1, keepdims=True)
    # The sine's slope is infinite at 1.
    sine = tf.sqrt(tf.maximum(1 - tf.square(cosine), 1e-6))
    wider = cosine * tf.cos(margin) - sine * tf.sin(margin)
    beyond = cosine - margin * tf.sin(margin)
    target = tf.where(cosine > tf.cos(math.pi - margin), wider, beyond)
    harder = right * _known(labels, unknown) * (target - cosine)
    return _cross_entropy(output.scale * (output.cosines + harder), labels)


def semi_hard_triplet(output: Output, labels: Any, margin: Any, unknown: int | None = None) -> Any:
    """FaceNet's triplet loss over every pair of one person in the batch.

    Each anchor and positive take the nearest negative that is farther than the positive; where there is
    none, the farthest. Schroff et al., FaceNet, arXiv:1503.03832, equations 3 and 4; squared distances.
    Faces of the unknown are negatives only.

    Returns:
        float32 scalar, the mean over those pairs; 0 without any.
    """
    distances = squared_distances(output.embedding)
    positives, negatives = _alike(labels, unknown)
    # [anchor, positive, negative]
    farther = negatives[:, None, :] & (distances[:, None, :] > distances[:, :, None])
    semi_hard = tf.reduce_min(tf.where(farther, distances[:, None, :], FAR), axis=2)
    farthest = tf.reduce_max(tf.where(negatives, distances, -FAR), axis=1, keepdims=True)
    negative = tf.where(tf.reduce_any(farther, axis=2), semi_hard, farthest)
    pairs = positives & tf.reduce_any(negatives, axis=1, keepdims=True)
    return _mean_where(tf.maximum(distances - negative + margin, 0.0), pairs)


def batch_hard_triplet(output: Output, labels: Any, margin: Any, unknown: int | None = None) -> Any:
    """The triplet loss of each anchor with its farthest positive and its nearest negative.

    Hermans et al., In Defense of the Triplet Loss, arXiv:1703.07737, equation 5; squared distances.
    Faces of the unknown are negatives only.

    Returns:
        float32 scalar, the mean over the anchors that have both; 0 without any.
    """
    distances = squared_distances(output.embedding)
    positives, negatives = _alike(labels, unknown)
    farthest = tf.reduce_max(tf.where(positives, distances, -FAR), axis=1)
    nearest_other = tf.reduce_min(tf.where(negatives, distances, FAR), axis=1)
    anchors = tf.reduce_any(positives, axis=1) & tf.reduce_any(negatives, axis=1)
    return _mean_where(tf.maximum(farthest - nearest_other + margin, 0.0), anchors)


def mined_triplet(output: Output, labels: Any, margin: Any, unknown: int | None = None) -> Any:
    """The triplet loss of a batch of rows anchor, positive, negative, as the offline miner lays them.

    Returns:
        float32 scalar, the mean over the batch's B / 3 triplets.
    """
    del labels, unknown  # the miner went by them
    unit = _unit(output.embedding)
    anchor, positive, negative = tf.unstack(tf.reshape(unit, [-1, 3, unit.shape[1]]), axis=1)
    near = tf.reduce_sum(tf.square(anchor - positive), axis=1)
    far = tf.reduce_sum(tf.square(anchor - negative), axis=1)
    return tf.reduce_mean(tf.maximum(near - far + margin, 0.0))


Function = Callable[[Output, Any, Any, "int | None"], Any]
# What the config's loss.name may be.
LOSSES: dict[str, Function] = {
    "softmax": softmax_cross_entropy,
    "cosface": cosface,
    "arcface": arcface,
    "triplet": semi_hard_triplet,
    "triplet_batch_hard": batch_hard_triplet,
    "triplet_mined": mined_triplet,
}
# Their authors' margins.
MARGINS = {
    "cosface": 0.35,
    "arcface": 0.5,
    "triplet": 0.2,
    "triplet_batch_hard": 0.2,
    "triplet_mined": 0.2,
}


def trains_head(name: str) -> bool:
    """Whether the loss called ``name`` trains the head's rows; the others compare embeddings alone."""
    return name in ("softmax", "cosface", "arcface")


def compares_photos(name: str) -> bool:
    """Whether the loss called ``name`` is of the batch's photos among each other, not a mean over each."""
    return not trains_head(name)


def find_loss(name: str) -> Function:
    """The loss called ``name``.

    Raises:
        FacetpuError: there is none.
    """
    if name not in LOSSES:
        raise FacetpuError(f"loss: there is no loss {name!r}{nearest(name, LOSSES)}")
    return LOSSES[name]


class Objective(tf.Module):
    """What a training brings down: the config's loss, and beside it the centre loss where it is asked for.

    It holds the centres, which a checkpoint keeps.
    """

    def __init__(self, settings: Loss, people: int, embedding_dim: int, unknown: int | None = None) -> None:
        super().__init__(name="Objective")
        self.settings = settings
        self.loss = find_loss(settings.name)
        self.margin = MARGINS.get(settings.name, 0.0) if settings.margin is None else settings.margin
        self.unknown = unknown
        self.centers: Any = None
        if settings.center_weight:
            shape = [people, embedding_dim]
            self.centers = tf.Variable(tf.zeros(shape), trainable=False, name="CenterLoss/centers")

    def __call__(self, output: Output, labels: Any, done: Any) -> Any:
        """The loss of a batch.

        Args:
            output: of B images.
            labels: int64 ``[B]``.
            done: the share of the training that is done, for the margin's ramp.

        Returns:
            float32 scalar.
        """
        loss = self.loss(output, labels, self.margin * self._ramp(done), self.unknown)
        if self.centers is not None:
            loss += self.settings.center_weight * center_loss(output, labels, self.centers, self.unknown)
        return loss

    def update(self, output: Output, labels: Any) -> None:
        """Move the centres of the batch's people towards their embeddings."""
        if self.centers is not None:
            move_centers(self.centers, output, labels, self.settings.center_rate)

    def _ramp(self, done: Any) -> Any:
        """0 up to the start of the margin's ramp, 1 from its end on."""
        start, end = self.settings.margin_ramp
        if end <= start:
            return tf.cast(done >= start, tf.float32)
        return tf.clip_by_value((done - start) / (end - start), 0.0, 1.0)


def center_loss(output: Output, labels: Any, centers: Any, unknown: int | None = None) -> Any:
    """Half the mean squared distance of the unit embeddings to their people's centres.

    Wen et al., A Discriminative Feature Learning Approach for Deep Face Recognition, ECCV 2016,
    equation 2, as a mean over the batch; the gradient does not move the centres, and the unknown
    have none.
    """
    away = _unit(output.embedding) - tf.stop_gradient(tf.gather(centers, labels))
    away *= _known(labels, unknown)
    return tf.reduce_mean(tf.reduce_sum(tf.square(away), axis=1)) / 2


def move_centers(centers: Any, output: Output, labels: Any, rate: float) -> None:
    """Wen et al., equation 4: a person's centre by the sum of its errors over one more than their count."""
    unit = tf.stop_gradient(_unit(output.embedding))
    members = tf.one_hot(labels, centers.shape[0])  # [B, N]
    count = tf.reduce_sum(members, axis=0)[:, None]
    errors = count * centers - tf.matmul(members, unit, transpose_a=True)
    centers.assign_sub(rate * errors / (1 + count))


def squared_distances(embedding: Any) -> Any:
    """float32 ``[B, B]``: those of the unit embeddings of ``[B, 1, 1, D]``, 0 to 4."""
    unit = _unit(embedding)
    return tf.maximum(2 - 2 * tf.matmul(unit, unit, transpose_b=True), 0.0)


def _unit(embedding: Any) -> Any:
    """``[B, 1, 1, D]`` as ``[B, D]`` of unit rows."""
    return tf.nn.l2_normalize(tf.reshape(embedding, [-1, embedding.shape[-1]]), axis=1)


def _cross_entropy(logits: Any, labels: Any) -> Any:
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))


def _known(labels: Any, unknown: int | None) -> Any:
    """float32 ``[B, 1]``: 0 for a face of the unknown, 1 for any other."""
    if unknown is None:
        return tf.ones([tf.shape(labels)[0], 1])
    return tf.cast(labels != unknown, tf.float32)[:, None]


def _alike(labels: Any, unknown: int | None) -> tuple[Any, Any]:
    """Bool ``[B, B]``: two photos of one person; photos of two people. Two of the unknown are neither."""
    same = labels[:, None] == labels[None, :]
    positives = tf.linalg.set_diag(same, tf.zeros_like(labels, tf.bool))
    if unknown is not None:
        positives &= (labels != unknown)[:, None]
    return positives, ~same


def _mean_where(values: Any, chosen: Any) -> Any:
    """The mean of ``values`` where ``chosen``; 0 where nothing is."""
    weights = tf.cast(chosen, tf.float32)
    return tf.math.divide_no_nan(tf.reduce_sum(values * weights), tf.reduce_sum(weights))
