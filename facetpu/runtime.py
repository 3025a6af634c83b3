"""The TFLite runtime at hand, whichever it is; the one place that imports one."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any, NamedTuple

from .errors import FacetpuError

# The newest first; TensorFlow last, since it takes seconds to import.
RUNTIMES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter", "tensorflow.lite")


class Runtime(NamedTuple):
    """A module with ``Interpreter`` and ``load_delegate``, and its package's name and version."""

    module: Any
    name: str
    version: str


class OldEdgeTpuRuntime(FacetpuError):
    """The Edge TPU's library is older than the compiled model.

    Attributes:
        reason: so, and what to do, without the model's path.
    """

    reason = ""


def find_runtime() -> Runtime:
    """The first runtime that is installed.

    Raises:
        FacetpuError: there is none, or the one there fails to import.
    """
    for name in RUNTIMES:
        package = name.split(".")[0]
        try:
            module = importlib.import_module(name) if package != "tensorflow" else _tensorflow_lite()
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] == package:
                continue
            raise FacetpuError(f"{package} is installed but cannot be imported: {error}") from None
        except ImportError as error:
            raise FacetpuError(f"{package} is installed but cannot be imported: {error}") from None
        return Runtime(
            module, package, str(getattr(importlib.import_module(package), "__version__", "unknown"))
        )
    raise FacetpuError("no TFLite runtime is installed: run pip install 'facetpu[board]'")


def interpreter(
    model: Path | bytes, threads: int = 1, delegates: list[Any] | None = None, name: str = "the model"
) -> Any:
    """An interpreter of ``model``; the caller allocates its tensors.

    Args:
        model: the file, or its bytes.
        threads: CPU threads for what no delegate takes.
        delegates: loaded delegates, as ``load_delegate`` gives them.
        name: what messages call a model that is given as bytes.

    Raises:
        FacetpuError: there is no runtime, or it refuses the model.
    """
    runtime = find_runtime()
    source: dict[str, Any] = {"model_content": bytes(model)}
    where = name
    if not isinstance(model, (bytes, bytearray)):
        where = str(model)
        source = {"model_path": where}
        if not os.path.isfile(where):
            raise FacetpuError(f"{where}: no such file")
    try:
        return runtime.module.Interpreter(
            num_threads=threads, experimental_delegates=delegates or [], **source
        )
    except (ValueError, RuntimeError) as error:
        raise refused(where, error) from None


def refused(where: str, error: Exception) -> FacetpuError:
    """One line for what the runtime said on opening or running the model ``where``, with what to do."""
    runtime = find_runtime()
    by = f"{where}: {runtime.name} {runtime.version}"
    reason = " ".join(str(error).split()) or type(error).__name__
    # What TFLite says of an op, or a version of one, that it does not know.
    if "Didn't find op for builtin" in reason or "builtin_code out of range" in reason:
        return FacetpuError(f"{by} is older than the model; install a newer one ({reason})")
    # What libedgetpu says of a package that was compiled for a later runtime.
    if "requires runtime version" in reason:
        advice = f"the Edge TPU runtime is older than the model; update libedgetpu ({reason})"
        old = OldEdgeTpuRuntime(f"{where}: {advice}")
        old.reason = advice
        return old
    return FacetpuError(f"{by} refuses it: {reason}")


def _tensorflow_lite() -> Any:
    return importlib.import_module("tensorflow").lite
