"""The averages of weights along a training."""

from __future__ import annotations

import numpy as np


def test_an_average_follows_fast_at_first_then_slowly() -> None:
    from facetpu.nets.tensorflow import tf
    from facetpu.training.averages import Averages

    weight = tf.Variable([4.0, -2.0], name="layer/weights")
    averages = Averages([weight], 0.9)
    expected = weight.numpy()
    for step in range(1, 200):
        weight.assign([np.sin(step), step / 10])
        averages.update(tf.constant(step, tf.int64))
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight.numpy()
    np.testing.assert_allclose(averages.variables[0], expected, rtol=1e-5)
    with averages:
        np.testing.assert_allclose(weight, expected, rtol=1e-5)
    np.testing.assert_allclose(weight, [np.sin(199), 19.9], rtol=1e-6)
