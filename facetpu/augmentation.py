"""Random changes to training pictures, a batch at a time, each a function of its seed alone."""

from __future__ import annotations

import math
from typing import Any

from .config import Augmentation
from .nets.tensorflow import tf


def augment(pixels: Any, config: Augmentation, seed: Any) -> Any:
    """Flip, move, and colour every picture of a batch at random.

    Args:
        pixels: float32 ``[B, S, S, 3]``, 0 to 255.
        config: how far each change goes.
        seed: two integers, or tensors; equal seeds give equal changes.

    Returns:
        float32 ``[B, S, S, 3]``, 0 to 255.
    """
    count = tf.shape(pixels)[0]
    # A column of numbers from -1 to 1 for each change.
    draws = tf.random.stateless_uniform([8, count], seed, minval=-1.0)
    flip, x, y, zoom, rotation, brightness, contrast, saturation = tf.unstack(draws)
    if config.flip:
        pixels = tf.where(flip[:, None, None, None] < 0, pixels[:, :, ::-1], pixels)
    if config.shift or config.zoom or config.rotation:
        moves = _moves(
            size=pixels.shape[1],
            right=x * config.shift,
            down=y * config.shift,
            zoom=1 + zoom * config.zoom,
            angle=rotation * math.radians(config.rotation),
        )
        pixels = _warp(pixels, moves)
    if config.saturation:
        grey = tf.image.rgb_to_grayscale(pixels)
        pixels = grey + (pixels - grey) * _each(1 + saturation * config.saturation)
    if config.contrast:
        mean = tf.reduce_mean(pixels, [1, 2, 3], keepdims=True)
        pixels = mean + (pixels - mean) * _each(1 + contrast * config.contrast)
    if config.brightness:
        pixels += _each(255 * brightness * config.brightness)
    return tf.clip_by_value(pixels, 0.0, 255.0)


def _each(values: Any) -> Any:
    """``[B]`` values, shaped to act on each picture of ``[B, S, S, 3]``."""
    return values[:, None, None, None]


def _moves(size: int, right: Any, down: Any, zoom: Any, angle: Any) -> Any:
    """``[B, 8]`` projective transforms from output to input pixels, about the picture's centre.

    Args:
        size: side of the picture in pixels.
        right: ``[B]``, of the side.
        down: ``[B]``, of the side.
        zoom: ``[B]``; above 1 enlarges.
        angle: ``[B]``, radians, anticlockwise.
    """
    centre = (size - 1) / 2
    cosine, sine = tf.cos(angle) / zoom, tf.sin(angle) / zoom
    x, y = centre + right * size, centre + down * size  # where the centre comes to lie
    zero = tf.zeros_like(zoom)
    return tf.stack(
        [
            cosine,
            -sine,
            centre - cosine * x + sine * y,
            sine,
            cosine,
            centre - sine * x - cosine * y,
            zero,
            zero,
        ],
        axis=1,
    )


def _warp(pixels: Any, moves: Any) -> Any:
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=pixels,
        transforms=moves,
        output_shape=pixels.shape[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )
