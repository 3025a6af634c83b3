"""A TFLite file in an interpreter of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from .. import runtime
from ..errors import FacetpuError
from ..trial import require_runnable


class Runner:
    """A model in an interpreter of its own.

    Attributes:
        inputs, outputs: the runtime's details of the tensors, in the model's order.
    """

    def __init__(
        self, model: bytes, where: Path, delegates: list[Any] | None = None, threads: int = 0
    ) -> None:
        """Open a model, see ``open_model``."""
        self._interpreter = open_model(model, where, delegates, threads)
        self.inputs: list[dict[str, Any]] = self._interpreter.get_input_details()
        self.outputs: list[dict[str, Any]] = self._interpreter.get_output_details()

    def run(self, value: np.ndarray) -> list[np.ndarray]:
        """The outputs for ``value``, the one input's, in the model's order.

        Raises:
            RuntimeError, ValueError: the runtime or its device fails.
        """
        self._interpreter.set_tensor(self.inputs[0]["index"], value)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(output["index"]) for output in self.outputs]


def read_tflite(path: Path) -> bytes:
    """The bytes of the TFLite file at ``path``.

    Raises:
        FacetpuError: there is no such file, or it is no TFLite file.
    """
    if not Path(path).is_file():
        raise FacetpuError(f"{path}: no such file")
    data = Path(path).read_bytes()
    if data[4:8] != b"TFL3":  # the file identifier of the TFLite schema
        raise FacetpuError(f"{path}: is no TFLite model; make one with facetpu export")
    return data


def open_model(model: bytes, where: Path, delegates: list[Any] | None = None, threads: int = 0) -> Any:
    """An interpreter of ``model`` with its tensors allocated.

    Args:
        model: the file's bytes, or a part that was cut out of it.
        where: the file, for messages.
        delegates: those that run a compiled model's custom op.
        threads: CPU threads; as many as there are cores, up to 4, unless given.

    Raises:
        FacetpuError: the runtime refuses the model, most often since it is older than the model; or
            would crash on it.
    """
    if not delegates:
        require_runnable(model, str(where))
    threads = threads or min(4, os.cpu_count() or 1)
    interpreter = runtime.interpreter(model, threads, delegates, name=str(where))
    try:
        interpreter.allocate_tensors()
        interpreter.get_input_details(), interpreter.get_output_details()  # their names may be no text
    except (RuntimeError, ValueError) as error:
        raise runtime.refused(str(where), error) from None
    return interpreter
