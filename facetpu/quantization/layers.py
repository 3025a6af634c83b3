"""Which layers lose what: each tensor of the integer model against its twin in the float model."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..tflite.model import op_name
from .convert import Converted
from .tensors import AllTensors

_SILENT = 99.0  # dB; a tensor without any error


class Layer(NamedTuple):
    """An op of the integer base, and how far its output is from the float one's.

    Attributes:
        index: place of the op in the base.
        op: its kind.
        name: of its output tensor.
        snr: power of its output over that of its error, in dB, the errors of all before it included.
        added: power of the error that the layer itself adds, as a share of its output's: the whole error
            less that which its worst input brings.
    """

    index: int  # type: ignore[assignment]  # tuple.index is not missed
    op: str
    name: str
    snr: float
    added: float

    def __str__(self) -> str:
        return f"{self.op} {self.name} (adds {self.added:.2%}, leaves {self.snr:.0f} dB)"


def layer_errors(converted: Converted, crops: np.ndarray) -> list[Layer]:
    """Every op of the base whose output has a twin, in the order of the ops.

    Args:
        converted: the base and its float twin.
        crops: uint8 ``[n, S, S, 3]``, RGB.
    """
    base, twin = AllTensors(converted.base), AllTensors(converted.twin)
    pairs = _twins(base, twin)
    signal, noise = dict.fromkeys(pairs, 0.0), dict.fromkeys(pairs, 0.0)
    for crop in crops:
        base.run(crop[None])
        pixels = crop[None].astype(np.float32) - np.float32(converted.mean)
        twin.run(pixels * np.float32(converted.scale))
        for index, other in pairs.items():
            exact = twin.real(other).astype(np.float64)
            signal[index] += float(np.square(exact).sum())
            noise[index] += float(np.square(base.real(index) - exact).sum())
    snr = {index: _decibels(signal[index], noise[index]) for index in pairs}
    layers = []
    for number, op in enumerate(base.graph.operators):
        output = int(op.outputs[0])
        if output not in snr or op_name(base.model, op) == "QUANTIZE":
            continue
        before = max((_share(snr[int(index)]) for index in op.inputs if int(index) in snr), default=0.0)
        layers.append(
            Layer(
                number,
                op_name(base.model, op),
                _short(base.graph.tensors[output].name),
                round(snr[output], 2),
                round(max(0.0, _share(snr[output]) - before), 6),
            )
        )
    return layers


def _twins(base: AllTensors, twin: AllTensors) -> dict[int, int]:
    """The float tensor of each integer one that has one: by its name, and across a change of type only."""
    names = {tensor.name: index for index, tensor in enumerate(twin.graph.tensors)}
    tensors = base.graph.tensors
    pairs = {index: names[tensors[index].name] for index in base.activations if tensors[index].name in names}
    for op in base.graph.operators:
        if op_name(base.model, op) == "QUANTIZE":
            ends = int(op.inputs[0]), int(op.outputs[0])
            known = [pairs[index] for index in ends if index in pairs]
            pairs.update(dict.fromkeys(ends, known[0]) if known else {})
    return pairs


def _decibels(signal: float, noise: float) -> float:
    return min(_SILENT, float(10 * np.log10(signal / noise))) if signal > 0 and noise > 0 else _SILENT


def _share(snr: float) -> float:
    """The power of the error over that of the signal."""
    return float(10 ** (-snr / 10))


def _short(name: str) -> str:
    """A tensor's name without those of the ops that were fused into its own."""
    return name.split(";")[0].removeprefix("net/").removeprefix("net/")
