"""Quantisation-aware training: layers that compute in floats what their integers will.

Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference, arXiv:1712.05877, section 3. Numbers are rounded where TensorFlow Lite rounds them, and
nowhere else: the weights with the batch norm folded in, a scale for each output channel; what an
activation, a layer without one or a residual sum gives, one range for all. A pool keeps the scale of
what it gets. The gradient passes the rounding as if it were not there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..config import Network
from .batch_norm import EPSILON, batch_norm_variables
from .batch_norm import SCOPE as BATCH_NORM
from .convolution import convolve
from .replicas import first_replica, gathered, place_here, summed
from .tensorflow import slim, tf, v1

# Networks whose every sum and last layer is rounded as the converter rounds it.
QUANTIZABLE = ("mobilenet_v1", "mobilenet_v2", "mobilefacenet")
SCOPE = "FakeQuant"  # of a range's variables, below the layer's
RANGE_DECAY = 0.99  # share of the old range kept at each training step

Activation = Callable[[Any], Any]


def rounding(activation: Activation | None, network: Network, is_training: bool) -> Activation | None:
    """``activation`` (None for none), and behind it the rounding to integers where the network has it.

    Args:
        activation: as slim's layers take it.
        network: says whether it is trained for integers.
        is_training: whether the range follows what is seen.
    """
    if not network.quantization_aware:
        return activation
    return lambda net: rounded(net if activation is None else activation(net), is_training)


def rounded_sum(first: Any, second: Any, scope: str, network: Network, is_training: bool) -> Any:
    """``first + second``, rounded to integers where the network is trained for them.

    Args:
        first: float32 ``[B, H, W, C]``.
        second: likewise.
        scope: where the range of the sum is kept.
        network: says whether it is trained for integers.
        is_training: whether the range follows what is seen.
    """
    total = first + second
    if not network.quantization_aware:
        return total
    with v1.variable_scope(scope):
        return rounded(total, is_training)


def rounded(net: Any, is_training: bool) -> Any:
    """``net`` at the 256 levels of its range, which is a moving average of what batches span, and zero.

    Args:
        net: float32, of any shape.
        is_training: whether the range follows ``net``.
    """
    with v1.variable_scope(SCOPE):
        low, high = (
            slim.model_variable(name, [], initializer=v1.zeros_initializer(), trainable=False)
            for name in ("min", "max")
        )
    if not is_training:
        return tf.quantization.fake_quant_with_min_max_vars(net, low, high)
    # Replicas of one machine share the range, and one may be built when another has moved it already: the
    # first alone reads it, and tells the others.
    before = summed(tf.stack([low, high]) if first_replica() else tf.zeros([2]))
    spans = gathered(tf.stack([tf.reduce_min(net), tf.reduce_max(net)])[None])  # [replicas, 2]
    span = tf.stack([tf.minimum(tf.reduce_min(spans), 0.0), tf.maximum(tf.reduce_max(spans), 0.0)])
    # The first batch gives the range as it is.
    share = tf.where(tf.equal(before[0], before[1]), 1.0, 1 - RANGE_DECAY)
    after = tf.stop_gradient(before + share * (span - before))
    if place_here() == 0:
        low.assign(after[0])
        high.assign(after[1])
    return tf.quantization.fake_quant_with_min_max_vars(net, after[0], after[1])


def folded_batch_norm(
    inputs: Any, decay: float, is_training: bool, trainable_scopes: Sequence[str] | None = None
) -> Any:
    """As :func:`.batch_norm.batch_norm`, by the convolution's own weights and a bias, as integers have it.

    Its statistics stay as they are: they were learnt before, and integers have them in the weights.

    Args:
        inputs: what a convolution without a bias gave, float32 ``[B, H, W, C]``.
        decay: has no meaning here.
        is_training: take the convolution that trains fastest, not the one that is exported.
        trainable_scopes: has no meaning here.
    """
    del decay, trainable_scopes
    with v1.variable_scope(BATCH_NORM):
        gamma, beta, moving_mean, moving_variance = batch_norm_variables(inputs.shape[-1])
    slope = gamma * tf.math.rsqrt(moving_variance + EPSILON)
    return tf.nn.bias_add(_with_rounded_weights(inputs.op, slope, is_training), beta - moving_mean * slope)


def biased(inputs: Any) -> Any:
    """A ``normalizer_fn`` that adds slim's bias to a convolution with rounded weights."""
    channels = inputs.shape[-1]
    bias = slim.model_variable("biases", [channels], initializer=v1.zeros_initializer())
    return tf.nn.bias_add(_with_rounded_weights(inputs.op, tf.ones([channels])), bias)


def _with_rounded_weights(convolution: Any, slope: Any, is_training: bool = False) -> Any:
    """The convolution once more, with each output channel's weights times its ``slope``, and rounded.

    slim hands a normaliser what the convolution gave. That first convolution is then nobody's input, and
    is not computed.
    """
    net, weights = convolution.inputs
    options = {name: convolution.get_attr(name) for name in ("strides", "padding")}
    if convolution.type == "Conv2D":
        return (convolve if is_training else tf.nn.conv2d)(net, _rounded_weights(weights * slope), **options)
    assert convolution.type == "DepthwiseConv2dNative", convolution.type
    height, width, channels, multiplier = weights.shape
    flat = tf.reshape(weights, [height, width, channels * multiplier])
    folded = tf.reshape(_rounded_weights(flat * slope), weights.shape)
    return tf.nn.depthwise_conv2d(net, folded, **options)


def _rounded_weights(weights: Any) -> Any:
    """``weights`` ``[..., C]`` at the 255 levels from -a to a of each channel, a its largest."""
    reach = tf.stop_gradient(tf.reduce_max(tf.abs(weights), axis=list(range(weights.shape.rank - 1))))
    return tf.quantization.fake_quant_with_min_max_vars_per_channel(
        weights, -reach, reach, num_bits=8, narrow_range=True
    )
