"""A .tflite model run with every tensor kept, so that each layer can be looked at."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import FacetpuError
from ..runtime import find_runtime
from ..tflite.edit import only_graph
from ..tflite.model import quantization, read_model, tensor_data


class AllTensors:
    """A model and, after ``run``, what each of its tensors holds.

    Attributes:
        model: the flatbuffer, as ``read_model`` gives it.
        activations: the numbers of the tensors that are no constants, in the graph's order.
    """

    def __init__(self, data: bytes) -> None:
        module = find_runtime().module
        plain = (
            module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        )  # a delegate keeps its tensors to itself
        try:
            self._runner = module.Interpreter(
                model_content=data,
                experimental_preserve_all_tensors=True,
                experimental_op_resolver_type=plain,
            )
            self._runner.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise FacetpuError(f"the quantised base: {' '.join(str(error).split())}") from None
        self.model = read_model(data)
        self.graph = only_graph(self.model, "the model")
        constant = [tensor_data(self.model, tensor) is not None for tensor in self.graph.tensors]
        self.activations = [index for index, fixed in enumerate(constant) if not fixed]
        self._input = int(self.graph.inputs[0])

    def run(self, image: np.ndarray) -> None:
        """Run the model on one image, ``[1, S, S, 3]`` of its own input type."""
        self._runner.set_tensor(self._input, image)
        self._runner.invoke()

    def real(self, index: int) -> np.ndarray:
        """The numbers that the tensor ``index`` stands for, float32."""
        stored: Any = self._runner.get_tensor(index)
        form = quantization(self.graph.tensors[index])
        if form is None or stored.dtype == np.float32:
            return np.asarray(stored, np.float32)
        return (stored.astype(np.float32) - form.zero_point) * np.float32(form.scale)
