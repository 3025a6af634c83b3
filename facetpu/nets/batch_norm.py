"""Batch normalisation for tf-slim layers, with the variables that slim's public checkpoints hold.

``slim.batch_norm`` itself fails on every TensorFlow of today: it needs ``tf_keras.legacy_tf_layers``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .scopes import in_scopes
from .tensorflow import slim, tf, v1

EPSILON = 0.001


def batch_norm(
    inputs: Any, decay: float, is_training: bool, trainable_scopes: Sequence[str] | None = None
) -> Any:
    """Normalise over all but the last axis; a ``normalizer_fn`` of slim's layers.

    On several replicas the statistics are those of all their batches together.

    Args:
        inputs: float32 ``[B, H, W, C]``.
        decay: share of the old moving average kept at each training step.
        is_training: use and record the batch's statistics rather than the moving averages.
        trainable_scopes: the scopes that are trained, None for all: elsewhere the moving averages
            stand, as the frozen weights before them do.
    """
    channels = [inputs.shape[-1]]
    zeros, ones = v1.zeros_initializer(), v1.ones_initializer()
    with v1.variable_scope("BatchNorm") as scope:
        gamma = slim.model_variable("gamma", channels, initializer=ones)
        beta = slim.model_variable("beta", channels, initializer=zeros)
        shared = {"trainable": False, "aggregation": tf.VariableAggregation.MEAN}
        moving_mean = slim.model_variable("moving_mean", channels, initializer=zeros, **shared)
        moving_variance = slim.model_variable("moving_variance", channels, initializer=ones, **shared)
    if not is_training or not in_scopes(scope.name, trainable_scopes):
        return v1.nn.fused_batch_norm(
            inputs, gamma, beta, moving_mean, moving_variance, epsilon=EPSILON, is_training=False
        )[0]
    replicas = tf.distribute.get_replica_context()
    if replicas is not None and replicas.num_replicas_in_sync > 1:
        outputs, mean, variance = _over_replicas(inputs, gamma, beta, replicas)
    else:
        outputs, mean, variance = v1.nn.fused_batch_norm(
            inputs, gamma, beta, epsilon=EPSILON, is_training=True
        )
    for average, value in ((moving_mean, mean), (moving_variance, variance)):
        average.assign_sub((1 - decay) * (average - tf.stop_gradient(value)))
    return outputs


def _over_replicas(inputs: Any, gamma: Any, beta: Any, replicas: Any) -> tuple[Any, Any, Any]:
    """As ``fused_batch_norm`` in training, over the batches of all replicas."""
    moments = [tf.reduce_mean(values, [0, 1, 2]) for values in (inputs, tf.square(inputs))]
    mean, square = replicas.all_reduce(tf.distribute.ReduceOp.MEAN, moments)
    variance = square - tf.square(mean)
    outputs = tf.nn.batch_normalization(inputs, mean, variance, beta, gamma, EPSILON)
    # The moving average is of the unbiased variance, as fused_batch_norm gives it.
    count = tf.cast(tf.size(inputs) / inputs.shape[-1], tf.float32) * replicas.num_replicas_in_sync
    return outputs, mean, variance * (count / tf.maximum(count - 1, 1))
