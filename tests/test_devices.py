"""Which device runs a model, and what happens without it. The Edge TPU here is a stand-in: there is none."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from small_export import SIZE, build_base, write_export
from standin_edgetpu import GONE, StandinEdgeTpu, compiled, crops_of, use_library

from facetpu.board import devices
from facetpu.board.devices import (
    EdgeTpu,
    NoEdgeTpu,
    check_device,
    edgetpu_delegate,
    edgetpus,
)
from facetpu.board.embed import Embedder
from facetpu.cli import main
from facetpu.doctor import doctor
from facetpu.edgetpu import library
from facetpu.errors import FacetpuError

CROPS = crops_of(4, SIZE)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export folder with a compiled base beside its CPU twin."""
    folder = write_export(tmp_path_factory.mktemp("export") / "model")
    (folder / "base_edgetpu.tflite").write_bytes(compiled((folder / "base.tflite").read_bytes()))
    return folder


@pytest.fixture(scope="module")
def on_cpu(model: Path) -> np.ndarray:
    """What the base gives for ``CROPS``."""
    return Embedder(model / "base.tflite").run(CROPS)


@pytest.fixture
def edgetpu(model: Path, monkeypatch: pytest.MonkeyPatch) -> StandinEdgeTpu:
    """An Edge TPU that works."""
    standin = StandinEdgeTpu((model / "base.tflite").read_bytes())
    standin.install(monkeypatch)
    return standin


@pytest.fixture
def without_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """No libedgetpu, whether this machine has it or not."""
    monkeypatch.setitem(library.LIBRARIES, platform.system(), "libedgetpu-that-is-not.so.1")


def lonely(model: Path, folder: Path) -> Path:
    """The compiled base of ``model`` without its twin."""
    shutil.copy(model / "base_edgetpu.tflite", folder)
    return folder


@pytest.mark.parametrize("name", ["cpu", "usb", "pci", "usb:0", "pci:12", ":1"])
def test_devices_are_named_as_corals_library_names_them(name: str) -> None:
    assert check_device(name) == name


@pytest.mark.parametrize("name", ["", "gpu", "usb:", "usb:x", "cpu:0", "1", "usb:0 "])
def test_other_names_are_wrong_usage(name: str, model: Path) -> None:
    with pytest.raises(FacetpuError, match="is no device; give cpu, usb, pci, usb:0, pci:0 or :0"):
        check_device(name)
    done = CliRunner().invoke(main, ["identify", str(model), "a.jpg", "--device", name])
    assert done.exit_code == 2


@pytest.mark.parametrize("device", [None, "usb:1", ":0"])
def test_a_compiled_model_runs_on_the_edge_tpu_that_is_asked_for(
    model: Path, edgetpu: StandinEdgeTpu, on_cpu: np.ndarray, device: str | None
) -> None:
    embedder = Embedder(model, device=device)
    assert embedder.path.name == "base_edgetpu.tflite"
    assert np.array_equal(embedder.run(CROPS), on_cpu)
    assert edgetpu.invoked == len(CROPS)
    assert edgetpu.asked == [{} if device is None else {"device": device}]


def test_the_cpu_runs_the_twin_where_it_is_asked_for(
    model: Path, edgetpu: StandinEdgeTpu, on_cpu: np.ndarray, tmp_path: Path
) -> None:
    embedder = Embedder(model, device="cpu")
    assert embedder.path.name == "base.tflite"
    assert np.array_equal(embedder.run(CROPS), on_cpu)
    assert (edgetpu.asked, edgetpu.invoked) == ([], 0)
    with pytest.raises(FacetpuError, match="is compiled for the Edge TPU; put its CPU twin beside it"):
        Embedder(lonely(model, tmp_path), device="cpu")


def test_a_model_that_is_not_compiled_does_not_run_on_an_edge_tpu(
    model: Path, edgetpu: StandinEdgeTpu
) -> None:
    with pytest.raises(FacetpuError, match=r"base\.tflite: is not compiled for the Edge TPU, so it cannot"):
        Embedder(model / "base.tflite", device="usb:0")


