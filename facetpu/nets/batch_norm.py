"""Batch normalisation for tf-slim layers, with the variables that slim's public checkpoints hold.

``slim.batch_norm`` itself fails on every TensorFlow of today: it needs ``tf_keras.legacy_tf_layers``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .convolution import again
from .replicas import gathered, place_here, replicas
from .scopes import in_scopes
from .tensorflow import slim, tf, v1

EPSILON = 0.001
SCOPE = "BatchNorm"  # of the variables, below the layer's


def batch_norm(
    inputs: Any, decay: float, is_training: bool, trainable_scopes: Sequence[str] | None = None
) -> Any:
    """Normalise over all but the last axis; a ``normalizer_fn`` of slim's layers.

    The batch is the whole one, whatever number of replicas share it.

    Args:
        inputs: float32 ``[B, H, W, C]``.
        decay: share of the old moving average kept at each training step.
        is_training: use and record the batch's statistics rather than the moving averages.
        trainable_scopes: the scopes that are trained, None for all: elsewhere the moving averages
            stand, as the frozen weights before them do.
    """
    with v1.variable_scope(SCOPE) as scope:
        gamma, beta, moving_mean, moving_variance = batch_norm_variables(inputs.shape[-1])
    if not is_training or not in_scopes(scope.name, trainable_scopes):
        return v1.nn.fused_batch_norm(
            inputs, gamma, beta, moving_mean, moving_variance, epsilon=EPSILON, is_training=False
        )[0]
    inputs = again(inputs)
    if replicas() == 1:
        outputs, mean, variance = v1.nn.fused_batch_norm(
            inputs, gamma, beta, epsilon=EPSILON, is_training=True
        )
    else:
        outputs, mean, variance = _normalise_together(inputs, gamma, beta)
    if place_here() == 0:
        for average, value in ((moving_mean, mean), (moving_variance, variance)):
            average.assign_sub((1 - decay) * (average - tf.stop_gradient(value)))
    return outputs


def batch_norm_variables(channels: int) -> tuple[Any, Any, Any, Any]:
    """A batch norm's scale, offset, and averages of mean and variance, each ``[C]``, in the scope at hand."""
    zeros, ones = v1.zeros_initializer(), v1.ones_initializer()
    return (
        slim.model_variable("gamma", [channels], initializer=ones),
        slim.model_variable("beta", [channels], initializer=zeros),
        slim.model_variable("moving_mean", [channels], initializer=zeros, trainable=False),
        slim.model_variable("moving_variance", [channels], initializer=ones, trainable=False),
    )


def _normalise_together(inputs: Any, gamma: Any, beta: Any) -> tuple[Any, Any, Any]:
    """What fused batch norm gives of the whole batch; ``inputs`` are each replica's equal share of it."""
    own = tf.stack(tf.nn.moments(inputs, list(range(len(inputs.shape) - 1))))
    means, variances = tf.unstack(gathered(own[None]), axis=1)  # [replicas, C]
    mean = tf.reduce_mean(means, axis=0)
    variance = tf.reduce_mean(variances + tf.square(means - mean), axis=0)
    outputs = tf.nn.batch_normalization(inputs, mean, variance, beta, gamma, EPSILON)
    # The moving average is of what a sample says of all photos: fused batch norm divides by n - 1 for it.
    count = tf.cast(replicas() * (tf.size(inputs) // inputs.shape[-1]), tf.float32)
    return outputs, mean, variance * count / tf.maximum(count - 1, 1)
