"""The three networks as .tflite files, from the weights in the ``mtcnn`` package.

Those weights are, value by value, the ones that came with davidsandberg/facenet's ``detect_face.py``.
The networks take raw RGB pixels, 0 to 255: the scaling to ``(x - 127.5) / 128`` is folded into the
first layer. Their heads are fused into one output a cell or crop: the logit of "this is a face" (the
difference of the two logits of the original softmax), four offsets of the box, and O-Net's ten
coordinates of landmarks.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..artefacts import write_bytes
from ..errors import FacetpuError
from ..tflite.build import Builder
from ..tflite.schema import Padding, new

MEAN, SPREAD = 127.5, 128.0


class Pool(NamedTuple):
    """A maximum over ``side`` x ``side`` cells, every second one."""

    side: int
    padding: Padding


class Architecture(NamedTuple):
    """A network: its input and what follows each of its convolutions.

    Attributes:
        side: side of the smallest input in pixels.
        pools: the pooling after each layer before the heads, None where there is none.
        shapes: of the package's arrays: kernel, bias and PReLU slopes of each layer, then kernel and bias
            of the heads: box, landmarks where there are any, and class.
    """

    side: int
    pools: tuple[Pool | None, ...]
    shapes: tuple[tuple[int, ...], ...]


ARCHITECTURES = {
    "pnet": Architecture(
        12,
        (Pool(2, Padding.SAME), None, None),
        (
            *((3, 3, 3, 10), (10,), (1, 1, 10), (3, 3, 10, 16), (16,), (1, 1, 16)),
            *((3, 3, 16, 32), (32,), (1, 1, 32)),
            *((1, 1, 32, 4), (4,), (1, 1, 32, 2), (2,)),
        ),
    ),
    "rnet": Architecture(
        24,
        (Pool(3, Padding.SAME), Pool(3, Padding.VALID), None, None),
        (
            *((3, 3, 3, 28), (28,), (1, 1, 28), (3, 3, 28, 48), (48,), (1, 1, 48)),
            *((2, 2, 48, 64), (64,), (1, 1, 64), (576, 128), (128,), (128,)),
            *((128, 4), (4,), (128, 2), (2,)),
        ),
    ),
    "onet": Architecture(
        48,
        (Pool(3, Padding.SAME), Pool(3, Padding.VALID), Pool(2, Padding.SAME), None, None),
        (
            *((3, 3, 3, 32), (32,), (1, 1, 32), (3, 3, 32, 64), (64,), (1, 1, 64)),
            *((3, 3, 64, 64), (64,), (1, 1, 64), (2, 2, 64, 128), (128,), (1, 1, 128)),
            *((1152, 256), (256,), (256,)),
            *((256, 4), (4,), (256, 10), (10,), (256, 2), (2,)),
        ),
    ),
}


def write_networks(folder: Path) -> None:
    """Write ``pnet.tflite``, ``rnet.tflite`` and ``onet.tflite`` to ``folder``.

    Raises:
        FacetpuError: the ``mtcnn`` package or what it reads its weights with is not installed, or the
            package holds other weights than facetpu knows.
    """
    for name in ARCHITECTURES:
        write_bytes(Path(folder) / f"{name}.tflite", build_network(name, package_weights(name)), True)


def package_weights(name: str) -> list[np.ndarray]:
    """The arrays of network ``name`` in the ``mtcnn`` package, whose code, and TensorFlow, stay unimported.

    Raises:
        FacetpuError: as ``write_networks`` does.
    """
    spec = importlib.util.find_spec("mtcnn")
    if spec is None or spec.origin is None:
        raise FacetpuError("the detector's weights are missing: run pip install 'facetpu[train]'")
    import joblib

    path = Path(spec.origin).parent / "assets" / "weights" / f"{name}.lz4"
    if not path.is_file():
        raise FacetpuError(f"{path}: no such file; run pip install 'mtcnn>=1.0,<2'")
    arrays = joblib.load(path)
    if tuple(np.shape(array) for array in arrays) != ARCHITECTURES[name].shapes:
        raise FacetpuError(f"{path}: not the weights facetpu knows; run pip install 'mtcnn>=1.0,<2'")
    return [np.asarray(array, np.float32) for array in arrays]


def build_network(name: str, arrays: list[np.ndarray]) -> bytes:
    """The .tflite file of network ``name``.

    Args:
        name: ``pnet``, ``rnet`` or ``onet``.
        arrays: its weights in the package's order.

    Returns:
        a model from float32 [N, H, W, 3]; P-Net to float32 [N, h, w, 5] for any H and W after its input
        is resized, R-Net to [N, 5] and O-Net to [N, 15].
    """
    architecture = ARCHITECTURES[name]
    net = Builder()
    side = architecture.side
    tensor = net.input("image", [1, side, side, 3])
    for layer, pool in enumerate(architecture.pools):
        kernel, bias, slopes = arrays[3 * layer : 3 * layer + 3]
        if kernel.ndim == 2:
            tensor = _dense(net, f"dense{layer + 1}", tensor, _dense_kernel(kernel, side), bias)
            tensor = _prelu(net, f"prelu{layer + 1}", tensor, slopes, [1, kernel.shape[1]])
            continue
        kernel = kernel.transpose(3, 0, 1, 2)
        if layer == 0:
            bias = bias - kernel.sum(axis=(1, 2, 3), dtype=np.float64) * (MEAN / SPREAD)
            kernel = kernel / SPREAD
        side -= kernel.shape[1] - 1
        shape = [1, side, side, len(kernel)]
        tensor = _convolve(net, f"conv{layer + 1}", tensor, kernel, bias, shape)
        tensor = _prelu(net, f"prelu{layer + 1}", tensor, slopes.reshape(1, 1, -1), shape)
        if pool:
            side = -(-side // 2) if pool.padding == Padding.SAME else (side - pool.side) // 2 + 1
            tensor = _pool(net, f"pool{layer + 1}", tensor, pool, [1, side, side, len(kernel)])
    kernel, bias = _fused_heads(arrays[3 * len(architecture.pools) :])
    if name == "pnet":
        tensor = _convolve(net, "face", tensor, kernel[:, None, None], bias, [1, side, side, len(kernel)])
    else:
        tensor = _dense(net, "face", tensor, kernel, bias)
    return net.finish([tensor], description=f"MTCNN {name}")


def _dense_kernel(kernel: np.ndarray, side: int) -> np.ndarray:
    """The package's dense kernel as TFLite's [outputs, inputs], the inputs by rows, columns, channels.

    In the package columns come first: the original networks were trained on transposed images.
    """
    outputs = kernel.shape[1]
    return kernel.reshape(side, side, -1, outputs).transpose(3, 1, 0, 2).reshape(outputs, -1)


def _fused_heads(heads: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """One kernel [outputs, inputs] and bias for the logit that it is a face, then all else the heads tell."""
    kernels = [kernel.reshape(-1, kernel.shape[-1]).T for kernel in heads[0::2]]
    biases = list(heads[1::2])
    # The last head is the class: not a face, a face.
    kernel = np.concatenate([kernels[-1][1:] - kernels[-1][:1], *kernels[:-1]])
    bias = np.concatenate([biases[-1][1:] - biases[-1][:1], *biases[:-1]])
    return kernel, bias


def _convolve(
    net: Builder, name: str, tensor: int, kernel: np.ndarray, bias: np.ndarray, shape: list[int]
) -> int:
    weights = net.constant(f"{name}/kernel", np.asarray(kernel, np.float32))
    biases = net.constant(f"{name}/bias", np.asarray(bias, np.float32))
    out = net.activation(name, shape)
    options = new("Conv2DOptions", padding=Padding.VALID, stride_w=1, stride_h=1)
    net.op("CONV_2D", [tensor, weights, biases], [out], options)
    return out


def _dense(net: Builder, name: str, tensor: int, kernel: np.ndarray, bias: np.ndarray) -> int:
    """A fully connected layer, which reads its weights once a batch; a convolution does for each crop."""
    weights = net.constant(f"{name}/kernel", np.asarray(kernel, np.float32))
    biases = net.constant(f"{name}/bias", np.asarray(bias, np.float32))
    out = net.activation(name, [1, len(kernel)])
    net.op("FULLY_CONNECTED", [tensor, weights, biases], [out], new("FullyConnectedOptions"))
    return out


def _prelu(net: Builder, name: str, tensor: int, slopes: np.ndarray, shape: list[int]) -> int:
    out = net.activation(name, shape)
    net.op("PRELU", [tensor, net.constant(f"{name}/slopes", slopes)], [out])
    return out


def _pool(net: Builder, name: str, tensor: int, pool: Pool, shape: list[int]) -> int:
    out = net.activation(name, shape)
    options = new(
        "Pool2DOptions",
        padding=pool.padding,
        stride_w=2,
        stride_h=2,
        filter_width=pool.side,
        filter_height=pool.side,
    )
    net.op("MAX_POOL_2D", [tensor], [out], options)
    return out
