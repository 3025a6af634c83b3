"""Random changes to training pictures, a batch at a time, each a function of its seed alone."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ..config import Augmentation
from ..nets.tensorflow import tf

# Set the seeds of the second and third draw apart from the first's.
DAMAGE = 0x5EED
MIXING = 0x314D
# Of the seam between two faces, in sides of the picture: its softest stretch and its sharpest.
SOFT, SHARP = 1.0, 0.02
GREY = (0.2989, 0.587, 0.114)  # of red, green and blue, as tf.image takes them
OFF_CENTRE = 0.25  # of the side: how far from the centre a seam may pass


class Draws(NamedTuple):
    """What a batch's changes are made from: a row of numbers for each change, a column a picture."""

    moves: Any  # float32 [8, B], -1 to 1: flip, right, down, zoom, rotation, brightness, contrast, saturation
    damage: Any  # float32 [7, B], -1 to 1: blur, jpeg, then occlusion: whether, x, y, width, height
    mixing: Any  # float32 [4, B], -1 to 1: whether, then of the seam: its direction, place, softness

    def flipped(self, config: Augmentation) -> Any:
        """Bool ``[B]``: which pictures are mirrored."""
        return self.moves[0] < 0 if config.flip else tf.zeros_like(self.moves[0], tf.bool)

    def mixed(self, config: Augmentation) -> Any:
        """Bool ``[B]``: which pictures are crossed with another."""
        return self.mixing[0] < 2 * config.mix - 1


def draw(count: Any, seed: Any) -> Draws:
    """The draws of a batch of ``count`` pictures; equal seeds, two integers or tensors, give equal ones."""

    def drawn(rows: int, apart: int) -> Any:
        own = tf.stack([seed[0], seed[1]]) + tf.constant([apart, 0], getattr(seed[1], "dtype", tf.int32))
        return tf.random.stateless_uniform([rows, count], own, minval=-1.0)

    return Draws(drawn(8, 0), drawn(7, DAMAGE), drawn(4, MIXING))


def augment(pixels: Any, config: Augmentation, draws: Draws) -> Any:
    """Flip, move, colour and damage every picture of a batch.

    Args:
        pixels: float32 ``[B, S, S, 3]``, 0 to 255.
        config: how far each change goes.
        draws: which way, and how far of that.

    Returns:
        float32 ``[B, S, S, 3]``, 0 to 255.
    """
    _, x, y, zoom, rotation, brightness, contrast, saturation = tf.unstack(draws.moves)
    if config.flip or config.shift or config.zoom or config.rotation:
        moves = _moves(
            size=pixels.shape[1],
            flipped=draws.flipped(config),
            right=x * config.shift,
            down=y * config.shift,
            zoom=1 + zoom * config.zoom,
            angle=rotation * math.radians(config.rotation),
        )
        pixels = _warp(pixels, moves)
    if config.saturation or config.contrast or config.brightness:
        pixels = _coloured(
            pixels,
            saturation=1 + saturation * config.saturation,
            contrast=1 + contrast * config.contrast,
            brightness=255 * brightness * config.brightness,
        )
    if config.mix:
        pixels = _mixed(pixels, draws.mixed(config), *tf.unstack(draws.mixing)[1:])
    blur, jpeg, *rectangle = tf.unstack(draws.damage)
    if config.blur:
        pixels = _blurred(pixels, tf.maximum(blur, 0.0) * config.blur)
    if config.jpeg < 100:
        pixels = _compressed(pixels, 100 - tf.maximum(jpeg, 0.0) * (100 - config.jpeg))
    if config.occlusion:
        pixels = _occluded(pixels, config.occlusion, *rectangle)
    return pixels


def _mixed(pixels: Any, chosen: Any, direction: Any, place: Any, softness: Any) -> Any:
    """The ``chosen`` pictures crossed with the one before them in the batch, along a straight seam.

    Faces that are aligned to the same points cross to a face again, of somebody who does not exist. A
    soft seam blends the two all over, a sharp one gives the eyes of one to the mouth of the other.

    Args:
        pixels: float32 ``[B, S, S, 3]``.
        chosen: bool ``[B]``.
        direction: float32 ``[B]`` of the seam, in half turns.
        place: float32 ``[B]``, -1 to 1, from one side of the centre to the other.
        softness: float32 ``[B]``, -1 to 1.
    """
    size = pixels.shape[1]
    places = (tf.range(size, dtype=tf.float32) + 0.5) / size - 0.5
    angle = math.pi * direction
    x, y = places[None, None, :, None], places[None, :, None, None]
    across = _each(tf.cos(angle)) * x + _each(tf.sin(angle)) * y - _each(OFF_CENTRE * place)
    share = tf.sigmoid(across / _each(SHARP * (SOFT / SHARP) ** ((softness + 1) / 2)))
    others = (1 - share) * _each(tf.cast(chosen, tf.float32))  # a tf.where that spreads costs a millisecond
    return pixels + others * (tf.roll(pixels, 1, axis=0) - pixels)


