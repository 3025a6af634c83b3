"""Compiling: with a stand-in that prints what ``edgetpu_compiler`` prints, and a real one where it is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from networks import Network, base_network

from facetpu.cli import main
from facetpu.doctor import Finding, doctor
from facetpu.edgetpu import compiler as compiling
from facetpu.edgetpu.compiler import (
    Compiler,
    OpCount,
    Summary,
    find_compiler,
    parse_log,
    parse_summaries,
    run_compiler,
)
from facetpu.edgetpu.support import OpReport
from facetpu.errors import FacetpuError
from facetpu.stages.compile import compile_models

STANDIN = Path(__file__).with_name("standin_compiler.py")
LOOK = "run facetpu inspect on it to see which op is at fault"
SMALLER = "use a smaller input (--size of align), or a network with fewer channels in its first layers"

StandIn = Callable[[str], str]
Engine = Callable[..., Path]


@pytest.fixture
def standin(tmp_path: Path) -> StandIn:
    """Makes an ``edgetpu_compiler`` that behaves as named: the number of ops it leaves, or a failure."""

    def make(behaviour: str) -> str:
        program = tmp_path / f"edgetpu_compiler_{behaviour}"
        root = STANDIN.parents[1]
        program.write_text(
            f"#!/bin/sh\nPYTHONPATH='{root}' '{sys.executable}' '{STANDIN}' {behaviour} \"$@\"\n"
        )
        program.chmod(0o755)
        return str(program)

    return make


@pytest.fixture(params=["stand-in", pytest.param("real", marks=pytest.mark.compiler)])
def compiler(request: pytest.FixtureRequest, standin: StandIn) -> StandIn:
    """As ``standin``; and the real compiler, where it is installed, of which the same is expected."""
    if request.param == "stand-in":
        return standin
    found = shutil.which("edgetpu_compiler")
    if found is None:
        pytest.skip("edgetpu_compiler is not installed here")
    return lambda behaviour: found


def write_base(folder: Path, name: str = "base.tflite", channels: int = 8) -> Path:
    path = folder / name
    path.write_bytes(base_network(channels))
    return path


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_base_is_compiled_and_read_back(tmp_path: Path, compiler: StandIn) -> None:
    base = write_base(tmp_path)
    result = compile_models([base], tmp_path / "out", compiler=compiler("0"))
    assert listing(tmp_path / "out") == ["base_edgetpu.log", "base_edgetpu.tflite", "manifest.json"]
    (model,) = result.models
    assert (model.tpu_ops, model.cpu_ops) == (3, 0)
    assert [op.target for op in model.ops] == ["TPU"] * 3
    assert model.parameters["cached_bytes"] > 0
    assert result.compiler_version.startswith("16.")
    assert str(result).startswith(f"{tmp_path}/out/base_edgetpu.tflite: 3 of 3 ops on the Edge TPU\n")
    assert str(base) not in model.log.read_text()


def test_models_compiled_together_share_a_token(tmp_path: Path, compiler: StandIn) -> None:
    models = [write_base(tmp_path, "one.tflite"), write_base(tmp_path, "two.tflite", channels=16)]
    result = compile_models(models, tmp_path / "out", compiler=compiler("0"))
    assert [model.model.name for model in result.models] == ["one_edgetpu.tflite", "two_edgetpu.tflite"]
    assert len({model.parameter_caching_token for model in result.models}) == 1
    assert "Input: one.tflite" in result.models[0].log.read_text()


@pytest.mark.parametrize(
    "name", ['it\'s a "base" $HOME.tflite', "基础 é.tflite", "two\nlines.tflite", "-o.tflite"]
)
def test_any_file_name_will_do(tmp_path: Path, compiler: StandIn, name: str) -> None:
    base = write_base(tmp_path, name)
    (model,) = compile_models([base], tmp_path / "out", compiler=compiler("0")).models
    assert model.model == tmp_path / "out" / f"{base.stem}_edgetpu.tflite"
    assert model.model.is_file()


def test_ops_that_the_compiler_left_are_reported(
    tmp_path: Path, compiler: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    net = Network()
    convolved = net.convolution("conv", net.image([1, 4, 4, 8]), 8)
    base = tmp_path / "base.tflite"
    base.write_bytes(net.finish([net.step("HARD_SWISH", [convolved], [1, 4, 4, 8])]))
    (model,) = compile_models([base], tmp_path / "out", compiler=compiler("1")).models
    reason = "the Edge TPU has no HARD_SWISH: train with ReLU6"
    assert model.ops == [
        OpReport(0, "CONV_2D", 1, "TPU", ""),
        OpReport(1, "HARD_SWISH", 1, "CPU", reason),
    ]
    assert str(model).splitlines()[-1] == f"        1  CPU  HARD_SWISH: {reason}"
    assert caplog.messages == [f"{base}: 1 CPU HARD_SWISH: {reason}"]


def test_an_op_left_unexpectedly_has_the_compilers_own_reason(tmp_path: Path, standin: StandIn) -> None:
    base = write_base(tmp_path)
    (model,) = compile_models([base], tmp_path / "out", compiler=standin("1")).models
    assert model.ops[-1] == OpReport(2, "CONV_2D", 1, "CPU", "More than one subgraph is not supported")


def test_a_second_run_does_nothing(
    tmp_path: Path, standin: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    base, out = write_base(tmp_path), tmp_path / "out"
    first = compile_models([base], out, compiler=standin("0"))
    caplog.set_level("INFO")
    assert compile_models([base], out, compiler=standin("crash")) == first
    assert caplog.messages == [f"{out}: is up to date"]
    base.write_bytes(base_network(channels=16))
    with pytest.raises(FacetpuError, match="exists"):
        compile_models([base], out, compiler=standin("0"))
    assert compile_models([base], out, compiler=standin("0"), overwrite=True) != first


FAILURES = {
    "not-quantized": (
        "the model is not quantised, or its batch is not fixed, which the compiler calls the same; "
        "quantise every "
        "tensor to int8 with inputs of fixed shape: facetpu quantize does both"
    ),
    "op-version": (
        "the compiler is of 2021 and does not know version 6 of CONV_2D; convert with the options "
        "that emit the "
        f"older op; {LOOK}"
    ),
    "crash": (
        "the compiler itself crashed, which large tensors and ops newer than 2021 make it do; "
        f"{LOOK}, or {SMALLER}"
    ),
    "exception": (
        "the compiler itself crashed, which large tensors and ops newer than 2021 make it do; "
        f"{LOOK}, or {SMALLER}"
    ),
    "signal": (
        "the compiler itself crashed, which large tensors and ops newer than 2021 make it do; "
        f"{LOOK}, or {SMALLER}"
    ),
    "activations": f"its activations are too large for the Edge TPU's memory; {SMALLER}",
    "own-timeout": f"its activations are too large for the Edge TPU's memory; {SMALLER}",
    "custom-op": (
        "the compiler does not know the custom op Atan; cut the model before it with facetpu split "
        "--tensor and "
        "compile the part before"
    ),
    "dynamic": "a tensor has no fixed shape; convert with a fixed batch of 1 and a fixed image size",
    "no-reason": f"the compiler gives no reason; {LOOK}, and compile it in halves to find it",
    "mute": f"the compiler ended with code 3 without a word; {LOOK}",
    "new-words": f"the compiler ended with code 1, saying: Something new went wrong; {LOOK}",
    "nothing-written": (
        "the compiler claims success and wrote no model; run it by hand, with -s, to see what it says"
    ),
}


@pytest.mark.parametrize("behaviour", FAILURES)
def test_each_known_failure_has_its_cause_and_remedy(
    tmp_path: Path, standin: StandIn, behaviour: str
) -> None:
    base, program = write_base(tmp_path), standin(behaviour)
    before = listing(tmp_path)
    with pytest.raises(FacetpuError) as caught:
        compile_models([base], tmp_path / "out", compiler=program)
    assert str(caught.value) == f"{base}: {FAILURES[behaviour]}"
    assert listing(tmp_path) == before


@pytest.mark.parametrize("behaviour", ["not-quantized", "op-version", "dynamic-batch"])
def test_what_our_check_refuses_the_compiler_refuses_too(
    tmp_path: Path, compiler: StandIn, behaviour: str
) -> None:
    net = Network()
    image = net.image([1, 4, 4, 8] if behaviour != "dynamic-batch" else [-1, 4, 4, 8])
    if behaviour == "not-quantized":
        out = net.step("RELU", [net.input("real", [1, 8])], [1, 8], dtype="float32")
    else:
        out = net.convolution("conv", image, 8, version=6 if behaviour == "op-version" else 1)
    model = tmp_path / "model.tflite"
    model.write_bytes(net.finish([out]))
    with pytest.raises(FacetpuError):
        compile_models([model], tmp_path / "out", compiler=compiler("hang"))
    program = Compiler(compiler("op-version" if behaviour == "op-version" else "not-quantized"))
    with pytest.raises(FacetpuError) as caught:
        run_compiler([model], tmp_path, program)
    assert (
        str(caught.value) == f"{model}: {FAILURES[behaviour if behaviour in FAILURES else 'not-quantized']}"
    )


def test_success_with_nothing_on_the_tpu_is_a_failure(tmp_path: Path, standin: StandIn) -> None:
    base = write_base(tmp_path)
    with pytest.raises(FacetpuError) as caught:
        compile_models([base], tmp_path / "out", compiler=standin("none"))
    assert str(caught.value) == (
        f"{base}: the compiler put no op of it on the Edge TPU (CONV_2D: More than one subgraph is "
        "not supported; "
        "AVERAGE_POOL_2D: More than one subgraph is not supported); run facetpu inspect"
    )
    assert not (tmp_path / "out").exists()


def test_a_compiler_that_hangs_is_killed_with_its_children(
    tmp_path: Path, standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "GRACE", 0.5)
    base = write_base(tmp_path)
    start = time.monotonic()
    with pytest.raises(FacetpuError) as caught:
        compile_models([base], tmp_path / "out", compiler=standin("hang"), timeout=1)
    assert time.monotonic() - start < 20
    assert str(caught.value) == (
        f"{base}: the compiler did not end within 1 s; pass a longer --timeout, or {SMALLER}"
    )


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Puts a stand-in for ``docker`` or ``podman`` on PATH; returns the file that notes what it was asked."""

    def make(name: str, behaviour: str = "0", images: str = "edgetpu-compiler,my/own:1") -> Path:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        record = tmp_path / f"{name}.jsonl"
        script = Path(__file__).with_name("standin_docker.py")
        (folder / name).write_text(
            f"#!/bin/sh\nPYTHONPATH='{script.parents[1]}' exec '{sys.executable}' '{script}' "
            f"'{record}' '{images}' {behaviour} \"$@\"\n"
        )
        (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))
        return record

    return make


