"""The ops of a model, each with its tensors at hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import FacetpuError
from ..tflite.model import op_name, op_number, tensor_data
from ..tflite.schema import BuiltinOperator


@dataclass(frozen=True)
class Op:
    """An op of a model's main graph.

    ``name`` is its name in the schema, or a custom op's own; ``inputs`` has None for an optional tensor
    that is not given.
    """

    index: int
    name: str
    number: int
    version: int
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    record: Any
    model: Any
    where: str

    def __str__(self) -> str:
        return f"{self.where}: op {self.index} {self.name}"

    @property
    def is_custom(self) -> bool:
        """Whether it is none of TFLite's own ops."""
        return self.number == BuiltinOperator.CUSTOM

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of its outputs."""
        return tuple(tensor.name or "" for tensor in self.outputs)

    @property
    def custom_options(self) -> bytes:
        """A custom op's options."""
        options = self.record.custom_options
        return b"" if options is None else options.tobytes()

    def input(self, place: int) -> Any:
        """An input that the op cannot do without.

        Raises:
            FacetpuError: it is not there.
        """
        return self._tensor(self.inputs, place, "input")

    def output(self, place: int) -> Any:
        """An output that the op cannot do without.

        Raises:
            FacetpuError: it is not there.
        """
        return self._tensor(self.outputs, place, "output")

    def option(self, name: str, default: Any = 0) -> Any:
        """One of its options; ``default`` where the file has no table of them."""
        return getattr(self.record.builtin_options, name, default)

    def constant(self, place: int) -> np.ndarray | None:
        """The constant that is its input number ``place``; None for an activation or no tensor.

        Raises:
            FacetpuError: the constant's bytes do not fit its shape.
        """
        tensor = self.inputs[place] if place < len(self.inputs) else None
        try:
            return None if tensor is None else tensor_data(self.model, tensor)
        except FacetpuError as error:
            raise FacetpuError(f"{self}: {error}") from None

    def _tensor(self, tensors: tuple[Any, ...], place: int, kind: str) -> Any:
        if place >= len(tensors) or tensors[place] is None:
            raise FacetpuError(f"{self} has no {kind} {place}: the model is damaged; get it again")
        return tensors[place]

    def is_constant(self, tensor: Any) -> bool:
        """Whether the tensor's values are in the file."""
        data = self.model.buffers[tensor.buffer].data
        return data is not None and len(data) > 0

    def activations(self) -> list[Any]:
        """What flows through it: its outputs, and the inputs that are neither constant nor state."""
        given = [tensor for tensor in self.inputs if tensor is not None]
        flowing = [tensor for tensor in given if not tensor.is_variable and not self.is_constant(tensor)]
        return flowing + list(self.outputs)


def ops_of(model: Any, where: str = "the model") -> list[Op]:
    """The ops of the main graph, in the order in which they run.

    Args:
        model: as ``facetpu.tflite.model.read_model`` gives it.
        where: the file, for messages.
    """
    graph = model.subgraphs[0]
    return [
        Op(
            index,
            op_name(model, record),
            op_number(model.operator_codes[record.opcode_index]),
            model.operator_codes[record.opcode_index].version,
            tuple(graph.tensors[i] if i >= 0 else None for i in record.inputs),
            tuple(graph.tensors[i] for i in record.outputs),
            record,
            model,
            where,
        )
        for index, record in enumerate(graph.operators)
    ]
