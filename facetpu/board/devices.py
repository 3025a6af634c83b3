"""Edge TPUs: which ones this machine has, and the delegate that opens one of them."""

from __future__ import annotations

import ctypes
import re
from typing import Any, NamedTuple

from .. import runtime
from ..edgetpu.library import library_name
from ..errors import FacetpuError

CPU = "cpu"
# As libedgetpu counts them: the nth of all, or of those on one bus.
_NAME = re.compile(r"cpu|(usb|pci)(:\d+)?|:\d+")
_BUSES = ("pci", "usb")  # by the numbers of edgetpu_c.h's edgetpu_device_type


class NoEdgeTpu(FacetpuError):
    """There is no Edge TPU that this program can use; the message says why and how to get one."""


class EdgeTpu(NamedTuple):
    """An Edge TPU that libedgetpu finds: ``usb:0`` or the like, and where the system has it."""

    name: str
    path: str

    def __str__(self) -> str:
        return f"{self.name} ({self.path})"


class _Record(ctypes.Structure):
    """edgetpu_c.h's ``edgetpu_device``."""

    _fields_ = (("type", ctypes.c_int), ("path", ctypes.c_char_p))


def check_device(name: str) -> str:
    """``name`` if it names a device: cpu, usb, pci, usb:1, pci:1, or :1 for the second of all Edge TPUs.

    Raises:
        FacetpuError: it does not.
    """
    if not _NAME.fullmatch(name):
        raise FacetpuError(f"{name!r} is no device; give cpu, usb, pci, usb:0, pci:0 or :0")
    return name


def edgetpu_delegate(device: str | None = None) -> Any:
    """The delegate that runs a compiled model's custom op on an Edge TPU.

    Args:
        device: which one, as ``check_device`` has it; the first that is free unless given.

    Raises:
        NoEdgeTpu: the library is not installed, finds no such device, or cannot open it.
        FacetpuError: there is no TFLite runtime.
    """
    _library()
    module = runtime.find_runtime().module
    load_delegate = getattr(module, "load_delegate", None) or module.experimental.load_delegate
    try:
        return load_delegate(library_name(), {} if device is None else {"device": device})
    except (ValueError, OSError):
        raise NoEdgeTpu(_why_not(device)) from None


def edgetpus() -> list[EdgeTpu]:
    """The Edge TPUs that the library finds, in its order, those in use by others included.

    Raises:
        NoEdgeTpu: the library is not installed.
    """
    library = _library()
    library.edgetpu_list_devices.restype = ctypes.POINTER(_Record)
    library.edgetpu_free_devices.argtypes = [ctypes.POINTER(_Record)]
    library.edgetpu_free_devices.restype = None
    count = ctypes.c_size_t()
    records = library.edgetpu_list_devices(ctypes.byref(count))
    found: list[EdgeTpu] = []
    for record in records[: count.value] if count.value else []:
        bus = _BUSES[record.type]
        number = sum(device.name.startswith(bus) for device in found)
        found.append(EdgeTpu(f"{bus}:{number}", record.path.decode("utf-8", "replace")))
    if records:
        library.edgetpu_free_devices(records)
    return found


def on_usb(device: str | None) -> bool:
    """Whether ``device``, or with None the Edge TPU that the library would take, may be one on USB.

    Raises:
        NoEdgeTpu: the library is not installed.
    """
    bus = (device or "").partition(":")[0]
    return bus != "pci" and any(edgetpu.name.startswith("usb") for edgetpu in edgetpus())


def _library() -> Any:
    try:
        return ctypes.CDLL(library_name())
    except OSError:
        raise NoEdgeTpu(f"{library_name()} is not installed; install libedgetpu1-std") from None


def _why_not(device: str | None) -> str:
    """Why the library opened no Edge TPU, or not ``device``."""
    found = edgetpus()
    if not found:
        advice = "plug the Edge TPU in, and see that you are in the group plugdev"
        return f"{library_name()} finds no device; {advice}"
    listed = ", ".join(map(str, found))
    if device is not None and not _names(device, found):
        return f"there is no Edge TPU {device} here; there is {listed}"
    return f"the Edge TPU {device or listed} cannot be opened; see that no other program uses it"


def _names(device: str, found: list[EdgeTpu]) -> bool:
    """Whether ``device`` is one of ``found``."""
    bus, _, number = device.partition(":")
    return len([edgetpu for edgetpu in found if edgetpu.name.startswith(bus)]) > int(number or 0)