@pytest.mark.parametrize("name", ["docker", "podman"])
def test_a_container_compiles_where_this_machine_cannot(tmp_path: Path, engine: Engine, name: str) -> None:
    record, base = engine(name), write_base(tmp_path)
    (model,) = compile_models([base], tmp_path / "out", compiler=f"{name}:my/own:1").models
    assert (model.tpu_ops, model.cpu_ops) == (3, 0)
    assert listing(tmp_path / "out") == ["base_edgetpu.log", "base_edgetpu.tflite", "manifest.json"]
    asked, ran = (json.loads(line) for line in record.read_text().splitlines())
    assert asked == ["image", "inspect", "--format", "{{.Id}}", "my/own:1"]
    container, folder = ran[ran.index("--name") + 1], ran[ran.index("--volume") + 1].split(":")[0]
    assert ran == [
        *["run", "--rm", "--init", "--name", container, "--platform", "linux/amd64", "--network", "none"],
        *["--volume", f"{folder}:/models:Z", "--workdir", "/models", "--entrypoint", "edgetpu_compiler"],
        *["my/own:1", "-t", "180", "-o", "out", "facetpu-model-000.tflite"],
    ]
    assert container.startswith("facetpu-compile-")
    assert not Path(folder).exists()


def test_the_built_image_is_found_without_being_named(tmp_path: Path, engine: Engine) -> None:
    record = engine("docker")
    assert str(find_compiler()) == "docker:edgetpu-compiler"
    assert doctor(tmp_path, tmp_path).compiler == Finding(
        "edgetpu_compiler", "ok", "Edge TPU Compiler version 16.0.384591198 at docker:edgetpu-compiler"
    )
    models = [write_base(tmp_path, "one.tflite"), write_base(tmp_path, "two.tflite", channels=16)]
    result = compile_models(models, tmp_path / "out")
    assert [model.model.name for model in result.models] == ["one_edgetpu.tflite", "two_edgetpu.tflite"]
    assert json.loads(record.read_text().splitlines()[-1])[-3:] == [
        "out", "facetpu-model-000.tflite", "facetpu-model-001.tflite",
    ]  # fmt: skip


