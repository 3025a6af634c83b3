"""What ``inspect`` says of models, compiled and not, and of files that are none."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from compiled_models import as_options, compile_model, package, program
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Network, base_network

from facetpu.cli import main
from facetpu.edgetpu import library
from facetpu.edgetpu.compiled import read_packages
from facetpu.edgetpu.executable import SCHEMA
from facetpu.edgetpu.graph import ops_of
from facetpu.edgetpu.imprinting import imprinting_problem
from facetpu.edgetpu.inspect import OpInspection, inspect
from facetpu.edgetpu.layout import GAP_X, HEIGHT, WIDTH, layout
from facetpu.errors import FacetpuError
from facetpu.tflite.head import build_head
from facetpu.tflite.model import read_model
from facetpu.tflite.schema import new

NO_NORM = "Unsupported model architecture. Input model must have an L2Norm layer."


def write(folder: Path, data: bytes, name: str = "model.tflite") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def test_the_whole_text_of_an_uncompiled_model(tmp_path: Path) -> None:
    net = Network()
    convolved = net.convolution("conv", net.image([1, 4, 4, 8]), 8)
    swish = net.step("HARD_SWISH", [convolved], [1, 4, 4, 8])
    path = write(tmp_path, net.finish([net.convolution("last", net.convolution("next", swish, 8), 8)]))
    size = path.stat().st_size / 2**20
    assert str(inspect(path)) == (
        f"{path}: {size:.2f} MiB, not compiled\n"
        "input    image: uint8 [1, 4, 4, 8], 128 bytes, scale 0.0078125, zero point 128\n"
        "output   last: uint8 [1, 4, 4, 8], 128 bytes, scale 0.015625, zero point 128\n"
        "ops      1 on the Edge TPU, 3 on the CPU, once compiled\n"
        "        0  TPU  CONV_2D\n"
        "        1  CPU  HARD_SWISH: the Edge TPU has no HARD_SWISH: train with ReLU6\n"
        "      2-3  CPU  2 x CONV_2D: comes after op 1 HARD_SWISH on the CPU, and the compiler maps "
        "one subgraph "
        "only: mend that op, or compile the rest as a model of its own\n"
        "memory   0.00 MiB of parameters before the compiler pads them; the chip keeps about 7.70 MiB, which "
        "holds them\n"
        f"imprint  Coral's engine refuses it: {NO_NORM}"
    )


def test_the_document_of_an_uncompiled_model(tmp_path: Path) -> None:
    path = write(tmp_path, base_network())
    done = CliRunner().invoke(main, ["inspect", str(path), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    tensors = found.pop("tensors")
    assert [(t["name"], t["constant"], t["shape"]) for t in tensors][:4] == [
        ("image", False, [1, 8, 8, 3]),
        ("conv/kernel", True, [8, 1, 1, 3]),
        ("conv/bias", True, [8]),
        ("conv", False, [1, 8, 8, 8]),
    ]
    mapped = {"version": 1, "target": "TPU", "reason": ""}
    assert found == {
        "model": str(path),
        "size_bytes": path.stat().st_size,
        "description": "",
        "compiled": False,
        "inputs": [
            {
                "name": "image",
                "type": "uint8",
                "shape": [1, 8, 8, 3],
                "scale": 1 / 128,
                "zero_point": 128,
                "scales": 1,
                "constant": False,
                "size_bytes": 192,
            }
        ],
        "outputs": [
            {
                "name": "embedding",
                "type": "uint8",
                "shape": [1, 1, 1, 4],
                "scale": 1 / 64,
                "zero_point": 128,
                "scales": 1,
                "constant": False,
                "size_bytes": 4,
            }
        ],
        "input_numbers": [0],
        "output_numbers": [7],
        "ops": [
            {**mapped, "index": 0, "op": "CONV_2D", "inputs": [0, 1, 2], "outputs": [3]},
            {**mapped, "index": 1, "op": "AVERAGE_POOL_2D", "inputs": [3], "outputs": [4]},
            {**mapped, "index": 2, "op": "CONV_2D", "inputs": [4, 5, 6], "outputs": [7]},
        ],
        "tpu_ops": 3,
        "cpu_ops": 0,
        "parameters": None,
        "min_runtime_version": None,
        "installed_runtime": None,
        "programs": [],
        "estimate": {"parameter_bytes": 8 * 3 + 8 * 4 + 4 * 8 + 4 * 4, "cache_bytes": 8074035},
        "imprinting": {"accepted": False, "problem": NO_NORM},
        "html": None,
    }


def test_a_compiled_model_has_its_parameters_and_runtime(tmp_path: Path) -> None:
    options = package([program(2, 7, 0xABC, scratch_size_bytes=5), program(1, 2**20, 0xABC)], runtime=13)
    path = write(tmp_path, compile_model(base_network(), left=1, options=options))
    found = inspect(path)
    assert found.compiled
    assert found.estimate is None
    assert found.parameters == {"cached_bytes": 2**20, "streamed_bytes": 7}
    assert found.min_runtime_version == 13
    left = "left on the CPU by the compiler, or joined to the model after it"
    assert found.ops == [
        OpInspection(0, "edgetpu-custom-op", 1, "TPU", "", [0], [4]),
        OpInspection(1, "CONV_2D", 1, "CPU", left, [4, 5, 6], [7]),
    ]
    assert [(p.type, p.scratch_bytes, p.parameter_caching_token) for p in found.programs] == [
        ("EXECUTION_ONLY", 5, "0xabc"),
        ("PARAMETER_CACHING", 0, "0xabc"),
    ]
    assert str(found).splitlines()[-5:-1] == [
        "memory   1.00 MiB of parameters cached on the chip, 0.00 MiB streamed at every inference",
        "memory   EXECUTION_ONLY: 5 bytes of scratch, 0 of instructions",
        "memory   PARAMETER_CACHING: 0 bytes of scratch, 0 of instructions",
        "runtime  needs Edge TPU runtime 13 or newer; none is installed here",
    ]


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("BuildLabel(COMPILER=6.3.0,DATE=redacted), RuntimeVersion(14)", "14 is installed here"),
        ("RuntimeVersion(12)", "12 is installed here: update libedgetpu"),
        ("no number", "none is installed here"),
    ],
)
def test_the_runtime_that_is_installed_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, expected: str
) -> None:
    """With a stand-in for libedgetpu that answers as ``edgetpu_c.h`` says."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    source, built = tmp_path / "standin.c", tmp_path / "standin.so"
    source.write_text(f'const char* edgetpu_version() {{ return "{version}"; }}')
    subprocess.run([compiler, "-shared", "-fPIC", "-o", built, source], check=True)
    monkeypatch.setattr(library, "library_name", lambda: str(built))
    path = write(tmp_path, compile_model(base_network(), options=package([program(0, 1, 1)], runtime=13)))
    assert f"runtime  needs Edge TPU runtime 13 or newer; {expected}\n" in str(inspect(path))


