"""Each loss against a plain statement of its formula, and its gradient against finite differences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from facetpu.config import Loss
from facetpu.errors import FacetpuError

LABELS = np.array([0, 0, 1, 2, 1, 2, 0, 3], np.int64)
PEOPLE, DIM = 4, 5


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    losses = [math.log(np.exp(row - row[label]).sum()) for row, label in zip(logits, labels, strict=True)]
    return float(np.mean(losses))


def cosines(embeddings: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return unit(embeddings) @ unit(kernel.T).T


def softmax(e: np.ndarray, k: np.ndarray, scale: float, margin: float, unknown: int | None) -> float:
    return cross_entropy(scale * cosines(e, k), LABELS)


def cosface(e: np.ndarray, k: np.ndarray, scale: float, margin: float, unknown: int | None) -> float:
    cosine = cosines(e, k)
    for row, label in enumerate(LABELS):
        cosine[row, label] -= margin * (label != unknown)
    return cross_entropy(scale * cosine, LABELS)


def arcface(e: np.ndarray, k: np.ndarray, scale: float, margin: float, unknown: int | None) -> float:
    cosine = cosines(e, k)
    for row, label in enumerate(LABELS):
        if label != unknown:
            angle = math.acos(cosine[row, label])
            wide = math.cos(angle + margin)
            beyond = cosine[row, label] - margin * math.sin(margin)
            cosine[row, label] = wide if angle + margin < math.pi else beyond
    return cross_entropy(scale * cosine, LABELS)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sum((unit(a) - unit(b)) ** 2))


def semi_hard(e: np.ndarray, k: np.ndarray, scale: float, margin: float, unknown: int | None) -> float:
    losses = []
    for a, label in enumerate(LABELS):
        negatives = [distance(e[a], e[n]) for n in np.flatnonzero(label != LABELS)]
        for p in np.flatnonzero(label == LABELS):
            if p != a and label != unknown:
                near = distance(e[a], e[p])
                farther = [far for far in negatives if far > near]
                losses.append(max(0.0, near - (min(farther) if farther else max(negatives)) + margin))
    return float(np.mean(losses))


def batch_hard(e: np.ndarray, k: np.ndarray, scale: float, margin: float, unknown: int | None) -> float:
    losses = []
    for a, label in enumerate(LABELS):
        positives = [distance(e[a], e[p]) for p in np.flatnonzero(label == LABELS) if p != a]
        negatives = [distance(e[a], e[n]) for n in np.flatnonzero(label != LABELS)]
        if positives and label != unknown:
            losses.append(max(0.0, max(positives) - min(negatives) + margin))
    return float(np.mean(losses))


def mined(e: np.ndarray, k: np.ndarray, scale: float, margin: float, unknown: int | None) -> float:
    losses = [
        max(0.0, distance(e[i], e[i + 1]) - distance(e[i], e[i + 2]) + margin) for i in range(0, len(e), 3)
    ]
    return float(np.mean(losses))


def output_of(embeddings: Any, kernel: Any, scale: Any) -> Any:
    """As the classifier's head makes it of ``[B, D]`` and ``[D, N]``."""
    from facetpu.nets.classifier import Output
    from facetpu.nets.tensorflow import tf

    cosine = tf.matmul(tf.nn.l2_normalize(embeddings, 1), tf.nn.l2_normalize(kernel, 0))
    return Output(embeddings[:, None, None, :], cosine, scale)


FORMULAS = {
    "softmax": softmax,
    "cosface": cosface,
    "arcface": arcface,
    "triplet": semi_hard,
    "triplet_batch_hard": batch_hard,
    "triplet_mined": mined,
}


