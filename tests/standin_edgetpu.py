"""Stand-ins for hardware that is not here: Coral's library, and a runtime that opens an Edge TPU."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facetpu import runtime
from facetpu.board import devices
from facetpu.edgetpu import library
from facetpu.runtime import Runtime, find_runtime
from facetpu.tflite.model import read_model, write_model
from facetpu.tflite.schema import BuiltinOperator, new

# As libedgetpu's edgetpu_c.h has it; it lists the devices it is compiled with and opens none.
SOURCE = """
#include <stddef.h>
struct edgetpu_device { int type; const char* path; };
static struct edgetpu_device found[] = { DEVICES { 0, 0 } };
struct edgetpu_device* edgetpu_list_devices(size_t* count) {
    *count = sizeof(found) / sizeof(found[0]) - 1;
    return *count ? found : NULL;
}
void edgetpu_free_devices(struct edgetpu_device* devices) {}
const char* edgetpu_version() { return "BuildLabel(COMPILER=stand-in), RuntimeVersion(13)"; }
void* tflite_plugin_create_delegate(char** keys, char** values, size_t count, void (*report)(const char*)) {
    return NULL;
}
void tflite_plugin_destroy_delegate(void* delegate) {}
"""
OLD = (
    "Failed to prepare for TPU. Failed precondition: Package requires runtime version (14), which is newer "
    "than this runtime version (13).Node number 2 (EdgeTpuDelegateForCustomOp) failed to prepare."
)
GONE = "Failed precondition: Cannot execute. USB transfer error 5 [LibUsbDataOutCallback]"


def use_library(folder: Path, monkeypatch: pytest.MonkeyPatch, listed: list[tuple[int, str]]) -> None:
    """Put a stand-in in the place of libedgetpu, which finds ``listed``: bus (0 PCI, 1 USB) and path."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    rows = "".join(f'{{ {bus}, "{path}" }},' for bus, path in listed)
    (folder / "edgetpu.c").write_text(SOURCE.replace("DEVICES", rows))
    built = folder / f"edgetpu{len(listed)}.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", built, folder / "edgetpu.c"], check=True)
    monkeypatch.setitem(library.LIBRARIES, platform.system(), str(built))


def compiled(base: bytes) -> bytes:
    """``base`` with its ops as the compiler leaves them: one custom op."""
    record = read_model(base)
    graph = record.subgraphs[0]
    code = new(
        "OperatorCode", builtin_code=BuiltinOperator.CUSTOM, deprecated_builtin_code=BuiltinOperator.CUSTOM
    )
    code.custom_code = "edgetpu-custom-op"
    record.operator_codes = [code]
    graph.operators = [new("Operator", opcode_index=0, inputs=graph.inputs, outputs=graph.outputs)]
    return write_model(record)


class StandinEdgeTpu:
    """A runtime whose Edge TPU is this machine's CPU: it runs the twin of the compiled model it is given.

    Attributes:
        asked: the options of each delegate that was loaded.
        invoked: how often the Edge TPU ran.
        dies_after: how many runs until it is unplugged; -1: it fails to open; None: it never does.
        too_old: whether the library is older than the model.
    """

    def __init__(self, twin: bytes, dies_after: int | None = None, too_old: bool = False) -> None:
        self.twin, self.dies_after, self.too_old = twin, dies_after, too_old
        self.asked: list[dict[str, str]] = []
        self.invoked = 0
        self._real = find_runtime().module

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Be the runtime that facetpu finds, and its library be there and list one device, on PCIe."""
        monkeypatch.setattr(runtime, "find_runtime", lambda: Runtime(self, "stand-in", "1"))
        monkeypatch.setattr(devices, "_library", lambda: None)
        monkeypatch.setattr(devices, "edgetpus", lambda: [devices.EdgeTpu("pci:0", "/dev/apex_0")])

    def fail(self) -> None:
        """Report that the device is gone, as libedgetpu does at its best."""
        raise RuntimeError(GONE)

    def load_delegate(self, library: str, options: dict[str, str]) -> StandinEdgeTpu:
        if self.dies_after == -1:
            self.fail()
        self.asked.append(options)
        return self

    def Interpreter(self, **arguments: Any) -> Any:
        if arguments["experimental_delegates"] != [self]:
            return self._real.Interpreter(**arguments)
        return _Interpreter(self, self._real.Interpreter(model_content=self.twin, num_threads=1))


class AbortingEdgeTpu(StandinEdgeTpu):
    """One that takes its process with it when it is unplugged, as libedgetpu does on a USB error."""

    def fail(self) -> None:
        os.abort()


class _Interpreter:
    """The interpreter of a compiled model."""

    def __init__(self, edgetpu: StandinEdgeTpu, twin: Any) -> None:
        self._edgetpu, self._twin = edgetpu, twin

    def allocate_tensors(self) -> None:
        if self._edgetpu.too_old:
            raise RuntimeError(OLD)
        self._twin.allocate_tensors()

    def invoke(self) -> None:
        if self._edgetpu.invoked == self._edgetpu.dies_after:
            self._edgetpu.fail()
        self._edgetpu.invoked += 1
        self._twin.invoke()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._twin, name)


def crops_of(count: int, size: int, seed: int = 0) -> np.ndarray:
    """uint8 [count, size, size, 3] of noise."""
    return np.random.default_rng(seed).integers(0, 256, [count, size, size, 3], np.uint8)
