"""The Edge TPU's runtime on this machine, libedgetpu: what it is called, and which version it is."""

from __future__ import annotations

import ctypes
import platform
import re

# https://coral.ai/docs/edgetpu/inference/#set-up-the-tflite-interpreter-with-coral
LIBRARIES = {"Linux": "libedgetpu.so.1", "Darwin": "libedgetpu.1.dylib", "Windows": "edgetpu.dll"}


def library_name() -> str:
    """The file name of the runtime's library on this system."""
    return LIBRARIES.get(platform.system(), LIBRARIES["Linux"])


def installed_runtime() -> int | None:
    """The version of the runtime that is installed; None where there is none, or it does not say.

    A compiled model names the least version that runs it. The library is asked by ``edgetpu_version``
    of ``edgetpu_c.h``, which ends in ``RuntimeVersion(14)``.
    """
    try:
        version = ctypes.CDLL(library_name()).edgetpu_version
    except (OSError, AttributeError):
        return None
    version.restype = ctypes.c_char_p
    match = re.search(rb"RuntimeVersion\((\d+)\)", version() or b"")
    return int(match.group(1)) if match else None