def test_layers_of_a_program_are_read() -> None:
    layer = SCHEMA.new(
        "Layer",
        name="input",
        size_bytes=192,
        y_dim=8,
        x_dim=8,
        z_dim=3,
        data_type=8,
        numerics=SCHEMA.new("NumericsConstants", zero_point=127, dequantization_factor=0.5),
        shape=SCHEMA.new("TensorShape", dimension=np.array([(0, 0), (0, 191)], SCHEMA.dtypes["Range"])),
    )
    model = read_model(
        compile_model(base_network(), options=package([program(0, 9, 1, input_layers=[layer])]))
    )
    ((found,),) = (package.executables for package in read_packages(model, "model"))
    assert found.type == "STAND_ALONE"
    assert found.inputs[0]._asdict() == {
        "name": "input",
        "size_bytes": 192,
        "yxz": (8, 8, 3),
        "data_type": "SIGNED_FIXED_POINT8",
        "scale": 0.5,
        "zero_point": 127,
        "executions": 1,
        "cached_on_dram": False,
        "shape": (1, 192),
    }


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (b"", "its options hold no package: it is damaged or cut short; compile the model again"),
        (b"\x01\x02\x03", "its options hold no package: it is damaged or cut short; compile the model again"),
        (as_options(b"DWN1"), "Package leads out of the file: it is damaged or cut short; get it again"),
    ],
)
def test_a_damaged_package_is_an_error(tmp_path: Path, options: bytes, expected: str) -> None:
    path = write(tmp_path, compile_model(base_network(), options=options))
    with pytest.raises(FacetpuError) as caught:
        inspect(path)
    assert str(caught.value).startswith(f"{path}: op 0 edgetpu-custom-op: ")
    assert expected in str(caught.value) or "lacks the mark DWN1" in str(caught.value)


