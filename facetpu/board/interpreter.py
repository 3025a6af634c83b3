"""Opens a model on what this machine has, its Edge TPU or else its CPU, and says which."""

from __future__ import annotations

import ctypes
import logging
import os
from pathlib import Path
from typing import Any

from .. import runtime
from ..edgetpu.library import library_name
from ..errors import FacetpuError
from ..trial import require_runnable

log = logging.getLogger(__name__)

SUFFIX = "_edgetpu"
CUSTOM_OP = b"edgetpu-custom-op"


class NoEdgeTpu(FacetpuError):
    """There is no Edge TPU that this program can use; the message says why and how to get one."""


def edgetpu_delegate() -> Any:
    """The delegate that runs a compiled model's custom op on the Edge TPU.

    Raises:
        NoEdgeTpu: its library is not installed, or finds no device.
        FacetpuError: there is no TFLite runtime.
    """
    library = library_name()
    try:
        ctypes.CDLL(library)
    except OSError:
        raise NoEdgeTpu(f"{library} is not installed; install libedgetpu1-std") from None
    module = runtime.find_runtime().module
    load_delegate = getattr(module, "load_delegate", None) or module.experimental.load_delegate
    try:
        return load_delegate(library)
    except (ValueError, OSError):
        raise NoEdgeTpu(
            f"{library} finds no device; plug the Edge TPU in, and see that you are in the group plugdev"
        ) from None


def is_compiled(model: bytes) -> bool:
    """Whether the Edge TPU compiler wrote ``model``: it then holds the custom op's name."""
    return CUSTOM_OP in model


def runnable(path: Path) -> tuple[bytes, Path, list[Any]]:
    """The model that runs here: the one at ``path`` or, without an Edge TPU, its CPU twin.

    The twin of ``base_edgetpu.tflite`` is the ``base.tflite`` beside it.

    Returns:
        The model's bytes, the file they are from, and the delegates to open it with.

    Raises:
        FacetpuError: ``path`` is no file, or is compiled and there is neither an Edge TPU nor a twin.
    """
    model = read_tflite(path)
    if not is_compiled(model):
        return model, path, []
    try:
        return model, path, [edgetpu_delegate()]
    except NoEdgeTpu as reason:
        twin = path.with_name(path.name.replace(SUFFIX, ""))
        if twin == path or not twin.is_file():
            raise FacetpuError(
                f"{path}: is compiled for the Edge TPU, and {reason}; or put its CPU twin beside it"
            ) from None
        log.info("%s runs on the CPU: %s", twin.name, reason)
        return read_tflite(twin), twin, []


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
        delegates: what ``runnable`` gave for it.
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
