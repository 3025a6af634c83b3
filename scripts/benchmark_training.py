"""Images a second of facetpu's training step against Keras's own of the same network: [BATCH] [STEPS].

MobileNet v1 of width 0.5 on 112 px, an embedding of 128, a softmax over 64 people, momentum and
weight decay, on one batch of random numbers that both hold in memory. The two take turns, so that
other work on the machine slows both alike. XLA is off: on a CPU it makes Keras's step several times slower.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from facetpu.config import TrainConfig
from facetpu.training.devices import open_crew
from facetpu.training.learner import Learner
from facetpu.training.records import Records

PEOPLE, SIDE, DIM, WIDTH = 64, 112, 128, 0.5
RATE, MOMENTUM, DECAY = 1e-3, 0.9, 4e-5
WARM_UP = 3
TURNS = 6

Step = Callable[[], float]


def main() -> None:
    batch, steps = (int(sys.argv[k]) if len(sys.argv) > k else usual for k, usual in ((1, 32), (2, 6)))
    rng = np.random.default_rng(0)
    pixels = rng.uniform(0, 255, (batch, SIDE, SIDE, 3)).astype(np.float32)
    labels = rng.integers(0, PEOPLE, batch)
    with tempfile.TemporaryDirectory() as run:
        makers: dict[str, Step] = {
            "facetpu": facetpu_step(pixels, labels, Path(run)),
            "Keras": keras_step(pixels, labels),
        }
        for step in makers.values():
            for _ in range(WARM_UP):
                step()
        rates = [{name: batch * rate(step, steps) for name, step in makers.items()} for _ in range(TURNS)]
    ours, keras = (statistics.median(turn[name] for turn in rates) for name in makers)
    shares = [turn["facetpu"] / turn["Keras"] for turn in rates]
    print(
        f"{ours:.1f} images/s, Keras {keras:.1f}: {statistics.median(shares):.2f} times as many "
        f"({min(shares):.2f} to {max(shares):.2f} in {TURNS} turns)"
    )


def rate(step: Step, steps: int) -> float:
    """Steps a second."""
    start = time.perf_counter()
    for _ in range(steps):
        step()
    return steps / (time.perf_counter() - start)


def facetpu_step(pixels: np.ndarray, labels: np.ndarray, run: Path) -> Step:
    """A step of a Learner."""
    from facetpu.nets.tensorflow import tf

    config = TrainConfig.model_validate(
        {
            "network": {"depth_multiplier": WIDTH, "image_size": SIDE, "embedding_dim": DIM},
            "optimizer": {"momentum": MOMENTUM, "weight_decay": DECAY},
            "steps": 1,
        }
    )
    nobody = Records(run, [str(k) for k in range(PEOPLE)], {"size": SIDE}, [], [], 0, 0)
    learner = Learner(config, nobody, open_crew(config))
    learner.rate.assign(RATE)
    inputs = tf.constant(pixels), tf.constant(labels), tf.zeros([len(pixels), 0])
    return lambda: float(learner.update(*inputs))


def keras_step(pixels: np.ndarray, labels: np.ndarray) -> Step:
    """A step of Keras's own MobileNet with as wide an embedding and head."""
    import keras

    image = keras.Input([SIDE, SIDE, 3])
    net = keras.layers.Rescaling(1 / 128, offset=-1)(image)
    network: Any = keras.applications.MobileNet(
        input_shape=[SIDE, SIDE, 3], alpha=WIDTH, include_top=False, weights=None, pooling="avg"
    )
    embedding = keras.layers.UnitNormalization()(keras.layers.Dense(DIM)(network(net)))
    model = keras.Model(image, keras.layers.Dense(PEOPLE, use_bias=False)(embedding))
    model.compile(
        keras.optimizers.SGD(RATE, MOMENTUM, weight_decay=DECAY),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    import tensorflow as tf

    inputs = tf.constant(pixels), tf.constant(labels)
    return lambda: float(model.train_on_batch(*inputs))


main()
