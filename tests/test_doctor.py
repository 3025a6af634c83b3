from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import flatbuffers
import numpy
import PIL
import pytest
from click.testing import CliRunner

import facetpu
from facetpu.cli import main
from facetpu.doctor import CORAL_APT, Finding, Report, doctor
from facetpu.runtime import find_runtime


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """An empty folder in the place of /sys and /dev, so that this machine's own devices do not count."""
    folder = tmp_path / "bare"
    folder.mkdir()
    return folder


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages that Python searches first."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return folder


def install(site: Path, name: str, version: str) -> None:
    info = site / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    importlib.invalidate_caches()


def find(findings: list[Finding], name: str) -> Finding:
    return next(finding for finding in findings if finding.name == name)


def test_what_this_environment_has_is_found(bare):
    report = doctor(bare, bare)
    runtime = find_runtime()
    assert report.facetpu == facetpu.__version__
    assert report.python == ".".join(map(str, sys.version_info[:3]))
    assert report.runtime == Finding(
        "TFLite runtime", "ok", f"{runtime.name} {runtime.version}, runs a model"
    )
    assert find(report.packages[""], "click") == Finding("click", "ok", importlib.metadata.version("click"))
    assert {finding.state for extra in report.packages.values() for finding in extra} == {"ok"}
    assert {"tensorflow", "tf-slim", "matplotlib"} <= {finding.name for finding in report.packages["train"]}


@pytest.mark.parametrize(
    ("version", "state"),
    [("7.9", "wrong"), ("8", "ok"), ("8.0.0", "ok"), ("8.10.2", "ok"), ("9.0", "wrong"), ("10.1", "wrong")],
)
def test_a_package_is_held_to_its_bounds(site, bare, version, state):
    install(site, "click", version)
    advice = "made for <9,>=8.0: pip install 'facetpu'" if state == "wrong" else ""
    assert find(doctor(bare, bare).packages[""], "click") == Finding("click", state, version, advice)


def test_only_the_requirements_of_this_python_are_asked(bare):
    names = [finding.name for finding in doctor(bare, bare).packages["board"]]
    assert ("ai-edge-litert" in names) == (sys.version_info >= (3, 10))
    assert ("tflite-runtime" in names) == (sys.version_info < (3, 10))


def test_usb_edge_tpus_are_known_by_their_ids(bare):
    devices = bare / "bus" / "usb" / "devices"
    for name, vendor, product in (("1-1", "1a6e", "089a"), ("1-2", "18d1", "9302"), ("1-3", "046d", "c52b")):
        (devices / name).mkdir(parents=True)
        (devices / name / "idVendor").write_text(vendor + "\n")
        (devices / name / "idProduct").write_text(product + "\n")
    (devices / "1-0:1.0").mkdir()  # an interface has no ids
    assert doctor(bare, bare / "none").edgetpu_devices == [
        Finding("USB Edge TPU", "ok", "1a6e:089a, not yet used since plugged in"),
        Finding("USB Edge TPU", "ok", "18d1:9302, in use before"),
    ]


def test_a_pcie_edge_tpu_is_found_and_whether_it_may_be_used(bare):
    device = bare / "apex_0"
    device.touch()
    assert doctor(bare, bare).edgetpu_devices == [Finding("PCIe Edge TPU", "ok", str(device))]
    if os.geteuid() != 0:  # root may use everything
        device.chmod(0)
        (finding,) = doctor(bare, bare).edgetpu_devices
        assert (finding.state, finding.advice) == (
            "wrong",
            "you may not use it: sudo adduser $USER apex, and log in again",
        )


def test_without_a_device_the_cpu_runs_the_models(bare):
    (finding,) = doctor(bare, bare).edgetpu_devices
    assert (finding.state, finding.advice) == (
        "missing", "none on USB or PCIe; models run on the CPU, with nearly the same answers"
    )  # fmt: skip


def test_the_compiler_is_looked_for_and_asked_its_version(tmp_path, bare, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    missing = doctor(bare, bare).compiler
    assert (missing.name, missing.state) == ("edgetpu_compiler", "missing")
    assert "x86-64" in missing.advice
    program = tmp_path / "edgetpu_compiler"
    program.write_text("#!/bin/sh\necho Edge TPU Compiler version 16.0.384591198\n")
    program.chmod(0o755)
    assert doctor(bare, bare).compiler == Finding(
        "edgetpu_compiler", "ok", f"Edge TPU Compiler version 16.0.384591198 at {program}"
    )
    program.write_bytes(b"\x7fELF of another machine")
    wrong = doctor(bare, bare).compiler
    assert (wrong.state, wrong.found) == ("wrong", str(program))
    assert "it is for x86-64 Linux only" in wrong.advice


def test_corals_pycoral_is_told_from_its_namesake(site, bare):
    assert doctor(bare, bare).pycoral.state == "missing"
    package = site / "pycoral"
    package.mkdir()
    (package / "__init__.py").touch()
    importlib.invalidate_caches()
    namesake = doctor(bare, bare).pycoral
    assert (namesake.state, namesake.advice) == (
        "wrong",
        "is not Coral's but PyPI's namesake: pip uninstall pycoral",
    )
    (package / "utils").mkdir()
    (package / "utils" / "edgetpu.py").touch()
    assert doctor(bare, bare).pycoral == Finding("pycoral", "ok", str(package))


def test_the_command_succeeds_and_prints_text_or_json():
    text = CliRunner().invoke(main, ["doctor"])
    assert text.exit_code == 0
    assert text.stdout.startswith(f"facetpu {facetpu.__version__} on Python ")
    document = CliRunner().invoke(main, ["doctor", "--json"])
    assert document.exit_code == 0
    assert list(json.loads(document.stdout)) == list(Report._fields)


def test_it_runs_with_the_base_install_alone(tmp_path):
    """As on a board before anything else is installed: no runtime, no TensorFlow, no metadata."""
    for module in (click, numpy, flatbuffers, PIL, facetpu):
        place = Path(module.__file__).parent
        for folder in (place, place.with_name(place.name + ".libs"), place.with_name("pillow.libs")):
            if folder.is_dir() and not (tmp_path / folder.name).exists():
                (tmp_path / folder.name).symlink_to(folder)
    done = subprocess.run(
        [sys.executable, "-S", "-c", "from facetpu.cli import main; main()", "doctor", "--json"],
        env={"PYTHONPATH": str(tmp_path), "PATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert report["runtime"] == {
        "name": "TFLite runtime",
        "state": "missing",
        "found": "",
        "advice": "no TFLite runtime is installed: run pip install 'facetpu[board]'",
    }
    assert report["packages"][""][0]["found"] == "runs from a folder, not installed"
    assert report["edgetpu_library"]["state"] in ("ok", "wrong", "missing")
    if report["edgetpu_library"]["state"] == "missing":
        assert CORAL_APT in report["edgetpu_library"]["advice"]