def test_the_compiler_of_this_machine_goes_before_an_image(tmp_path: Path, engine: Engine) -> None:
    engine("docker")
    program = tmp_path / "bin" / "edgetpu_compiler"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert str(find_compiler()) == str(program)


@pytest.mark.parametrize(
    ("given", "behaviour", "expected"),
    [
        ("podman:x", "0", "podman:x: podman is not installed; install it, or give another --compiler"),
        (
            "docker:x",
            "0",
            "docker:x: docker has no image x; pull it, or build it from a clone of facetpu: docker build "
            "--platform linux/amd64 -t edgetpu-compiler -f scripts/edgetpu_compiler.Dockerfile scripts",
        ),
        (
            "docker:edgetpu-compiler",
            "no-daemon",
            "docker:edgetpu-compiler: docker cannot be used: Cannot connect to the Docker daemon at "
            "unix:///var/run/docker.sock. Is it running?",
        ),
        (
            "docker:",
            "no-program",
            'docker:edgetpu-compiler: cannot run edgetpu_compiler: exec: "edgetpu_compiler": executable '
            "file not found in $PATH.",
        ),
    ],
)
def test_a_container_that_cannot_be_had(
    tmp_path: Path, engine: Engine, given: str, behaviour: str, expected: str
) -> None:
    engine("docker", behaviour)
    base = write_base(tmp_path)
    with pytest.raises(FacetpuError) as caught:
        compile_models([base], tmp_path / "out", compiler=given)
    assert str(caught.value).startswith(expected)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("behaviour", ["crash", "signal", "activations", "nothing-written"])