@pytest.mark.parametrize("unknown", [None, 2])
@pytest.mark.parametrize("name", FORMULAS)
def test_a_loss_is_its_formula_and_its_gradient_the_slope_of_it(name: str, unknown: int | None) -> None:
    from facetpu.losses import LOSSES, MARGINS
    from facetpu.nets.tensorflow import tf

    rng = np.random.default_rng(3)
    count = 6 if name == "triplet_mined" else len(LABELS)
    embeddings = rng.normal(size=(count, DIM))
    kernel = rng.normal(size=(DIM, PEOPLE))
    embeddings[0] = -kernel[:, 0]  # an angle that the margin widens past pi
    embeddings[0, 0] += 0.3
    margin, formula = MARGINS.get(name, 0.0), FORMULAS[name]

    def stated(e: np.ndarray, k: np.ndarray) -> float:
        return formula(e, k, 7.0, margin, unknown)

    variables = [tf.constant(value, tf.float32) for value in (embeddings, kernel)]
    with tf.GradientTape() as tape:
        tape.watch(variables)
        labels = tf.constant(LABELS[:count])
        loss = LOSSES[name](output_of(*variables, 7.0), labels, margin, unknown)
    slopes = tape.gradient(loss, variables, unconnected_gradients="zero")
    assert float(loss) == pytest.approx(stated(embeddings, kernel), rel=1e-5)
    assert float(loss) > 0
    for place, values in enumerate((embeddings, kernel)):
        for index in np.ndindex(values.shape):
            moved = [embeddings.copy(), kernel.copy()]
            step = []
            for side in (1e-6, -1e-6):
                moved[place][index] = values[index] + side
                step.append(stated(*moved))
            slope = (step[0] - step[1]) / 2e-6
            assert float(slopes[place][index]) == pytest.approx(slope, rel=1e-3, abs=1e-4), index


def test_the_center_loss_pulls_to_centres_that_follow() -> None:
    from facetpu.losses import Objective
    from facetpu.nets.tensorflow import tf

    rng = np.random.default_rng(0)
    embeddings, kernel = rng.normal(size=(8, DIM)), rng.normal(size=(DIM, PEOPLE))
    centers = rng.normal(size=(PEOPLE, DIM))
    plain = Objective(Loss(), PEOPLE, DIM)
    pulled = Objective(Loss(center_weight=0.3, center_rate=0.5), PEOPLE, DIM)
    pulled.centers.assign(centers)
    variable = tf.constant(embeddings, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(variable)
        output = output_of(variable, tf.constant(kernel, tf.float32), 7.0)
        extra = pulled(output, tf.constant(LABELS), 1.0) - plain(output, tf.constant(LABELS), 1.0)

    def stated(e: np.ndarray) -> float:
        return 0.3 * float(np.mean(np.sum((unit(e) - centers[LABELS]) ** 2, axis=1))) / 2

    assert float(extra) == pytest.approx(stated(embeddings), rel=1e-4)
    slopes = tape.gradient(extra, variable).numpy()
    for index in np.ndindex(embeddings.shape):
        up, down = embeddings.copy(), embeddings.copy()
        up[index] += 1e-6
        down[index] -= 1e-6
        assert slopes[index] == pytest.approx((stated(up) - stated(down)) / 2e-6, rel=1e-3, abs=1e-5)

    pulled.update(output, tf.constant(LABELS))
    for person in range(PEOPLE):
        mine = unit(embeddings)[person == LABELS]
        moved = centers[person] - 0.5 * np.sum(centers[person] - mine, axis=0) / (1 + len(mine))
        np.testing.assert_allclose(pulled.centers[person].numpy(), moved, rtol=1e-4, atol=1e-5)


def test_triplets_cost_nothing_where_nobody_comes_twice_or_alone() -> None:
    from facetpu.losses import LOSSES
    from facetpu.nets.tensorflow import tf

    rng = np.random.default_rng(0)
    output = output_of(*(tf.constant(rng.normal(size=s), tf.float32) for s in ((4, DIM), (DIM, 4))), 1.0)
    for name in ("triplet", "triplet_batch_hard"):
        for labels in ([0, 1, 2, 3], [1, 1, 1, 1]):
            assert float(LOSSES[name](output, tf.constant(labels, tf.int64), 0.2, None)) == 0


def test_the_margin_grows_along_its_ramp() -> None:
    from facetpu.losses import Objective
    from facetpu.nets.tensorflow import tf

    rng = np.random.default_rng(0)
    embeddings, kernel = rng.normal(size=(8, DIM)), rng.normal(size=(DIM, PEOPLE))
    output = output_of(tf.constant(embeddings, tf.float32), tf.constant(kernel, tf.float32), 7.0)
    objective = Objective(Loss(name="cosface", margin=0.4, margin_ramp=(0.2, 0.6)), PEOPLE, DIM)
    for done, margin in ((0.0, 0.0), (0.2, 0.0), (0.3, 0.1), (0.6, 0.4), (1.0, 0.4)):
        loss = float(objective(output, tf.constant(LABELS), tf.constant(done)))
        assert loss == pytest.approx(cosface(embeddings, kernel, 7.0, margin, None), rel=1e-5)


def test_a_loss_without_a_name_is_told() -> None:
    from facetpu.losses import find_loss

    with pytest.raises(FacetpuError) as error:
        find_loss("arkface")
    assert str(error.value) == "loss: there is no loss 'arkface'; did you mean arcface?"
