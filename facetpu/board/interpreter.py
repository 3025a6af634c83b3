"""Opens a model on what this machine has, its Edge TPU or else its CPU, and says which."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Callable

import numpy as np

from .. import runtime
from ..errors import FacetpuError
from .devices import CPU, NoEdgeTpu, check_device, edgetpu_delegate, on_usb
from .guarded import GuardedRunner
from .runner import Runner, read_tflite

log = logging.getLogger(__name__)

SUFFIX = "_edgetpu"
CUSTOM_OP = b"edgetpu-custom-op"


class DeviceModel:
    """A model on the Edge TPU or the CPU; should the Edge TPU fail, its CPU twin goes on in its place.

    Attributes:
        path: the file that runs.
    """

    def __init__(
        self,
        path: Path,
        device: str | None = None,
        threads: int = 0,
        part: Callable[[bytes, Path], bytes] = lambda model, _: model,
    ) -> None:
        """Open the model at ``path``, or its CPU twin where there is no Edge TPU and none was asked for.

        Args:
            path: a .tflite file, compiled or not.
            device: ``cpu``, or the Edge TPU to use as ``devices.check_device`` has it; a compiled model
                runs on the first Edge TPU there is unless given.
            threads: CPU threads, see ``open_model``.
            part: takes a file's bytes and its path and gives the part of the model to open.

        Raises:
            FacetpuError: ``path`` is no model; it is compiled and there is neither an Edge TPU nor a twin;
                the Edge TPU that was asked for cannot run it; or the runtime refuses it.
        """
        self._threads, self._part = threads, part
        if device is not None:
            check_device(device)
        if is_compiled(read_tflite(path)):
            self._open_compiled(path, device)
        elif device in (None, CPU):
            self._open(path)
        else:
            raise FacetpuError(
                f"{path}: is not compiled for the Edge TPU, so it cannot run on {device}; "
                "export it with --edgetpu, or take --device cpu"
            )

    @property
    def inputs(self) -> list[dict[str, Any]]:
        """The runtime's details of its inputs, in the model's order."""
        return self._runner.inputs

    @property
    def outputs(self) -> list[dict[str, Any]]:
        """The runtime's details of its outputs, in the model's order."""
        return self._runner.outputs

    def run(self, value: np.ndarray) -> list[np.ndarray]:
        """The outputs for ``value``, the one input's, in the model's order.

        Raises:
            FacetpuError: the runtime fails, or the Edge TPU does and there is no CPU twin.
        """
        try:
            return self._runner.run(value)
        except (RuntimeError, ValueError) as error:
            self._go_on_without_edgetpu(error)
            return self._runner.run(value)

    def _open(self, path: Path) -> None:
        """Open a model on the CPU."""
        model = self._part(read_tflite(path), path)
        self._runner: Runner | GuardedRunner = Runner(model, path, None, self._threads)
        self.path, self._on_edgetpu = path, False

    def _open_on_edgetpu(self, path: Path, device: str | None) -> None:
        model = self._part(read_tflite(path), path)
        if on_usb(device):
            self._runner = GuardedRunner(model, path, device, self._threads)
        else:
            self._runner = Runner(model, path, [edgetpu_delegate(device)], self._threads)
        self.path, self._on_edgetpu = path, True

    def _open_compiled(self, path: Path, device: str | None) -> None:
        """Open the compiled model at ``path``, or its twin."""
        twin = twin_of(path)
        if device == CPU:
            if twin is None:
                raise FacetpuError(f"{path}: is compiled for the Edge TPU; put its CPU twin beside it")
            return self._open(twin)
        try:
            return self._open_on_edgetpu(path, device)
        except NoEdgeTpu as error:
            reason = str(error)
        except runtime.OldEdgeTpuRuntime as error:
            reason = error.reason
        except RuntimeError as error:  # the process that guards a USB Edge TPU ended
            reason = f"the Edge TPU failed ({error})"
        if device is not None:
            raise FacetpuError(f"{path}: {reason}; or take --device cpu")
        if twin is None:
            raise FacetpuError(
                f"{path}: is compiled for the Edge TPU, and {reason}; or put its CPU twin beside it"
            )
        log.info("%s runs on the CPU: %s", twin.name, reason)
        return self._open(twin)

    def _go_on_without_edgetpu(self, error: Exception) -> None:
        """Run the CPU twin from now on.

        Raises:
            FacetpuError: what failed was no Edge TPU, or there is no twin that is this model's.
        """
        if not self._on_edgetpu:
            raise runtime.refused(str(self.path), error) from None
        failed = f"{self.path}: the Edge TPU failed ({' '.join(str(error).split())})"
        twin = twin_of(self.path)
        if twin is None:
            raise FacetpuError(f"{failed}; plug it in again, or put its CPU twin beside it") from None
        forms = _forms(self.inputs + self.outputs)
        self._open(twin)
        if _forms(self.inputs + self.outputs) != forms:
            raise FacetpuError(f"{failed}, and {twin.name} is no twin of it; export again") from None
        log.warning("%s; %s runs on the CPU from now on", failed, twin.name)


def is_compiled(model: bytes) -> bool:
    """Whether the Edge TPU compiler wrote ``model``: it then holds the custom op's name."""
    return CUSTOM_OP in model


def twin_of(path: Path) -> Path | None:
    """The CPU twin of a compiled model, of ``base_edgetpu.tflite`` the ``base.tflite``, if it is there."""
    twin = path.with_name(path.name.replace(SUFFIX, ""))
    return twin if twin != path and twin.is_file() else None


def _forms(tensors: list[dict[str, Any]]) -> list[Any]:
    """What callers of a model go by, of each of its tensors."""
    return [(tensor["shape"].tolist(), tensor["dtype"], tensor["quantization"]) for tensor in tensors]