def test_failures_inside_a_container_have_their_causes(
    tmp_path: Path, engine: Engine, behaviour: str
) -> None:
    engine("docker", behaviour)
    base = write_base(tmp_path)
    with pytest.raises(FacetpuError) as caught:
        compile_models([base], tmp_path / "out")
    assert str(caught.value) == f"{base}: {FAILURES[behaviour]}"


def test_a_container_that_hangs_is_stopped(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "GRACE", 0.5)
    record, base = engine("docker", "hang"), write_base(tmp_path)
    with pytest.raises(FacetpuError, match="did not end within 1 s"):
        compile_models([base], tmp_path / "out", timeout=1)
    ran, killed = (json.loads(line) for line in record.read_text().splitlines()[-2:])
    assert killed == ["kill", ran[ran.index("--name") + 1]]


@pytest.mark.skipif(shutil.which("docker") is None, reason="docker is not installed here")
def test_a_real_docker_is_understood(tmp_path: Path) -> None:
    """With or without a running daemon, what it says of an image that there is not is no surprise."""
    with pytest.raises(FacetpuError) as caught:
        find_compiler("docker:facetpu/no-such-image")
    assert re.search(r"docker has no image|docker cannot be used: .*daemon", str(caught.value))


def test_without_a_compiler_the_message_says_where_to_get_it_and_how_to_do_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    base = write_base(tmp_path, "my base.tflite")
    with pytest.raises(FacetpuError) as caught:
        compile_models([base], tmp_path / "out")
    assert str(caught.value) == (
        "no edgetpu_compiler on PATH; install the package edgetpu-compiler from Coral's apt repository "
        "(scripts/install_edgetpu_compiler.sh) on an x86-64 Debian or Ubuntu, or in a container of "
        "one elsewhere "
        "(this machine is aarch64): docker build --platform linux/amd64 -t edgetpu-compiler -f "
        "scripts/edgetpu_compiler.Dockerfile scripts; by hand there: copy 'my base.tflite', run "
        "edgetpu_compiler -t 180 -o . "
        "'my base.tflite', bring back 'my base_edgetpu.tflite'"
    )


def test_a_compiler_that_cannot_be_run(tmp_path: Path) -> None:
    base, program = write_base(tmp_path), tmp_path / "compiler"
    with pytest.raises(FacetpuError, match="compiler: no such compiler; install the package"):
        compile_models([base], tmp_path / "out", compiler=str(program))
    program.write_bytes(b"\x7fELF for another machine")
    with pytest.raises(FacetpuError, match=r"compiler: may not be executed; run chmod \+x "):
        compile_models([base], tmp_path / "out", compiler=str(program))
    program.chmod(0o755)
    with pytest.raises(FacetpuError, match=r"compiler: cannot be run \(Exec format error\); install the"):
        compile_models([base], tmp_path / "out", compiler=str(program))


def test_models_that_cannot_be_compiled_are_refused_before_the_compiler_is_called(
    tmp_path: Path, standin: StandIn
) -> None:
    def refusal(*models: Path) -> str:
        with pytest.raises(FacetpuError) as caught:
            compile_models(list(models), tmp_path / "out", compiler=standin("hang"))
        return str(caught.value)

    base = write_base(tmp_path)
    (tmp_path / "other").mkdir()
    twin = write_base(tmp_path / "other")
    assert refusal(base, twin) == (f"{twin}: would be written to the same file as {base}; rename one of them")
    compiled = compile_models([base], tmp_path / "compiled", compiler=standin("0")).models[0].model
    assert refusal(compiled) == f"{compiled}: is compiled already; give the model it was compiled from"
    net = Network()
    real = tmp_path / "float.tflite"
    real.write_bytes(net.finish([net.step("RELU", [net.input("image", [1, 8])], [1, 8], dtype="float32")]))
    assert refusal(real) == (
        f"{real}: no op of it would run on the Edge TPU: op 0 RELU: works on float32 (tensor "
        "'image'), not int8 "
        "or uint8: quantise the model to full integer (facetpu quantize)"
    )
    net = Network()
    newer = tmp_path / "newer.tflite"
    newer.write_bytes(net.finish([net.convolution("conv", net.image([1, 4, 4, 8]), 8, version=6)]))
    assert refusal(newer).startswith(
        f"{newer}: op 0 CONV_2D: is CONV_2D version 6, and the compiler, of 2021"
    )
    assert refusal(tmp_path / "none.tflite") == f"{tmp_path}/none.tflite: no such file; give a .tflite model"


