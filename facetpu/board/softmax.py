"""Softmax regression of the last layer: Coral's other way to learn on the device, with strangers for a class.

Coral's learner (pycoral.learn.backprop.softmax_regression) descends the cross entropy by plain stochastic
gradients, a batch drawn with replacement at a time, and appends FULLY_CONNECTED, RESHAPE and SOFTMAX to the
embedding extractor, weights in uint8 over a range that includes 0. So does this one. But a softmax over
the people enrolled calls every stranger by the name of one of them; hence the last class here is the
strangers', trained on faces of other people. Who is no nearer to the others than they are is called so.

Measured with MobileFaceNet on faces of LFW, 5 photos a person, against 1,000 strangers in training and
5,500 others in test: of 100 people 97% of the other photos are named, with 0.03% of the strangers. The
gallery's cosine, at 1% of strangers asked, names 99.6% with 0.7%.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..errors import FacetpuError
from ..tflite.build import Builder
from ..tflite.concat import join_models
from ..tflite.head import PROBABILITY_SCALE, UNIT_SCALE, UNIT_ZERO_POINT, base_output, quantize_rows
from ..tflite.schema import ActivationFunctionType, new
from .gallery import Gallery
from .threshold import SMALLEST_COHORT, Cohort, more_strangers, no_faces, strangers_among

STRANGER = "stranger"

BATCHES, BATCH, STRANGERS_IN_BATCH = 1000, 100, 20
RATE = 30.0  # Coral's examples take .01 to 1 for embeddings not normalised; unit vectors are shorter
WEIGHT_SCALE = 0.01  # Coral's, of the random weights at the start


class SoftmaxLayer(NamedTuple):
    """A dense layer on unit embeddings.

    Attributes:
        weights: float32 [classes, D].
        biases: float32 [classes].
        lowest, highest: logits that were met in training.
    """

    weights: np.ndarray
    biases: np.ndarray
    lowest: float
    highest: float


def train_softmax(gallery: Gallery, cohort: Cohort | None, seed: int = 0) -> SoftmaxLayer:
    """A layer with a class for each person of ``gallery``, in its order, and one for strangers.

    Args:
        gallery: whom to know.
        cohort: faces of strangers; who of them is enrolled is left out.
        seed: of the random weights and batches; equal seeds give equal layers.

    Raises:
        FacetpuError: there are too few strangers to tell people from.
    """
    cohort = cohort or no_faces(gallery)
    others = strangers_among(cohort, gallery)
    if len(others.people) < SMALLEST_COHORT:
        raise FacetpuError(
            f"a softmax needs {SMALLEST_COHORT} faces of strangers, or it names every face; "
            f"{more_strangers(gallery, cohort, others)}"
        )
    rng = np.random.default_rng(seed)
    people = len(gallery.people)
    strangers = _stored(others.embeddings)
    classes = np.append(np.empty(BATCH - STRANGERS_IN_BATCH, int), np.full(STRANGERS_IN_BATCH, people))
    weights = rng.normal(0, WEIGHT_SCALE, (people + 1, strangers.shape[1])).astype(np.float32)
    biases = np.zeros(people + 1, np.float32)
    lowest = highest = 0.0
    for _ in range(BATCHES):
        known = rng.integers(len(gallery.photos), size=BATCH - STRANGERS_IN_BATCH)
        other = rng.integers(len(strangers), size=STRANGERS_IN_BATCH)
        batch = np.vstack([gallery.imprints[known], strangers[other]])
        classes[: len(known)] = gallery.person[known]
        logits = batch @ weights.T + biases
        lowest, highest = min(lowest, float(logits.min())), max(highest, float(logits.max()))
        gradient = _softmax(logits)
        gradient[np.arange(BATCH), classes] -= 1
        weights -= np.float32(RATE / BATCH) * (gradient.T @ batch)
        biases -= np.float32(RATE / BATCH) * gradient.sum(axis=0)
    return SoftmaxLayer(weights, biases, lowest, highest)


def join_softmax(base: bytes, layer: SoftmaxLayer) -> bytes:
    """``base`` (uint8 [1, 1, 1, D] out) with an L2 norm and ``layer`` after it, as a .tflite file.

    Raises:
        FacetpuError: the base gives no such embedding.
    """
    source = base_output(base)
    classes, dim = layer.weights.shape
    scale, zero_point = _range(float(layer.weights.min()), float(layer.weights.max()))
    out_scale, out_zero_point = _range(layer.lowest, layer.highest)
    stored_biases = np.round(layer.biases.astype(np.float64) / (UNIT_SCALE * scale)).astype(np.int32)

    net = Builder()
    embedding = net.input(source.name, [1, 1, 1, dim], np.uint8, source.scale, source.zero_point)
    unit = net.activation("softmax/unit_embedding", [1, 1, 1, dim], np.uint8, UNIT_SCALE, UNIT_ZERO_POINT)
    stored = quantize_rows(layer.weights, scale, zero_point)
    weights = net.constant("softmax/weights", stored, scale, zero_point)
    biases = net.constant("softmax/biases", stored_biases, UNIT_SCALE * scale)
    dense = net.activation("softmax/dense", [1, classes], np.uint8, out_scale, out_zero_point)
    shape = net.constant("softmax/shape", np.array([1, classes], np.int32))
    logits = net.activation("softmax/logits", [1, classes], np.uint8, out_scale, out_zero_point)
    probabilities = net.activation("softmax/probabilities", [1, classes], np.uint8, PROBABILITY_SCALE)
    none = ActivationFunctionType.NONE
    net.op("L2_NORMALIZATION", [embedding], [unit], new("L2NormOptions", fused_activation_function=none))
    options = new("FullyConnectedOptions", fused_activation_function=none)
    net.op("FULLY_CONNECTED", [unit, weights, biases], [dense], options)
    reshape = new("ReshapeOptions", new_shape=np.array([1, classes], np.int32))
    net.op("RESHAPE", [dense, shape], [logits], reshape)
    net.op("SOFTMAX", [logits], [probabilities], new("SoftmaxOptions", beta=1.0))
    return join_models(base, net.finish([probabilities]))


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def _stored(embeddings: np.ndarray) -> np.ndarray:
    """Unit vectors as the quantised L2 norm would give them."""
    levels = quantize_rows(embeddings, UNIT_SCALE, UNIT_ZERO_POINT).astype(np.float32)
    return (levels - np.float32(UNIT_ZERO_POINT)) * np.float32(UNIT_SCALE)


def _range(lowest: float, highest: float) -> tuple[float, int]:
    """Scale and zero point of uint8 for values of a range, widened to include 0, which is held exactly."""
    lowest, highest = min(lowest, 0.0), max(highest, 0.0)
    scale = max(highest - lowest, 1e-6) / 255
    return scale, round(-lowest / scale)
