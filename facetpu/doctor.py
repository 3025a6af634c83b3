"""doctor: what is installed, which TFLite runtime, Edge TPU and compiler there are, and how to get the rest.

Every finding is tried, not assumed: the runtime runs a model, the Edge TPU's library is loaded.
Nothing that is wrong raises: it is a line of the report.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from . import __version__, runtime
from .errors import FacetpuError

if sys.version_info >= (3, 8):
    from importlib import metadata
else:  # click brings it to Python 3.7
    import importlib_metadata as metadata

OK, MISSING, WRONG = "ok", "missing", "wrong"

# Distributions whose module goes by another name.
MODULES = {"opencv-python": "cv2", "Pillow": "PIL", "PyYAML": "yaml"}
NEEDED_FOR = {"": "all commands", "board": "models and photos", "train": "the host: pack, train, export"}
# https://coral.ai/docs/accelerator/get-started, of a lsusb before and after the first inference.
USB_DEVICES = {("1a6e", "089a"): "not yet used since plugged in", ("18d1", "9302"): "in use before"}
CORAL_APT = "deb https://packages.cloud.google.com/apt coral-edgetpu-stable main"


class Finding(NamedTuple):
    """One thing that was looked for.

    Attributes:
        name: what it is.
        state: ``ok``, ``missing`` or ``wrong``.
        found: the version, place or behaviour found; empty where it is missing.
        advice: how to get or mend it, or what to know of it; may be empty.
    """

    name: str
    state: str
    found: str = ""
    advice: str = ""


class Report(NamedTuple):
    """All findings, in the order of the text."""

    facetpu: str
    python: str
    system: str
    packages: dict[str, list[Finding]]  # by extra; "" is the base install
    runtime: Finding
    edgetpu_library: Finding
    edgetpu_devices: list[Finding]
    compiler: Finding
    pycoral: Finding

    def __str__(self) -> str:
        lines = [f"facetpu {self.facetpu} on Python {self.python}, {self.system}"]
        for extra, findings in self.packages.items():
            title = f"Packages of facetpu[{extra}]" if extra else "Packages"
            lines += _section(f"{title} - for {NEEDED_FOR[extra]}", findings)
        lines += _section("TFLite runtime", [self.runtime])
        lines += _section("Edge TPU", [self.edgetpu_library, *self.edgetpu_devices])
        lines += _section("Compiling for the Edge TPU", [self.compiler])
        lines += _section("Not needed", [self.pycoral])
        return "\n".join(lines)


def _section(title: str, findings: list[Finding]) -> list[str]:
    """A title and a line for each finding; advice that several in a row share stands under the last."""
    lines = ["", title]
    for finding, following in zip(findings, [*findings[1:], None]):
        lines.append(f"  {finding.state:<8} {finding.name:<18} {finding.found}".rstrip())
        if finding.advice and (following is None or following.advice != finding.advice):
            lines.append(f"{'':11}{finding.advice}")
    return lines


def doctor(sysfs: Path = Path("/sys"), devices: Path = Path("/dev")) -> Report:
    """Look at this machine.

    Args:
        sysfs: where the kernel lists USB devices.
        devices: where the kernel puts PCIe Edge TPUs.
    """
    return Report(
        facetpu=__version__,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        packages=_packages(),
        runtime=_runtime(),
        edgetpu_library=_edgetpu_library(),
        edgetpu_devices=_usb_devices(sysfs) + _pcie_devices(devices) or [_no_device()],
        compiler=_compiler(),
        pycoral=_pycoral(),
    )


def _packages() -> dict[str, list[Finding]]:
    """The dependencies of this facetpu that hold for this Python, by extra, from its own metadata."""
    found: dict[str, dict[str, list[str]]] = {extra: {} for extra in NEEDED_FOR}
    try:
        requirements = metadata.requires("facetpu") or []
    except metadata.PackageNotFoundError:
        advice = "pip install it for its packages to be checked here"
        return {"": [Finding("facetpu", WRONG, "runs from a folder, not installed", advice)]}
    for requirement in requirements:
        clause, _, marker = requirement.partition(";")
        conditions = re.findall(r"(\w+)\s*([<>=!]=?)\s*[\"']([^\"']+)[\"']", marker)
        extra = next((value for name, _, value in conditions if name == "extra"), "")
        here = platform.python_version()
        fits = all(_holds(here, op, value) for name, op, value in conditions if name == "python_version")
        name, bounds = re.match(r"([\w.-]+)(.*)", clause.replace(" ", "")).groups()  # type: ignore[union-attr]
        if fits and extra in found and name != "facetpu":
            found[extra].setdefault(name, []).append(bounds)
    return {
        extra: [_package(name, ",".join(bounds), extra) for name, bounds in names.items()]
        for extra, names in found.items()
    }


def _package(name: str, bounds: str, extra: str) -> Finding:
    install = f"pip install 'facetpu{f'[{extra}]' if extra else ''}'"
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        if importlib.util.find_spec(MODULES.get(name, name.replace("-", "_"))) is not None:
            return Finding(name, OK, "not from pip, version unknown", f"made for {bounds}")
        return Finding(name, MISSING, "", install)
    if all(_holds(version, op, bound) for op, bound in re.findall(r"([<>=!]=?)([^,]+)", bounds)):
        return Finding(name, OK, version)
    return Finding(name, WRONG, version, f"made for {bounds}: {install}")


def _holds(version: str, op: str, bound: str) -> bool:
    """Whether ``version op bound``, by the numbers of their releases."""
    left, right = _release(version), _release(bound)
    return {
        "<": left < right, "<=": left <= right, "==": left == right,
        "!=": left != right, ">=": left >= right, ">": left > right,
    }[op]  # fmt: skip


def _release(version: str) -> tuple[int, ...]:
    numbers = re.match(r"[\d.]*", version).group().strip(".").split(".")  # type: ignore[union-attr]
    while numbers and numbers[-1].strip("0") == "":
        numbers.pop()  # 8.0 is 8
    return tuple(map(int, numbers))


def _runtime() -> Finding:
    """Whether a TFLite runtime is there, and runs a quantised op as it should."""
    import numpy as np

    from .tflite.build import Builder

    try:
        found = runtime.find_runtime()
    except FacetpuError as error:
        return Finding("TFLite runtime", MISSING, "", str(error))
    name = f"{found.name} {found.version}"
    net = Builder()
    raw = net.input("raw", [1, 1, 1, 4], np.uint8, 1 / 128, 128)
    unit = net.activation("unit", [1, 1, 1, 4], np.uint8, 1 / 128, 128)
    net.op("L2_NORMALIZATION", [raw], [unit])
    try:
        interpreter = runtime.interpreter(net.finish([unit]))
        interpreter.allocate_tensors()
        interpreter.set_tensor(raw, np.array([[[[158, 168, 128, 128]]]], np.uint8))  # (30, 40, 0, 0)
        interpreter.invoke()
        answer = interpreter.get_tensor(unit).ravel().tolist()
    except (FacetpuError, RuntimeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())
        return Finding("TFLite runtime", WRONG, name, f"runs no model: {reason}")
    if not np.allclose(answer, [205, 230, 128, 128], atol=1):  # (.6, .8, 0, 0)
        return Finding(
            "TFLite runtime", WRONG, name, f"runs a model wrongly: {answer}; install another version"
        )
    return Finding("TFLite runtime", OK, f"{name}, runs a model")


def _edgetpu_library() -> Finding:
    from .board.devices import NoEdgeTpu, edgetpu_delegate, edgetpus
    from .edgetpu.library import installed_runtime, library_name

    try:
        devices = edgetpus()
    except NoEdgeTpu:
        return Finding(library_name(), MISSING, "", f"apt install libedgetpu1-std, from {CORAL_APT}")
    version = installed_runtime()
    found = f"runtime {version}" if version else "installed"
    try:
        edgetpu_delegate()
    except FacetpuError as error:
        return Finding(library_name(), WRONG, found, str(error))
    return Finding(library_name(), OK, f"{found}, opens {', '.join(map(str, devices))}")


def _usb_devices(sysfs: Path) -> list[Finding]:
    found = []
    for device in sorted(sysfs.glob("bus/usb/devices/*")):
        try:
            ids = tuple((device / name).read_text().strip().lower() for name in ("idVendor", "idProduct"))
        except OSError:  # a hub's interface, or unplugged while we look
            continue
        if ids in USB_DEVICES:
            found.append(Finding("USB Edge TPU", OK, f"{':'.join(ids)}, {USB_DEVICES[ids]}"))
    return found


def _pcie_devices(devices: Path) -> list[Finding]:
    found = []
    for device in sorted(devices.glob("apex_*")):
        if os.access(str(device), os.R_OK | os.W_OK):
            found.append(Finding("PCIe Edge TPU", OK, str(device)))
        else:
            advice = "you may not use it: sudo adduser $USER apex, and log in again"
            found.append(Finding("PCIe Edge TPU", WRONG, str(device), advice))
    return found


def _no_device() -> Finding:
    return Finding(
        "Edge TPU", MISSING, "", "none on USB or PCIe; models run on the CPU, with nearly the same answers"
    )


def _compiler() -> Finding:
    from .edgetpu.compiler import COMPILER, find_compiler

    try:
        found = find_compiler()
    except FacetpuError as error:
        return Finding(COMPILER, MISSING, "", str(error))
    try:
        said = subprocess.run(
            [*found.command(tempfile.gettempdir(), "facetpu-doctor"), "--version"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(
            COMPILER, WRONG, str(found), f"does not run here; it is for x86-64 Linux only ({error})"
        )
    version = said.stdout.decode("utf-8", errors="replace").strip().splitlines()
    if said.returncode or not version:
        return Finding(COMPILER, WRONG, str(found), "does not run here; it is for x86-64 Linux only")
    return Finding(COMPILER, OK, f"{version[0]} at {found}")


def _pycoral() -> Finding:
    """Coral's own package, told from the one that has its name on PyPI by what is in it."""
    spec = importlib.util.find_spec("pycoral")
    if spec is None:
        advice = "if you want it, apt install python3-pycoral: PyPI's package of that name is another one"
        return Finding("pycoral", MISSING, "", advice)
    places = [Path(place) for place in spec.submodule_search_locations or []]
    if any((place / "utils" / "edgetpu.py").is_file() for place in places):
        return Finding("pycoral", OK, str(places[0]))
    return Finding(
        "pycoral", WRONG, str(spec.origin), "is not Coral's but PyPI's namesake: pip uninstall pycoral"
    )