def test_what_the_compiler_prints_is_read_in_all_its_forms() -> None:
    text = """Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Models compiled successfully in 524 ms.

Input model: a/1.tflite
Input size: 5.11MiB
Output model: b/1_edgetpu.tflite
Output size: 5.09MiB
On-chip memory used for caching model parameters: 18.00KiB
On-chip memory remaining for caching model parameters: 6.86MiB
Off-chip memory used for streaming uncached model parameters: 0.00B
Number of Edge TPU subgraphs: 1
Total number of operations: 368
Operation log: b/1_edgetpu.log

Model successfully compiled but not all operations are supported by the Edge TPU. A percentage ...
Number of operations that will run on Edge TPU: 15
Number of operations that will run on CPU: 353
See the operation log file for individual operation details.

Input model: a/2.tflite
Input size: 1.87MiB
Output model: b/2_edgetpu.tflite
Output size: 2.06MiB
On-chip memory used for caching model parameters: 2.00MiB
On-chip memory remaining for caching model parameters: 1.00KiB
Off-chip memory used for streaming uncached model parameters: 512.00B
Number of Edge TPU subgraphs: 1
Total number of operations: 6
Operation log: b/2_edgetpu.log
See the operation log file for individual operation details.
Compilation child process completed within timeout period.
Compilation succeeded!
"""
    assert parse_summaries(text) == [
        Summary("a/1.tflite", "b/1_edgetpu.tflite", 18432, 7193231, 0, 1, 368, 15),
        Summary("a/2.tflite", "b/2_edgetpu.tflite", 2097152, 1024, 512, 1, 6, 6),
    ]
    assert parse_summaries("Edge TPU Compiler version 16.0.384591198\nCompilation failed! \n") == []


def test_the_operation_log_is_read() -> None:
    text = """Edge TPU Compiler version 16.0.384591198
Input: x.tflite
Output: x_edgetpu.tflite

Operator                       Count      Status

CONV_2D                        32         Mapped to Edge TPU
QUANTIZE                       1          Operation is otherwise supported, but not mapped due to some unspecified limitation
UNIDIRECTIONAL_SEQUENCE_LSTM   2          Tensor has unsupported rank (up to 3 innermost dimensions mapped)
"""  # noqa: E501
    assert parse_log(text) == [
        OpCount("CONV_2D", 32, "Mapped to Edge TPU"),
        OpCount(
            "QUANTIZE",
            1,
            "Operation is otherwise supported, but not mapped due to some unspecified limitation",
        ),
        OpCount(
            "UNIDIRECTIONAL_SEQUENCE_LSTM",
            2,
            "Tensor has unsupported rank (up to 3 innermost dimensions mapped)",
        ),
    ]


def test_the_command_prints_one_document(tmp_path: Path, standin: StandIn) -> None:
    base = write_base(tmp_path)
    arguments = [
        "compile",
        str(base),
        "-o",
        str(tmp_path / "out"),
        "--compiler",
        standin("0"),
        "--json",
        "-q",
    ]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    (model,) = json.loads(done.stdout)["models"]
    assert model["ops"][0] == {"index": 0, "op": "CONV_2D", "version": 1, "target": "TPU", "reason": ""}
    assert model["min_runtime_version"] == 14


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (
            "install_edgetpu_compiler.sh",
            "the compiler is for x86-64 and this machine is aarch64; use a linux/amd64 container",
        ),
        ("install_board.sh", "there is no apt-get here; install libedgetpu and facetpu[board] by hand"),
    ],
)
def test_the_installers_refuse_a_machine_that_they_cannot_serve(
    tmp_path: Path, script: str, expected: str
) -> None:
    for name, text in {"uname": "echo aarch64", "python3": "exit 0", "dirname": "echo /"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    path = STANDIN.parents[1] / "scripts" / script
    done = subprocess.run(
        [shutil.which("sh") or "sh", str(path)], env={"PATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (1, f"{script}: {expected}\n")