@pytest.mark.parametrize("plugged_in_for", [0, 1, 3])
def test_unplugged_while_running_the_twin_goes_on_and_says_so_once(
    model: Path,
    edgetpu: StandinEdgeTpu,
    on_cpu: np.ndarray,
    caplog: pytest.LogCaptureFixture,
    plugged_in_for: int,
) -> None:
    edgetpu.dies_after = plugged_in_for
    embedder = Embedder(model)
    assert np.array_equal(embedder.run(CROPS), on_cpu)
    assert np.array_equal(embedder.run(CROPS), on_cpu)
    assert edgetpu.invoked == plugged_in_for
    assert embedder.path.name == "base.tflite"
    (line,) = caplog.messages
    assert line.endswith(
        "base_edgetpu.tflite: the Edge TPU failed (Failed precondition: Cannot execute. USB transfer error 5 "
        "[LibUsbDataOutCallback]); base.tflite runs on the CPU from now on"
    )


def test_unplugged_without_a_twin_is_one_line(model: Path, edgetpu: StandinEdgeTpu, tmp_path: Path) -> None:
    edgetpu.dies_after = 1
    embedder = Embedder(lonely(model, tmp_path))
    with pytest.raises(FacetpuError, match=r"the Edge TPU failed \(.*\); plug it in again, or put"):
        embedder.run(CROPS)


def test_unplugged_beside_another_models_base_is_one_line(
    model: Path, edgetpu: StandinEdgeTpu, tmp_path: Path
) -> None:
    edgetpu.dies_after = 0
    folder = lonely(model, tmp_path)
    (folder / "base.tflite").write_bytes(build_base(dim=16))
    with pytest.raises(FacetpuError, match=r"the Edge TPU failed \(.*\), and base\.tflite is no twin of it"):
        Embedder(folder).run(CROPS)


@pytest.fixture
def usb(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Plugs a stand-in into USB, given how to make it of ``twin``; it is opened in a child's process."""

    def plug_in(standin: str) -> None:
        monkeypatch.setattr(devices, "_library", lambda: None)
        monkeypatch.setattr(devices, "edgetpus", lambda: [EdgeTpu("usb:0", "/sys/2-1")])
        (tmp_path / "sitecustomize.py").write_text(
            "import pytest\n"
            "from pathlib import Path\n"
            "from standin_edgetpu import AbortingEdgeTpu, StandinEdgeTpu\n"
            f"twin = Path({str(model / 'base.tflite')!r}).read_bytes()\n"
            f"{standin}.install(pytest.MonkeyPatch())\n"
        )
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path(__file__).parent)]))

    return plug_in


@pytest.mark.parametrize(
    ("standin", "reason"),
    [
        ("AbortingEdgeTpu(twin, dies_after=2)", "its process ended by SIGABRT"),
        ("StandinEdgeTpu(twin, dies_after=2)", GONE),
    ],
)
def test_a_usb_edge_tpu_that_is_pulled_out_does_not_take_us_with_it(
    model: Path,
    usb: Callable[[str], None],
    on_cpu: np.ndarray,
    caplog: pytest.LogCaptureFixture,
    standin: str,
    reason: str,
) -> None:
    usb(standin)
    embedder = Embedder(model)
    assert embedder.path.name == "base_edgetpu.tflite"
    assert np.array_equal(embedder.run(CROPS[:2]), on_cpu[:2])
    assert caplog.messages == []
    assert np.array_equal(embedder.run(CROPS), on_cpu)
    (line,) = caplog.messages
    assert line.endswith(
        f"base_edgetpu.tflite: the Edge TPU failed ({reason}); base.tflite runs on the CPU from now on"
    )


@pytest.mark.parametrize(
    ("standin", "reason"),
    [
        (
            "StandinEdgeTpu(twin, too_old=True)",
            "the Edge TPU runtime is older than the model; update libedgetpu",
        ),
        ("AbortingEdgeTpu(twin, dies_after=-1)", "the Edge TPU failed (its process ended by SIGABRT)"),
    ],
)
def test_a_usb_edge_tpu_that_cannot_be_used_leaves_the_model_to_the_twin(
    model: Path,
    usb: Callable[[str], None],
    on_cpu: np.ndarray,
    caplog: pytest.LogCaptureFixture,
    standin: str,
    reason: str,
) -> None:
    usb(standin)
    with caplog.at_level("INFO", "facetpu"):
        assert np.array_equal(Embedder(model).run(CROPS), on_cpu)
    (line,) = caplog.messages
    assert line.startswith(f"base.tflite runs on the CPU: {reason}")
    with pytest.raises(FacetpuError, match="; or take --device cpu") as refusal:
        Embedder(model, device="usb:0")
    assert reason in str(refusal.value)