@settings(deadline=None)  # the machine may be busy
@given(st.integers(0, 10**6), st.integers(0, 255), st.booleans())
def test_a_package_with_any_byte_changed_or_cut_short_never_crashes(at: int, byte: int, cut: bool) -> None:
    layer = SCHEMA.new("Layer", name="x", shape=SCHEMA.new("TensorShape"))
    options = bytearray(package([program(2, 40, 3, output_layers=[layer]), program(1, 60, 3)]))
    at %= len(options)
    if cut:
        del options[at:]
    else:
        options[at] = byte
    model = read_model(compile_model(base_network(), options=bytes(options)))
    with contextlib.suppress(FacetpuError):
        read_packages(model, "model")


@pytest.mark.parametrize("content", [b"", b"TFL3", b"not a model at all, but long enough", b"\0" * 64])
def test_files_that_are_no_models(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path, content)
    done = CliRunner().invoke(main, ["inspect", str(path)])
    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"Error: {path}: ")
    assert done.stderr.count("\n") == 1


def test_a_model_cut_short_is_an_error_wherever_it_is_cut(tmp_path: Path) -> None:
    data = base_network()
    for length in range(0, len(data) - 16, 97):
        with pytest.raises(FacetpuError):
            inspect(write(tmp_path, data[:length]))


def test_a_folder_is_asked_which_model(tmp_path: Path) -> None:
    for name in ("model.tflite", "base.tflite"):
        write(tmp_path, base_network(), name)
    with pytest.raises(FacetpuError) as caught:
        inspect(tmp_path)
    assert str(caught.value) == f"{tmp_path}: is a folder; name one model in it: base.tflite, model.tflite"
    with pytest.raises(FacetpuError, match=r"none\.tflite: no such file"):
        inspect(tmp_path / "none.tflite")


def test_names_from_a_file_do_not_move_the_cursor(tmp_path: Path) -> None:
    net = Network()
    out = net.step("RELU", [net.image([1, 8], name="\x1b[2J")], [1, 8], name="out")
    assert "input    '\\x1b[2J': uint8" in str(inspect(write(tmp_path, net.finish([out]))))


def head() -> Any:
    return read_model(build_head(np.eye(3, 4, dtype=np.float32), 10.0, 1 / 64, 128))


def test_our_own_head_is_accepted() -> None:
    assert imprinting_problem(head()) == ""


def rename(model: Any, index: int, op: str) -> None:
    """Make an op another, with an operator code of its own."""
    from facetpu.tflite.schema import BuiltinOperator

    number = BuiltinOperator[op]
    model.operator_codes.append(new("OperatorCode", builtin_code=number, deprecated_builtin_code=number))
    model.subgraphs[0].operators[index].opcode_index = len(model.operator_codes) - 1


def test_each_condition_of_corals_engine_in_its_own_words() -> None:
    model = head()
    names = [op.name for op in ops_of(model)]
    assert names == ["L2_NORMALIZATION", "CONV_2D", "MUL", "RESHAPE", "SOFTMAX"]

    rename(model, 0, "RELU")
    assert imprinting_problem(model) == NO_NORM

    model = head()
    rename(model, 1, "FULLY_CONNECTED")
    assert imprinting_problem(model) == "The last 4 operators must be Conv2d, Mul, Reshape, Softmax"

    model = head()
    operators = model.subgraphs[0].operators
    operators[1].inputs = np.array([operators[0].inputs[0], *operators[1].inputs[1:]], np.int32)
    assert imprinting_problem(model) == (
        "Unsupported model architecture. L2Norm operator must be followed with the last Conv2d operator."
    )

    model = head()
    ops_of(model)[0].output(0).shape = np.array([1, 4], np.int32)
    assert imprinting_problem(model) == "Embedding extractor's output tensor should be [1, 1, 1, x]"

    model = head()
    ops_of(model)[1].input(2).quantization.zero_point = np.array([-1], np.int64)
    assert imprinting_problem(model) == "bias_zero_point is out of [0, 255] range!"

    model = head()
    ops_of(model)[-1].output(0).shape = np.array([1, 1, 3], np.int32)
    assert imprinting_problem(model) == "Logit output tensor should be [1, x]"

    model = head()
    model.subgraphs[0].outputs = np.array([*model.subgraphs[0].outputs, 0], np.int32)
    assert imprinting_problem(model) == "Graph must have output from Softmax"


