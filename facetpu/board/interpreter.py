"""Opens a model on what this machine has, its Edge TPU or else its CPU, and says which."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, Callable, NamedTuple

from .. import runtime
from ..errors import FacetpuError
from .devices import CPU, NoEdgeTpu, check_device, edgetpu_delegate

log = logging.getLogger(__name__)

SUFFIX = "_edgetpu"
CUSTOM_OP = b"edgetpu-custom-op"


class Opened(NamedTuple):
    """A model that is ready to run: its interpreter, its file, and whether the Edge TPU runs it."""

    interpreter: Any
    path: Path
    on_edgetpu: bool


def is_compiled(model: bytes) -> bool:
    """Whether the Edge TPU compiler wrote ``model``: it then holds the custom op's name."""
    return CUSTOM_OP in model


def twin_of(path: Path) -> Path | None:
    """The CPU twin of a compiled model, of ``base_edgetpu.tflite`` the ``base.tflite``, if it is there."""
    twin = path.with_name(path.name.replace(SUFFIX, ""))
    return twin if twin != path and twin.is_file() else None


def open_on_device(
    path: Path,
    device: str | None = None,
    threads: int = 0,
    part: Callable[[bytes, Path], bytes] = lambda model, _: model,
) -> Opened:
    """Open the model at ``path``, or its CPU twin where the Edge TPU cannot run it and none was asked for.

    Args:
        path: a .tflite file, compiled or not.
        device: ``cpu``, or the Edge TPU to use as ``devices.check_device`` has it; a compiled model runs
            on the first Edge TPU there is unless given.
        threads: CPU threads, see ``open_model``.
        part: takes a file's bytes and its path and gives the part of the model to open.

    Raises:
        FacetpuError: ``path`` is no model; it is compiled and there is neither an Edge TPU nor a twin;
            the Edge TPU that was asked for cannot run it; or the runtime refuses it.
    """
    if device is not None:
        check_device(device)
    model = read_tflite(path)
    if not is_compiled(model):
        if device not in (None, CPU):
            raise FacetpuError(
                f"{path}: is not compiled for the Edge TPU, so it cannot run on {device}; "
                "export it with --edgetpu, or take --device cpu"
            )
        return Opened(open_model(part(model, path), path, None, threads), path, False)
    twin = twin_of(path)
    if device == CPU:
        if twin is None:
            raise FacetpuError(f"{path}: is compiled for the Edge TPU; put its CPU twin beside it")
        return open_on_device(twin, device, threads, part)
    try:
        delegate = edgetpu_delegate(device)
        return Opened(open_model(part(model, path), path, [delegate], threads), path, True)
    except NoEdgeTpu as error:
        reason = str(error)
    except runtime.OldEdgeTpuRuntime as error:
        reason = error.reason
    if device is not None:
        raise FacetpuError(f"{path}: {reason}; or take --device cpu")
    if twin is None:
        raise FacetpuError(
            f"{path}: is compiled for the Edge TPU, and {reason}; or put its CPU twin beside it"
        )
    log.info("%s runs on the CPU: %s", twin.name, reason)
    return open_on_device(twin, CPU, threads, part)


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
        FacetpuError: the runtime refuses the model, most often since it is older than the model.
    """
    threads = threads or min(4, os.cpu_count() or 1)
    interpreter = runtime.interpreter(model, threads, delegates, name=str(where))
    try:
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise runtime.refused(str(where), error) from None
    return interpreter