def _blurred(pixels: Any, deviation: Any) -> Any:
    """Each picture under a Gaussian of ``deviation`` pixels, ``[B]``; 0 leaves it; edges are mirrored."""
    reach = 6  # twice the largest deviation there is
    places = tf.range(-reach, reach + 1, dtype=tf.float32)
    kernel = tf.exp(-tf.square(places) / (2 * tf.square(tf.maximum(deviation, 1e-2)))[:, None])
    kernel /= tf.reduce_sum(kernel, axis=1, keepdims=True)
    for axis in (1, 2):
        size = pixels.shape[axis]
        edges = [[reach, reach] if place == axis else [0, 0] for place in range(4)]
        wide = tf.pad(pixels, edges, mode="REFLECT")
        shifted = [tf.gather(wide, tf.range(k, k + size), axis=axis) for k in range(2 * reach + 1)]
        pixels = tf.add_n([_each(kernel[:, k]) * part for k, part in enumerate(shifted)])
    return pixels


def _compressed(pixels: Any, quality: Any) -> Any:
    """Each picture through a JPEG of ``quality``, ``[B]``, 5 to 100; 100 leaves it as it is."""

    def one(values: Any) -> Any:
        picture, level = values
        whole = tf.cast(tf.round(picture), tf.uint8)
        # A file of a given quality: encode_jpeg takes that as an attribute only, this op as a tensor.
        lossy = tf.image.adjust_jpeg_quality(whole, tf.cast(tf.round(level), tf.int32))
        return tf.where(level < 99.5, tf.cast(lossy, tf.float32), picture)

    return tf.map_fn(one, (pixels, quality), fn_output_signature=tf.TensorSpec(pixels.shape[1:], tf.float32))


def _occluded(pixels: Any, largest: float, whether: Any, x: Any, y: Any, width: Any, height: Any) -> Any:
    """Every other picture with a rectangle of its own mean colour on it.

    Args:
        pixels: float32 ``[B, S, S, 3]``.
        largest: side of the largest rectangle, of the picture's.
        whether: ``[B]``, above 0 where there is one.
        x: ``[B]``, -1 to 1, the rectangle's centre from the left edge to the right.
        y: ``[B]``, likewise from top to bottom.
        width: ``[B]``, -1 to 1, from nothing to the largest.
        height: ``[B]``, likewise.
    """
    size = pixels.shape[1]
    places = (tf.range(size, dtype=tf.float32) + 0.5) / size * 2 - 1  # of the pixels' centres

    def within(center: Any, side: Any) -> Any:
        return tf.abs(places - center[:, None]) < (side[:, None] + 1) / 2 * largest

    hidden = within(y, height)[:, :, None] & within(x, width)[:, None, :] & (whether > 0)[:, None, None]
    mean = tf.reduce_mean(pixels, [1, 2], keepdims=True)
    return tf.where(hidden[..., None], mean, pixels)


def _each(values: Any) -> Any:
    """``[B]`` values, shaped to act on each picture of ``[B, S, S, 3]``."""
    return values[:, None, None, None]


def _coloured(pixels: Any, saturation: Any, contrast: Any, brightness: Any) -> Any:
    """Each picture away from its grey, then away from its mean, then lighter; cut off at 0 and 255.

    The three at once, for each pass over a batch takes its time.

    Args:
        pixels: float32 ``[B, S, S, 3]``.
        saturation: ``[B]``; 0 makes it grey, 1 leaves it.
        contrast: ``[B]``, likewise.
        brightness: ``[B]``, added.
    """
    weights = tf.constant(GREY)
    grey = tf.tensordot(pixels, weights, 1)[..., None]
    colour = tf.reduce_mean(pixels, [1, 2])  # [B, 3]
    mean = saturation * tf.reduce_mean(colour, 1) + (1 - saturation) * tf.linalg.matvec(colour, weights)
    constant = grey * _each(contrast * (1 - saturation)) + _each((1 - contrast) * mean + brightness)
    return tf.clip_by_value(pixels * _each(contrast * saturation) + constant, 0.0, 255.0)


def _moves(size: int, flipped: Any, right: Any, down: Any, zoom: Any, angle: Any) -> Any:
    """``[B, 8]`` projective transforms from output to input pixels, about the picture's centre.

    Args:
        size: side of the picture in pixels.
        flipped: bool ``[B]``, whether it is mirrored before all that.
        right: ``[B]``, of the side.
        down: ``[B]``, of the side.
        zoom: ``[B]``; above 1 enlarges.
        angle: ``[B]``, radians, anticlockwise.
    """
    centre = (size - 1) / 2
    cosine, sine = tf.cos(angle) / zoom, tf.sin(angle) / zoom
    x, y = centre + right * size, centre + down * size  # where the centre comes to lie
    zero = tf.zeros_like(zoom)
    way = tf.where(flipped, -1.0, 1.0)  # of x about the centre
    return tf.stack(
        [
            way * cosine,
            -way * sine,
            centre - way * (cosine * x - sine * y),
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