def test_a_kernel_that_corals_engine_would_corrupt_is_named() -> None:
    model = head()
    kernel = ops_of(model)[1].input(1)
    kernel.name = "kernel"
    kernel.quantization.scale = np.full(3, 0.5, np.float32)
    assert imprinting_problem(model) == (
        "pycoral would accept it and corrupt its kernel 'kernel', which is uint8 with 3 scales and "
        "must be uint8 "
        "with one: write the head with facetpu"
    )


@pytest.mark.data
def test_compiled_models_hold_what_the_report_says(data: Path) -> None:
    coral = data / "coral"
    report = json.loads((coral / "models" / "compiled_report.json").read_text())
    for name, expected in report.items():
        path = next(path for path in (coral / "models" / name, coral / "join" / name) if path.is_file())
        model = read_model(path)
        names = [f"CUSTOM:{op.name}" if op.is_custom else op.name for op in ops_of(model)]
        (found,) = read_packages(model, name)
        assert {
            "min_runtime_version": found.min_runtime_version,
            "ops": names,
            "executables": [as_reported(program) for program in found.executables],
        } == {**expected, "executables": [without_unread(entry) for entry in expected["executables"]]}, name


def as_reported(program: Any) -> dict[str, Any]:
    """An executable in the report's words."""

    def layer(found: Any) -> dict[str, Any]:
        return {
            "name": found.name,
            "size_bytes": found.size_bytes,
            "yxz": list(found.yxz),
            "dtype": found.data_type,
            "zp": found.zero_point,
            "deq": found.scale,
            "exec_count": found.executions,
            "dram": found.cached_on_dram,
            "shape": None if found.shape is None else [[0, size - 1] for size in found.shape],
        }

    return {
        **{key: value for key, value in program._asdict().items() if key not in ("inputs", "outputs")},
        "inputs": [layer(found) for found in program.inputs],
        "outputs": [layer(found) for found in program.outputs],
    }


def without_unread(entry: dict[str, Any]) -> dict[str, Any]:
    """The report without the type of a layer's details, which nothing needs."""
    layers = {
        side: [{key: value for key, value in layer.items() if key != "any"} for layer in entry[side]]
        for side in ("inputs", "outputs")
    }
    return {**entry, **layers}


@pytest.mark.data
def test_corals_own_imprinting_models_are_accepted(data: Path) -> None:
    for name in ("prototype.tflite", "prototype_with_quantize.tflite"):
        assert inspect(data / "coral" / "imprint" / name).imprinting == {"accepted": True, "problem": ""}


@pytest.mark.data
def test_a_model_compiled_in_2019_and_joined_is_read(data: Path) -> None:
    found = inspect(data / "coral" / "join" / "mobilenet_quant_v1_1.0_224_partial_delegation.tflite")
    assert found.parameters == {"cached_bytes": 3363072, "streamed_bytes": 0}
    assert found.min_runtime_version is None
    assert [op.target for op in found.ops] == ["TPU", "CPU", "CPU", "CPU"]


@pytest.mark.data
def test_every_public_model_can_be_inspected(data: Path) -> None:
    for path in sorted((data / "coral").glob("*/*.tflite")):
        assert str(inspect(path)).startswith(f"{path}: ")


# -- the page