def test_a_library_older_than_the_model_leaves_it_to_the_twin(
    model: Path, edgetpu: StandinEdgeTpu, on_cpu: np.ndarray, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    edgetpu.too_old = True
    with caplog.at_level("INFO", "facetpu"):
        embedder = Embedder(model)
    assert np.array_equal(embedder.run(CROPS), on_cpu)
    advice = "the Edge TPU runtime is older than the model; update libedgetpu"
    (line,) = caplog.messages
    assert line.startswith(f"base.tflite runs on the CPU: {advice}")
    with pytest.raises(FacetpuError, match=rf"{advice} .*version \(13\).*; or take --device cpu"):
        Embedder(model, device="usb")
    with pytest.raises(FacetpuError, match=f"is compiled for the Edge TPU, and {advice}"):
        Embedder(lonely(model, tmp_path))


@pytest.mark.usefixtures("without_library")
def test_without_the_library_the_twin_runs_and_says_so(
    model: Path, on_cpu: np.ndarray, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with caplog.at_level("INFO", "facetpu"):
        embedder = Embedder(model)
    assert np.array_equal(embedder.run(CROPS), on_cpu)
    missing = "libedgetpu-that-is-not.so.1 is not installed; install libedgetpu1-std"
    assert caplog.messages == [f"base.tflite runs on the CPU: {missing}"]
    with pytest.raises(FacetpuError, match=f"{missing}; or take --device cpu"):
        Embedder(model, device="usb:0")
    with pytest.raises(FacetpuError, match=f"{missing}; or put its CPU twin beside it"):
        Embedder(lonely(model, tmp_path))


@pytest.mark.parametrize(
    ("listed", "device", "message"),
    [
        ([], None, r"finds no device; plug the Edge TPU in"),
        ([], "usb:0", r"finds no device; plug the Edge TPU in"),
        ([(0, "/dev/apex_0")], "usb", r"there is no Edge TPU usb here; there is pci:0 \(/dev/apex_0\)"),
        ([(1, "/sys/2-1")], "usb:1", r"there is no Edge TPU usb:1 here; there is usb:0 \(/sys/2-1\)"),
        ([(1, "/sys/2-1")], ":1", r"there is no Edge TPU :1 here; there is usb:0"),
        (
            [(1, "/sys/2-1")],
            "usb:0",
            "the Edge TPU usb:0 cannot be opened; see that no other program uses it",
        ),
        ([(1, "/sys/2-1")], None, r"the Edge TPU usb:0 \(/sys/2-1\) cannot be opened; see that no other"),
    ],
)
def test_an_edge_tpu_that_does_not_open_is_named_with_the_reason(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    listed: list[tuple[int, str]],
    device: str | None,
    message: str,
) -> None:
    use_library(tmp_path, monkeypatch, listed)
    with pytest.raises(NoEdgeTpu, match=message):
        edgetpu_delegate(device)


def test_several_edge_tpus_are_listed_by_bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_library(tmp_path, monkeypatch, [(0, "/dev/apex_0"), (1, "/sys/1"), (0, "/dev/apex_1"), (1, "/sys/2")])
    assert edgetpus() == [
        EdgeTpu("pci:0", "/dev/apex_0"),
        EdgeTpu("usb:0", "/sys/1"),
        EdgeTpu("pci:1", "/dev/apex_1"),
        EdgeTpu("usb:1", "/sys/2"),
    ]
    assert library.installed_runtime() == 13
    found = doctor(tmp_path, tmp_path).edgetpu_library
    assert (found.state, found.found) == ("wrong", "runtime 13")
    assert "cannot be opened" in found.advice


def test_a_command_names_the_device_that_is_missing(
    model: Path, without_library: None, tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    photo = os.fspath(tmp_path / "a.jpg")
    done = CliRunner().invoke(main, ["verify", str(model), photo, photo, "--device", "usb:0"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert "install libedgetpu1-std; or take --device cpu" in done.stderr
