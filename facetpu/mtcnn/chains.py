"""A network as the layers that the compiled ``_networks.c`` runs.

Convolutions of 3 x 3 are done by Winograd's F(3 x 3, 3 x 3), a third of the multiplications. (Lavin and
Gray, "Fast Algorithms for Convolutional Neural Networks", 2015.)
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any, NamedTuple, Sequence

import numpy as np

from ..tflite.model import op_name, read_model, tensor_data
from ..tflite.schema import Padding, new
from .compiled import find_library

# As in _networks.c.
_PANEL, _KERNEL, _LAYERS = 16, 3, 8

# The options of what _networks.c computes; all others are TFLite's.
_CONVOLUTION = new("Conv2DOptions", padding=Padding.VALID, stride_w=1, stride_h=1)
_DENSE = new("FullyConnectedOptions")
_MAXIMA = [
    new("Pool2DOptions", padding=padding, stride_w=2, stride_h=2, filter_width=side, filter_height=side)
    for padding in Padding
    for side in range(2, _KERNEL + 1)
]

_FEWEST_INPUTS = 8  # of a convolution whose transforms cost less than they save
# What F(3, 3) with the points 0, 1, -1, 2 and infinity makes of a kernel, in one direction.
_WINOGRAD = np.array(
    [[1 / 2, 0, 0], [-1 / 2, -1 / 2, -1 / 2], [-1 / 6, 1 / 6, -1 / 6], [1 / 6, 1 / 3, 2 / 3], [0, 0, 1]]
)


class Layer(NamedTuple):
    """A convolution, its PReLU, and the maxima after it.

    Attributes:
        kernel: float32 [outputs, side, side, inputs].
        bias: float32 [outputs].
        slopes: float32 [outputs], of negative values; 1 where there is no PReLU.
        pool: side of the squares that maxima are taken of, 2 apart; 1 for no maxima.
        beyond: whether the last squares may reach beyond the edge.
    """

    kernel: np.ndarray
    bias: np.ndarray
    slopes: np.ndarray
    pool: int = 1
    beyond: bool = False

    def output_size(self, size: int) -> int:
        """Height or width of the output for that of the input."""
        size -= self.kernel.shape[1] - 1
        return size if self.pool == 1 else (size - (1 if self.beyond else self.pool)) // 2 + 1


class _Record(ctypes.Structure):
    """``layer`` of _networks.c."""

    _fields_ = [
        *((name, ctypes.c_int) for name in ("rows", "columns", "inputs", "outputs", "pool", "beyond")),
        ("winograd", ctypes.c_int),
        *((name, ctypes.c_void_p) for name in ("weights", "bias", "slopes")),
    ]


def load_compiled(path: Path) -> Any:
    """``facetpu_run_network`` of the shared library ``path``; None where this processor cannot run it."""
    library = ctypes.CDLL(str(path))
    if not library.facetpu_networks_run_here():
        return None
    run = library.facetpu_run_network
    pointer, number = ctypes.c_void_p, ctypes.c_int
    run.argtypes = [pointer, number, pointer, number, number, number, pointer]
    return run


def _find_compiled() -> Any:
    path = find_library("_networks")
    return None if path is None else load_compiled(path)


compiled: Any = _find_compiled()  # None where there is none


class Chain:
    """A network that ``_networks.c`` runs: convolutions over images, then layers that see all of one."""

    def __init__(self, convolutions: Sequence[Layer], dense: Sequence[Layer]) -> None:
        """Pack the layers.

        Args:
            convolutions: one or more; each takes as many inputs as the one before has outputs.
            dense: kernels of 1 x 1, over all that the last convolution leaves of an image.
        """
        self._convolutions, self._dense = convolutions, dense
        self._arrays: list[np.ndarray] = []  # what the records point to
        self._records = [self._pack(layers) for layers in (convolutions, dense)]

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """float32 [N, H, W, 3] to [N, h, w, outputs], or with dense layers to [N, outputs]."""
        number, height, width = images.shape[:3]
        for layer in self._convolutions:
            height, width = layer.output_size(height), layer.output_size(width)
        out = np.empty((number, height, width, len(self._convolutions[-1].bias)), np.float32)
        self._run(0, images, out)
        if not self._dense:
            return out
        # Each image is a pixel of one row now.
        answers = np.empty((1, 1, number, len(self._dense[-1].bias)), np.float32)
        self._run(1, out.reshape(1, 1, number, -1), answers)
        return answers[0, 0]

    def _run(self, which: int, images: np.ndarray, out: np.ndarray) -> None:
        images, records = np.ascontiguousarray(images), self._records[which]
        number, height, width = images.shape[:3]
        if compiled(records, len(records), images.ctypes.data, number, height, width, out.ctypes.data):
            raise MemoryError(f"no memory for the detector on an image of {width} x {height}")

    def _pack(self, layers: Sequence[Layer]) -> Any:
        records = (_Record * len(layers))()
        for index, (layer, record) in enumerate(zip(layers, records)):
            kernel = layer.kernel.astype(np.float64)
            record.outputs, record.rows, record.columns, record.inputs = kernel.shape
            record.pool, record.beyond = layer.pool, layer.beyond
            record.winograd = index > 0 and kernel.shape[1:3] == (3, 3) and kernel.shape[3] >= _FEWEST_INPUTS
            if record.winograd:
                kernel = np.einsum("pr,qc,orci->opqi", _WINOGRAD, _WINOGRAD, kernel)
            weights = _panels(kernel.reshape(len(kernel), -1)).transpose(0, 2, 1)
            arrays = [
                np.ascontiguousarray(array, np.float32)
                for array in (weights, _panels(layer.bias), _panels(layer.slopes))
            ]
            record.weights, record.bias, record.slopes = (array.ctypes.data for array in arrays)
            self._arrays += arrays
        return records


def read_chain(path: Path) -> Chain | None:
    """The chain in a .tflite file; None if ``_networks.c`` cannot run all of it, from its input on.

    Raises:
        FacetpuError: the file is damaged.
    """
    model = read_model(path)
    graph = model.subgraphs[0]
    convolutions: list[Layer] = []
    dense: list[Layer] = []
    for operator in graph.operators:
        name, options = op_name(model, operator), operator.builtin_options
        constants = (tensor_data(model, graph.tensors[index]) for index in operator.inputs[1:])
        arrays = [array for array in constants if array is not None]
        layers = dense or convolutions
        if name == "CONV_2D" and options == _CONVOLUTION and not dense and len(arrays) == 2:
            convolutions.append(Layer(arrays[0], arrays[1], np.ones(len(arrays[1]))))
        elif name == "FULLY_CONNECTED" and options == _DENSE and len(arrays) == 2:
            dense.append(Layer(arrays[0][:, None, None], arrays[1], np.ones(len(arrays[1]))))
        elif name == "PRELU" and layers and len(arrays) == 1:
            layers[-1] = layers[-1]._replace(slopes=arrays[0].reshape(-1))
        elif name == "MAX_POOL_2D" and options in _MAXIMA and convolutions and not dense:
            beyond = options.padding == Padding.SAME
            layers[-1] = layers[-1]._replace(pool=int(options.filter_width), beyond=beyond)
        else:
            return None
    shape = graph.tensors[graph.inputs[0]].shape
    return Chain(convolutions, dense) if _fits(convolutions, dense, shape) else None


def _fits(convolutions: Sequence[Layer], dense: Sequence[Layer], shape: Sequence[int]) -> bool:
    """Whether ``_networks.c`` has room for these, and gives of images of ``shape`` what TFLite does."""
    if len(shape) != 4 or not convolutions or max(len(convolutions), len(dense)) > _LAYERS:
        return False
    # Without dense layers images may be of an odd size, whose squares of 3 TFLite begins before the edge.
    if not dense and any(layer.beyond and layer.pool == 3 for layer in convolutions):
        return False
    left = _left(convolutions, shape[1:])
    return left is not None and _left(dense, (1, 1, int(np.prod(left)))) is not None


def _left(layers: Sequence[Layer], shape: Sequence[int]) -> Sequence[int] | None:
    """[height, width, outputs] that ``layers`` leave of an image of ``shape``; None if one cannot take it."""
    height, width, inputs = shape
    for layer in layers:
        kernel = layer.kernel
        if kernel.ndim != 4 or not 1 <= kernel.shape[1] == kernel.shape[2] <= _KERNEL:
            return None
        if not len(kernel) == len(layer.bias) == len(layer.slopes) or kernel.shape[3] != inputs:
            return None
        height, width, inputs = layer.output_size(height), layer.output_size(width), len(kernel)
        if min(height, width) < 1:
            return None
    return height, width, inputs


def _panels(rows: np.ndarray) -> np.ndarray:
    """[outputs, ...] as [panels, _PANEL, ...], filled up with zeros."""
    padding = [(0, -len(rows) % _PANEL)] + [(0, 0)] * (rows.ndim - 1)
    return np.pad(rows, padding, "constant").reshape(-1, _PANEL, *rows.shape[1:])