def test_the_page_has_every_op_drawn_and_told(tmp_path: Path) -> None:
    net = Network()
    image = net.image([1, 4, 4, 8], name="<image>")
    swish = net.step("HARD_SWISH", [net.convolution("conv", image, 8)], [1, 4, 4, 8])
    path = write(tmp_path, net.finish([net.step("ADD", [swish, image], [1, 4, 4, 8])]), "a & b.tflite")
    html = tmp_path / "page.html"
    done = CliRunner().invoke(main, ["inspect", str(path), "--html", str(html)])
    assert done.exit_code == 0, done.output
    assert done.stdout.endswith(f"\npage     {html}\n")
    page = html.read_text(encoding="utf-8")
    assert "<title>a &amp; b.tflite · facetpu</title>" in page
    drawn = re.findall(
        r'<g class="(\w+)".*?<text[^>]*>(.*?)</text><text[^>]*>(.*?)</text></g>', page, re.DOTALL
    )
    assert drawn == [
        ("end", "&lt;image&gt;", "1×4×4×8 uint8"),
        ("tpu", "0 CONV_2D", "1×4×4×8 uint8"),
        ("cpu", "1 HARD_SWISH", "1×4×4×8 uint8"),
        ("cpu", "2 ADD", "1×4×4×8 uint8"),
        ("end", "add2", "1×4×4×8 uint8"),
    ]
    assert page.count("the Edge TPU has no HARD_SWISH: train with ReLU6") == 2  # in the list, and on pointing
    assert "&lt;image&gt;: uint8 [1, 4, 4, 8], 128 bytes, scale 0.0078125, zero point 128" in page
    assert "conv/kernel: uint8 [8, 1, 1, 8]" in page
    assert not re.search(r"(src|href)=", page)

    again = CliRunner().invoke(main, ["inspect", str(path), "--html", str(html)])
    assert again.stderr == f"Error: {html}: exists; choose another name, or pass --overwrite to replace it\n"
    assert CliRunner().invoke(main, ["inspect", str(path), "--html", str(html), "--overwrite"]).exit_code == 0


def test_the_page_of_a_compiled_model_has_its_programs_and_layers(tmp_path: Path) -> None:
    layer = SCHEMA.new("Layer", name="pixels", size_bytes=192, y_dim=8, x_dim=8, z_dim=3, data_type=8)
    options = package([program(2, 7, 0xABC, input_layers=[layer]), program(1, 2**20, 0xABC)], runtime=13)
    path = write(tmp_path, compile_model(base_network(), options=options))
    inspect(path, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for text in (
        "1,048,576 B",
        "PARAMETER_CACHING",
        "<code>pixels</code>",
        "8 × 8 × 3",
        "<b>13</b>",
        "0xabc",
    ):
        assert text in page


def test_a_chain_with_a_skipping_line_is_drawn_straight() -> None:
    drawing = layout([[], [0], [1], [2, 0]])
    assert drawing is not None
    assert [(box.x, box.y) for box in drawing.boxes] == [(0, 0), (0, 64), (0, 128), (0, 192)]
    assert drawing.height == 4 * 64 - 24
    assert WIDTH < drawing.width <= WIDTH + 2 * GAP_X + 12
    assert len(drawing.lines) == 3 + 3 + 2  # the chain; down, between and up again; two layers passed


@given(st.lists(st.lists(st.integers(0, 40), max_size=3), max_size=40))
def test_no_two_boxes_overlap_and_lines_lead_down(graph: list[list[int]]) -> None:
    parents = [[parent % number for parent in before if number] for number, before in enumerate(graph)]
    drawing = layout(parents)
    assert drawing is not None
    assert len(drawing.boxes) == len(parents)
    for number, box in enumerate(drawing.boxes):
        assert 0 <= box.x <= drawing.width - WIDTH
        assert 0 <= box.y <= drawing.height - HEIGHT
        for other in drawing.boxes[:number]:
            assert box.y != other.y or abs(box.x - other.x) >= WIDTH + GAP_X
        assert all(drawing.boxes[parent].y < box.y for parent in parents[number])


def test_a_graph_beyond_drawing_is_left_to_the_table(tmp_path: Path) -> None:
    wide = [[] if number < 200 else [number - 1, number % 200] for number in range(400)]
    assert layout(wide) is None
    net = Network()
    sources = [net.image([1, 8], name=f"image{number}") for number in range(200)]
    last = sources[0]
    for number in range(200):
        last = net.step("ADD", [last, sources[number]], [1, 8])
    inspect(write(tmp_path, net.finish([last])), tmp_path / "page.html")
    assert "It is too large to be drawn" in (tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.mark.data
def test_every_public_model_has_a_page(data: Path, tmp_path: Path) -> None:
    for path in sorted((data / "coral" / "models").glob("*.tflite")):
        found = inspect(path, tmp_path / "page.html", overwrite=True)
        page = (tmp_path / "page.html").read_text(encoding="utf-8")
        assert page.count('<g class="tpu"') == found.tpu_ops, path.name
        assert page.count('<g class="cpu"') == found.cpu_ops, path.name
