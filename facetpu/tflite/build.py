"""A new model, op by op.

Example::

    net = Builder()
    image = net.input("image", [1, 8, 8, 3])
    kernel = net.constant("kernel", weights)  # [filters, height, width, channels]
    conv = net.activation("conv", [1, 8, 8, 4])
    net.op("CONV_2D", [image, kernel, bias], [conv], new("Conv2DOptions", stride_w=1, stride_h=1))
    data = net.finish([conv])
"""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np

from ..errors import FacetpuError
from .flatbuffer import Record
from .model import NO_TENSOR, tensor_type, write_model
from .schema import BuiltinOperator, new


class Builder:
    """Collects tensors and ops; a tensor is named by the number that its method returned."""

    def __init__(self) -> None:
        self.graph = new("SubGraph", tensors=[], operators=[])
        self.inputs: list[int] = []
        self.codes: list[Record] = []
        self.buffers = [new("Buffer")]  # number 0 is empty: what activations refer to

    def activation(
        self,
        name: str,
        shape: Sequence[int],
        dtype: Any = np.float32,
        scale: float | None = None,
        zero_point: int = 0,
    ) -> int:
        """A tensor that an op fills; -1 in ``shape`` for a dimension known only at run time.

        Args:
            name: its name, not used before.
            shape: its shape.
            dtype: NumPy's type for it.
            scale: of a quantised tensor, ``real = scale * (stored - zero_point)``.
            zero_point: of a quantised tensor.
        """
        return self._tensor(name, shape, dtype, scale, zero_point, 0)

    def input(
        self,
        name: str,
        shape: Sequence[int],
        dtype: Any = np.float32,
        scale: float | None = None,
        zero_point: int = 0,
    ) -> int:
        """An activation that the caller fills; inputs are numbered in the order of these calls."""
        index = self.activation(name, shape, dtype, scale, zero_point)
        self.inputs.append(index)
        return index

    def constant(self, name: str, data: Any, scale: float | None = None, zero_point: int = 0) -> int:
        """A tensor with its values, in the type and shape of ``data``."""
        array = np.ascontiguousarray(data)
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        self.buffers.append(new("Buffer", data=little.reshape(-1).view(np.uint8)))
        shape = np.shape(data)  # ascontiguousarray makes one dimension of none
        return self._tensor(name, shape, array.dtype, scale, zero_point, len(self.buffers) - 1)

    def op(
        self,
        name: str,
        inputs: Sequence[int | None],
        outputs: Sequence[int],
        options: Record | None = None,
        version: int = 1,
    ) -> None:
        """An op on tensors made before.

        Args:
            name: of the op in the schema, ``CONV_2D``.
            inputs: numbers of tensors; None for an optional one that is not given.
            outputs: numbers of tensors.
            options: its table of options, ``new("Conv2DOptions", ...)``.
            version: the op's version; the least that has what is used runs on most runtimes.
        """
        number = BuiltinOperator[name]
        code = new(
            "OperatorCode",
            builtin_code=number,
            deprecated_builtin_code=min(number, BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES),
            version=version,
        )
        if code not in self.codes:
            self.codes.append(code)
        self.graph.operators.append(
            new(
                "Operator",
                opcode_index=self.codes.index(code),
                inputs=np.array([NO_TENSOR if i is None else i for i in inputs], np.int32),
                outputs=np.array(outputs, np.int32),
                builtin_options=options,
            )
        )

    def finish(self, outputs: Sequence[int], description: str = "") -> bytes:
        """The model's bytes.

        Raises:
            FacetpuError: an op names a tensor that was not made.
        """
        self.graph.inputs = np.array(self.inputs, np.int32)
        self.graph.outputs = np.array(outputs, np.int32)
        model = new(
            "Model",
            version=3,
            operator_codes=self.codes,
            subgraphs=[self.graph],
            description=description,
            buffers=self.buffers,
            metadata=[],
            signature_defs=[],
        )
        return write_model(model)

    def _tensor(
        self, name: str, shape: Sequence[int], dtype: Any, scale: float | None, zero_point: int, buffer: int
    ) -> int:
        if any(tensor.name == name for tensor in self.graph.tensors):
            raise FacetpuError(f"tensor {name!r} is made twice; give each its own name")
        sizes = np.array(shape, np.int32)
        tensor = new(
            "Tensor",
            name=name,
            shape=np.abs(sizes),
            shape_signature=sizes if (sizes < 0).any() else None,
            type=tensor_type(dtype),
            buffer=buffer,
            has_rank=True,
        )
        if scale is not None:
            tensor.quantization = new(
                "QuantizationParameters",
                scale=np.array([scale], np.float32),
                zero_point=np.array([zero_point], np.int64),
            )
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1
