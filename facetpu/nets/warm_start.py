"""Begin with trained weights: those of a slim checkpoint, or of a quantised .tflite of the same network.

The checkpoint may tell other people apart, or have another embedding: whatever stands above the feature
map is taken only where it fits. A .tflite holds each convolution with its batch norm folded in; the fold
is undone to a batch norm that does nothing, and then spread over the statistics of real photos, so that
the batch norm does in training what it does after it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..config import Network
from ..errors import FacetpuError
from ..tflite.model import op_name, read_model, type_name
from .batch_norm import EPSILON
from .checkpoint import AVERAGE, chosen_checkpoint, latest_checkpoint
from .classifier import PIXEL_MEAN, PIXEL_SCALE, find_network
from .fake_quant import SCOPE as RANGES
from .tensorflow import tf, v1

log = logging.getLogger(__name__)

HEAD = ("Embedding/", "Logits/")  # what a checkpoint of other people need not share
KERNELS = {"CONV_2D": "weights", "DEPTHWISE_CONV_2D": "depthwise_weights"}


def warm_start(path: Path, network: Network, variables: dict[str, Any]) -> int:
    """Give ``variables`` the values in ``path``.

    Args:
        path: a run, a checkpoint's prefix, or a quantised .tflite.
        network: its settings.
        variables: of the classifier, by name.

    Returns:
        How many variables got a value.

    Raises:
        FacetpuError: ``path`` is none of these, or of another network.
    """
    if path.suffix == ".tflite":
        values = folded_weights(path, network)
    else:
        values = _checkpoint_values(path, variables)
    for name, value in values.items():
        variables[name].assign(value)
    log.info("%s: gave %d of the network's %d variables", path, len(values), len(variables))
    return len(values)


def _checkpoint_values(path: Path, variables: dict[str, Any]) -> dict[str, np.ndarray]:
    prefix = chosen_checkpoint(path) or latest_checkpoint(path) or str(path)
    try:
        reader = tf.train.load_checkpoint(prefix)
    except (tf.errors.OpError, ValueError):
        raise FacetpuError(
            f"{path}: is no run, checkpoint or .tflite to start from; a checkpoint is named "
            "without .index or .data"
        ) from None
    shapes = reader.get_variable_to_shape_map()
    values = {}
    for name, variable in variables.items():
        # slim's public checkpoints hold averaged weights too, which are better.
        held = next((held for held in (name + AVERAGE, name) if held in shapes), None)
        fits = held is not None and shapes[held] == variable.shape.as_list()
        if fits:
            values[name] = reader.get_tensor(held)
        elif f"/{RANGES}/" in name:
            continue  # they are yet to be learnt
        elif name.startswith(HEAD):
            log.info("%s: has no %s of this shape; it starts anew", path, name)
        elif held is not None:
            raise FacetpuError(
                f"{path}: is of another network: {name} has shape {shapes[held]} there and "
                f"{variable.shape.as_list()} here; check network.depth_multiplier and image_size"
            )
        elif not name.endswith("/gamma"):  # batch norm without a scale, as facenet's, has 1 for it
            raise FacetpuError(f"{path}: is of another network: it holds no {name}; check network.name")
    return values


def folded_weights(path: Path, network: Network) -> dict[str, np.ndarray]:
    """The weights in a quantised .tflite for a network whose convolutions come in the same order.

    A convolution's bias becomes the offset of a batch norm that does nothing else.

    Args:
        path: the .tflite.
        network: the settings of the network.

    Raises:
        FacetpuError: it is no .tflite, or its convolutions are not those of the network.
    """
    layers, shapes = _convolutions(path), _shapes(network)
    kernels = [name for name in shapes if name.rpartition("/")[2] in KERNELS.values()]
    if len(layers) < len(kernels):
        raise FacetpuError(
            f"{path}: has {len(layers)} convolutions and the network {len(kernels)}; check network.name"
        )
    values = {}
    for name, (kind, kernel, bias) in zip(kernels, layers, strict=False):
        if list(kernel.shape) != shapes[name] or KERNELS[kind] != name.rpartition("/")[2]:
            raise FacetpuError(
                f"{path}: is of another network: {name} has shape {shapes[name]} here, and a {kind} of "
                f"{list(kernel.shape)} stands there; check network.name and depth_multiplier"
            )
        values[name] = kernel
        layer = name.rpartition("/")[0]
        if f"{layer}/biases" in shapes:
            values[f"{layer}/biases"] = bias
            continue
        one = np.ones_like(bias)
        values[f"{layer}/BatchNorm/gamma"] = one
        values[f"{layer}/BatchNorm/beta"] = bias
        values[f"{layer}/BatchNorm/moving_mean"] = np.zeros_like(bias)
        values[f"{layer}/BatchNorm/moving_variance"] = one * np.float32(1 - EPSILON)
    return values


def _shapes(network: Network) -> dict[str, list[int]]:
    """The network's variables in the order that its layers make them in."""
    side = network.image_size
    with tf.Graph().as_default():
        find_network(network.name)(v1.placeholder(tf.float32, [1, side, side, 3]), network, False)
        return {variable.op.name: variable.shape.as_list() for variable in v1.global_variables()}


