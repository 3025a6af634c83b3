"""Where ops would run: each rule alone, the graph's rules, and the real compiler's verdicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Network, base_network

from facetpu.edgetpu.compiled import ops_left
from facetpu.edgetpu.support import OpReport, check
from facetpu.errors import FacetpuError
from facetpu.tflite.model import read_model
from facetpu.tflite.schema import new

QUANTIZE = "quantise the model to full integer (facetpu quantize)"
INT = np.int32


def only_op(net: Network, output: int) -> OpReport:
    (report,) = check(net.model(output))
    return report


def reason_of(op: str, shapes: tuple[list[int], list[int]], constant: Any = None, options: Any = None) -> str:
    """Why ``op`` from one shape to another, with a constant as its second input, stays on the CPU."""
    net = Network()
    sources: list[int | None] = [net.image(shapes[0])]
    if constant is not None:
        sources.append(net.constant("constant", constant))
    return only_op(net, net.step(op, sources, shapes[1], options)).reason


def test_a_base_runs_wholly_on_the_tpu() -> None:
    assert check(read_model(base_network())) == [
        OpReport(0, "CONV_2D", 1, "TPU", ""),
        OpReport(1, "AVERAGE_POOL_2D", 1, "TPU", ""),
        OpReport(2, "CONV_2D", 1, "TPU", ""),
    ]


CASES = [
    ("HARD_SWISH", ([1, 8], [1, 8]), None, None, "the Edge TPU has no HARD_SWISH: train with ReLU6"),
    (
        "FLOOR_DIV",
        ([1, 8], [1, 8]),
        None,
        None,
        "the Edge TPU has no FLOOR_DIV: cut the model before it (facetpu split --tensor) and compile "
        "the part "
        "before",
    ),
    (
        "RELU",
        ([2, 4, 4, 8], [2, 4, 4, 8]),
        None,
        None,
        "tensor 'image' is [2, 4, 4, 8], and only the 3 innermost dimensions may exceed 1: convert "
        "with a batch "
        "of 1 and no further dimensions",
    ),
    (
        "MAX_POOL_2D",
        ([1, 4, 4, 8], [1, 2, 2, 8]),
        None,
        new("Pool2DOptions", fused_activation_function=1),
        "has RELU fused into it: make that an op of its own",
    ),
    (
        "MEAN",
        ([1, 4, 4, 6], [1, 4, 4, 1]),
        np.array([3], INT),
        new("ReducerOptions", keep_dims=True),
        "averages 6 channels: make them a multiple of 4",
    ),
    (
        "MAX_POOL_2D",
        ([1, 4, 4, 8], [1, 2, 2, 8]),
        None,
        new("Pool2DOptions", fused_activation_function=-1),
        "has activation -1 fused into it: make that an op of its own",
    ),
    ("MEAN", ([1, 4, 4, 6], [1, 6]), np.array([1, 2], INT), None, ""),
    ("MEAN", ([1, 4, 4, 8], [1, 4, 4, 1]), np.array([-1], INT), None, ""),
    (
        "SUM",
        ([1, 4, 4, 8], [4, 4, 8]),
        np.array([-4], INT),
        None,
        "works along the batch: use another dimension",
    ),
    (
        "PAD",
        ([1, 4, 4, 8], [2, 4, 4, 8]),
        np.array([[0, 1], [0, 0], [0, 0], [0, 0]], INT),
        None,
        "tensor 'pad0' is [2, 4, 4, 8], and only the 3 innermost dimensions may exceed 1: convert "
        "with a batch "
        "of 1 and no further dimensions",
    ),
    ("PAD", ([1, 4, 4, 8], [1, 6, 6, 8]), np.array([[0, 0], [1, 1], [1, 1], [0, 0]], INT), None, ""),
    (
        "PRELU",
        ([1, 4, 4, 8], [1, 4, 4, 8]),
        np.zeros([4, 4, 8], np.uint8),
        None,
        "its alpha is [4, 4, 8]: share it over the image (shared_axes=[1, 2])",
    ),
    (
        "RESIZE_BILINEAR",
        ([1, 1, 1, 8], [1, 9, 9, 8]),
        np.array([9, 9], INT),
        None,
        "enlarges [1, 1, 1, 8] to [1, 9, 9, 8], too far for its precision: enlarge in steps",
    ),
    (
        "RESIZE_NEAREST_NEIGHBOR",
        ([1, 512, 512, 3], [1, 1024, 1024, 3]),
        np.array([1024, 1024], INT),
        None,
        "resizes to 3.0 MiB, which is too much for the Edge TPU: resize to less",
    ),
    ("RESIZE_BILINEAR", ([1, 4, 4, 8], [1, 8, 8, 8]), np.array([8, 8], INT), None, ""),
    (
        "SOFTMAX",
        ([1, 16001], [1, 16001]),
        None,
        None,
        "has 16001 classes, and the Edge TPU takes 16000: leave the softmax to the CPU",
    ),
    (
        "SOFTMAX",
        ([2, 5], [2, 5]),
        None,
        None,
        "tensor 'image' is [2, 5] and must be one-dimensional: use a 1x1 convolution instead",
    ),
    (
        "SQUEEZE",
        ([5, 1, 10], [5, 10]),
        None,
        None,
        "turns [5, 1, 10] into [5, 10]: squeeze leading dimensions only, or use RESHAPE",
    ),
    ("SQUEEZE", ([1, 1, 10], [10]), None, None, ""),
    ("TILE", ([1, 1, 1, 8], [1, 4, 4, 8]), np.array([1, 4, 4, 1], INT), None, ""),
    (
        "TILE",
        ([1, 2, 2, 8], [1, 4, 4, 8]),
        np.array([1, 2, 2, 1], INT),
        None,
        "repeats more than one pixel: cut the model before it (facetpu split --tensor) and compile the part "
        "before",
    ),
    ("TRANSPOSE", ([1, 4, 5, 8], [1, 8, 4, 5]), np.array([0, 3, 1, 2], INT), None, ""),
    (
        "TRANSPOSE",
        ([1, 4, 5, 1], [1, 4, 5, 1]),
        np.array([3, 1, 2, 0], INT),
        None,
        "transposes the batch [3, 1, 2, 0]: leave the first dimension in its place",
    ),
]


@pytest.mark.parametrize(("op", "shapes", "constant", "options", "expected"), CASES)
def test_what_keeps_an_op_on_the_cpu(
    op: str, shapes: tuple[list[int], list[int]], constant: Any, options: Any, expected: str
) -> None:
    assert reason_of(op, shapes, constant, options) == expected


@pytest.mark.parametrize(
    ("dtype", "scale", "expected"),
    [
        (np.float32, None, f"works on float32 (tensor 'image'), not int8 or uint8: {QUANTIZE}"),
        (np.int32, 1.0, "works on int32 (tensor 'image'), not int8 or uint8: keep indices out of the model"),
        (np.int8, None, f"tensor 'image' is int8 without a scale: {QUANTIZE}"),
        (np.int8, 0.5, ""),
    ],
)
def test_types(dtype: Any, scale: float | None, expected: str) -> None:
    net = Network()
    image = net.input("image", [1, 8], dtype, scale)
    assert only_op(net, net.step("RELU", [image], [1, 8], dtype=np.int8)).reason == expected


def test_weights_that_are_computed_or_float() -> None:
    net = Network()
    image, kernel = net.image([1, 1, 1, 4]), net.image([8, 1, 1, 4], name="kernel")
    computed = net.step("CONV_2D", [image, kernel, None], [1, 1, 1, 8], new("Conv2DOptions"))
    assert only_op(net, computed).reason == (
        "its parameter 'kernel' is computed, not constant: fold it before converting"
    )
    net = Network()
    weights = net.constant("weights", np.zeros([8, 4], np.float32))
    hybrid = net.step("FULLY_CONNECTED", [net.image([1, 4]), weights, None], [1, 8])
    assert only_op(net, hybrid).reason == f"its constant 'weights' is float32: {QUANTIZE}"


def test_dilation_must_be_equal_in_x_and_y() -> None:
    net = Network()
    out = net.convolution("conv", net.image([1, 4, 4, 3]), 4, dilation_w_factor=2, dilation_h_factor=1)
    assert only_op(net, out).reason == "is dilated 1 x 2: use the same dilation in x and y"


def fully_connected(rows: int, scales: int, **options: Any) -> str:
    net = Network()
    weights = net.constant("weights", np.zeros([8, 4], np.int8), scale=0.5)
    net.graph.tensors[weights].quantization.scale = np.full(scales, 0.5, np.float32)
    table = new("FullyConnectedOptions", **options)
    return only_op(
        net, net.step("FULLY_CONNECTED", [net.image([rows, 4]), weights, None], [rows, 8], table)
    ).reason


def test_fully_connected_layers() -> None:
    assert fully_connected(1, 1) == ""
    assert fully_connected(1, 1, weights_format=1) == (
        "its weights are shuffled: convert with the default weight format"
    )
    assert fully_connected(3, 1) == (
        "tensor 'fully_connected0' is [3, 8] and must be one-dimensional: use a 1x1 convolution instead"
    )
    assert fully_connected(1, 8) == (
        "its weights 'weights' have a scale for each channel, which older runtimes take for garbage: convert "
        "with _experimental_disable_per_channel_quantization_for_dense_layers"
    )


@pytest.mark.parametrize(
    ("value", "others", "mapped"), [(7, 1, True), (8, 1, False), (7, 2, False), (None, 3, True)]
)
def test_concatenation_takes_one_constant_block_of_zeros(
    value: int | None, others: int, mapped: bool
) -> None:
    net = Network()
    sources: list[int | None] = [net.image([1, 1, 1, 4], name=f"image{i}") for i in range(others)]
    if value is not None:
        block = np.full([1, 1, 1, 4], value, np.uint8)
        sources.append(net.constant("block", block, scale=1 / 64, zero_point=7))
    out = net.step("CONCATENATION", sources, [1, 1, 1, 4 * len(sources)], new("ConcatenationOptions", axis=3))
    assert (only_op(net, out).target == "TPU") is mapped


def test_strided_slices() -> None:
    def reason(strides: list[int], **options: Any) -> str:
        net = Network()
        bounds = [net.constant(name, np.array([0, 1], INT)) for name in ("begin", "end")]
        steps = net.constant("strides", np.array(strides, INT))
        table = new("StridedSliceOptions", **options)
        return only_op(
            net, net.step("STRIDED_SLICE", [net.image([1, 8]), *bounds, steps], [1, 4], table)
        ).reason

    assert reason([1, 1]) == ""
    assert reason([1, 2]) == "slices with strides [1, 2]: use strides of 1, or a pooling of size 1"
    assert (
        reason([1, 1], new_axis_mask=1) == "slices with an ellipsis or a new axis: write every dimension out"
    )


def test_splitting_and_packing_the_batch() -> None:
    net = Network()
    axis, image = net.constant("axis", np.array(0, INT)), net.image([1, 4, 4, 8])
    split = net.step("SPLIT", [axis, image], [1, 4, 4, 8], new("SplitOptions", num_splits=1))
    assert only_op(net, split).reason == "works along the batch: use another dimension"
    net = Network()
    packed = net.step(
        "PACK", [net.image([4, 4, 8])], [1, 4, 4, 8], new("PackOptions", values_count=1, axis=0)
    )
    assert only_op(net, packed).reason == "packs along the batch: use another dimension"


def test_ops_behind_one_on_the_cpu_stay_there_and_a_branch_does_not() -> None:
    net = Network()
    first = net.convolution("first", net.image([1, 4, 4, 8]), 8)
    swish = net.step("HARD_SWISH", [first], [1, 4, 4, 8])
    behind = net.convolution("behind", swish, 8)
    branch = net.convolution("branch", first, 8)
    both = net.step("ADD", [behind, branch], [1, 4, 4, 8])
    reports = check(net.model(both))
    assert [report.target for report in reports] == ["TPU", "CPU", "CPU", "TPU", "CPU"]
    assert (
        reports[2].reason
        == reports[4].reason
        == (
            "comes after op 1 HARD_SWISH on the CPU, and the compiler maps one subgraph only: mend "
            "that op, or "
            "compile the rest as a model of its own"
        )
    )


def test_ops_on_the_cpu_before_the_first_subgraph_do_not_stop_it() -> None:
    net = Network()
    cast = net.step("CAST", [net.input("image", [1, 4, 4, 8])], [1, 4, 4, 8])
    reports = check(net.model(net.convolution("conv", cast, 8)))
    assert [report.target for report in reports] == ["CPU", "TPU"]


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=20))
def test_what_goes_to_the_tpu_is_one_subgraph(steps: list[tuple[bool, int, int]]) -> None:
    """No op on the TPU waits for one on the CPU that itself waits for the TPU."""
    net = Network()
    tensors = [net.image([1, 8])]
    parents = []
    for fit, left, right in steps:
        pair = [left % len(tensors), right % len(tensors)]
        parents.append([i - 1 for i in pair if i])
        op = "ADD" if fit else "FLOOR_DIV"
        tensors.append(net.step(op, [tensors[i] for i in pair], [1, 8]))
    reports = check(net.model(*tensors[1:]))
    after_tpu: list[bool] = []  # whether an op waits for the TPU through one on the CPU
    for report, before in zip(reports, parents, strict=True):
        crossed = any(after_tpu[i] for i in before)
        assert report.target == "CPU" or not crossed
        left_tpu = report.target == "CPU" and any(reports[i].target == "TPU" for i in before)
        after_tpu.append(crossed or left_tpu)
        assert bool(report.reason) == (report.target == "CPU")
        assert report.target == "CPU" or report.op == "ADD"
    if steps[0][0]:
        assert reports[0].target == "TPU"


REFUSALS = "the compiler refuses the whole model: "


def test_an_op_newer_than_the_compiler_refuses_the_whole_model() -> None:
    net = Network()
    old = net.convolution("old", net.image([1, 4, 4, 8]), 8, version=5)
    grouped = net.convolution("grouped", old, 8, version=6)
    reason = (
        "is CONV_2D version 6, and the compiler, of 2021, knows only version 5: convolve without groups, or "
        "split the groups into convolutions of their own"
    )
    assert check(net.model(grouped)) == [
        OpReport(0, "CONV_2D", 5, "CPU", REFUSALS + reason),
        OpReport(1, "CONV_2D", 6, "CPU", reason),
    ]


@pytest.mark.parametrize(
    ("op", "version", "expected"),
    [
        ("QUANTIZE", 3, "is QUANTIZE version 3, and the compiler, of 2021, knows only version 2: "),
        (
            "TRANSPOSE_CONV",
            4,
            "is TRANSPOSE_CONV version 4, and the compiler, of 2021, knows only version 3: ",
        ),
        ("EXP", 2, "is EXP version 2, and the compiler, of 2021, knows only version 1: "),
        ("GELU", 1, "is GELU version 1, and the compiler, of 2021, knows no such op: "),
    ],
)
def test_versions_known_to_break_the_compiler(op: str, version: int, expected: str) -> None:
    net = Network()
    out = net.step(op, [net.image([1, 8])], [1, 8], version=version)
    assert only_op(net, out).reason == (
        expected + "convert with an older TensorFlow, or cut the model before it"
    )


def test_paddings_of_int64_a_batch_of_any_size_and_control_flow_refuse_the_whole_model() -> None:
    paddings = np.zeros([4, 2], np.int64)
    assert reason_of("PAD", ([1, 4, 4, 8], [1, 4, 4, 8]), paddings) == (
        "has paddings of int64, on which the compiler crashes: convert with paddings of int32"
    )
    assert reason_of("RELU", ([-1, 8], [1, 8])) == (
        "tensor 'image' is [-1, 8], without a fixed size, which the compiler calls not quantized: "
        "convert with "
        "a fixed batch of 1"
    )
    model = read_model(base_network())
    model.subgraphs.append(model.subgraphs[0])
    assert {report.reason for report in check(model)} == {
        REFUSALS + "it has 2 graphs: convert without control flow (if, while)"
    }
    model = read_model(base_network())
    model.external_buffers = [new("ExternalBuffer")]
    assert {report.reason for report in check(model)} == {
        REFUSALS + "its weights are in external buffers: convert it with the weights inside"
    }


def test_an_op_without_its_inputs_is_refused() -> None:
    net = Network()
    out = net.step("FULLY_CONNECTED", [net.image([1, 4])], [1, 4])
    with pytest.raises(
        FacetpuError, match=r"^the model: op 0 FULLY_CONNECTED has no input 1: the model is damaged"
    ):
        check(net.model(out))


def test_ops_out_of_order_are_named() -> None:
    net = Network()
    image, later = net.image([1, 8]), net.flow("later", [1, 8])
    out = net.step("RELU", [later], [1, 8])
    net.op("RELU", [image], [later])
    assert [report.reason for report in check(net.model(out))] == [
        "reads what a later op makes: the model is damaged; get it again",
        "",
    ]


@pytest.mark.data
def test_every_op_of_the_public_models_is_where_the_real_compiler_put_it(data: Path) -> None:
    models = data / "coral" / "models"
    mapping = json.loads((models / "op_mapping.json").read_text())
    wrong = {
        name: [
            (index, op, target)
            for (index, op, target), report in zip(expected, check(read_model(models / name)), strict=True)
            if (report.index, report.op, report.target) != (index, op, target)
        ]
        for name, expected in mapping.items()
    }
    assert wrong == {name: [] for name in mapping}


@pytest.mark.data
def test_ops_left_on_the_cpu_are_found_in_the_compiled_file(data: Path) -> None:
    models = data / "coral" / "models"
    mapping = json.loads((models / "op_mapping.json").read_text())
    for name, expected in mapping.items():
        compiled = models / name.replace(".tflite", "_edgetpu.tflite")
        if compiled.is_file():
            left = ops_left(read_model(models / name), read_model(compiled))
            assert left == [target == "CPU" for _, _, target in expected], name