def _convolutions(path: Path) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Every convolution of the .tflite in order: its op, its kernel as slim has it, its bias; float32."""
    try:
        data = path.read_bytes()
    except OSError:
        raise FacetpuError(f"{path}: no such file") from None
    model = read_model(data, str(path))
    graph = model.subgraphs[0]

    def value(index: int) -> np.ndarray:
        tensor = graph.tensors[index]
        form = tensor.quantization
        if form is None or form.scale is None or not len(form.scale):
            raise FacetpuError(
                f"{path}: {tensor.name} is not quantised; give a quantised model or a checkpoint"
            )
        dtype = np.dtype(type_name(tensor))
        stored = np.frombuffer(bytes(model.buffers[tensor.buffer].data), dtype).reshape(tensor.shape)
        along = [1] * stored.ndim
        along[form.quantized_dimension or 0] = -1
        scale = np.asarray(form.scale, np.float64)
        zero = np.asarray(form.zero_point, np.float64)
        if len(scale) > 1:
            scale, zero = scale.reshape(along), zero.reshape(along)
        return np.asarray(scale * (stored - zero), np.float32)

    layers = []
    for op in graph.operators:
        kind = op_name(model, op)
        if kind in KERNELS:
            kernel = value(op.inputs[1])
            # [O, H, W, I] and [1, H, W, C] there; [H, W, I, O] and [H, W, C, 1] here.
            order = (1, 2, 3, 0)
            layers.append((kind, np.ascontiguousarray(kernel.transpose(order)), value(op.inputs[2])))
    return layers


def spread_batch_norm(network: Network, variables: dict[str, Any], batches: Iterable[np.ndarray]) -> None:
    """Give every batch norm the mean and variance of what it gets, and the scale and offset that undo them.

    The network gives what it gave; but a batch norm in training, which takes the batch's statistics,
    now gives nearly the same.

    Args:
        network: its settings.
        variables: of the network, by name; of them the batch norms' are changed.
        batches: float32 ``[B, S, S, 3]`` photos, 0 to 255.
    """
    side = network.image_size
    held = {name: variable.numpy() for name, variable in variables.items()}
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        pixels = v1.placeholder(tf.float32, [None, side, side, 3])
        find_network(network.name)((pixels - PIXEL_MEAN) * PIXEL_SCALE, network, False)
        for variable in v1.global_variables():
            variable.load(held[variable.op.name], session)
        norms = [op for op in graph.get_operations() if op.type.startswith("FusedBatchNorm")]
        moments = [tf.nn.moments(op.inputs[0], [0, 1, 2]) for op in norms]
        scopes = [op.inputs[1].op.inputs[0].op.name.rpartition("/")[0] for op in norms]
        found = [session.run(moments, {pixels: batch}) for batch in batches]
    for index, scope in enumerate(scopes):
        means = np.array([batch[index][0] for batch in found])
        mean = means.mean(axis=0)
        variance = np.mean([batch[index][1] for batch in found], axis=0) + means.var(axis=0)
        _spread(variables, scope, mean, np.maximum(variance, EPSILON))


def _spread(variables: dict[str, Any], scope: str, mean: np.ndarray, variance: np.ndarray) -> None:
    """Exchange a batch norm for one of another mean and variance that gives the same."""
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    gamma, beta, old_mean, old_variance = (variables[f"{scope}/{name}"].numpy() for name in names)
    slope = gamma / np.sqrt(old_variance + EPSILON)
    new = (slope * np.sqrt(variance + EPSILON), beta + slope * (mean - old_mean), mean, variance)
    for name, value in zip(names, new, strict=True):
        variables[f"{scope}/{name}"].assign(value.astype(np.float32))
