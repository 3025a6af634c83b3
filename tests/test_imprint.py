"""The imprinting engine: Coral's bytes, Coral's refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_export import DIM, build_base, build_model, unit_rows

from facetpu.board.imprint import ImprintingEngine, NotTrainable, UnfitModel
from facetpu.errors import FacetpuError
from facetpu.runtime import interpreter
from facetpu.tflite.concat import join_models
from facetpu.tflite.head import base_output, build_head
from facetpu.tflite.model import read_model, tensor_data, write_model
from facetpu.tflite.schema import TensorType, new


@pytest.fixture(scope="module")
def model() -> bytes:
    return build_model(build_base())


def head_of(model: bytes) -> tuple[Any, list[Any]]:
    record = read_model(model)
    return record, record.subgraphs[0].operators[-4:]


def kernel_of(model: bytes) -> np.ndarray:
    record, (conv, *_) = head_of(model)
    data = tensor_data(record, record.subgraphs[0].tensors[conv.inputs[1]])
    assert data is not None
    return data.reshape(len(data), -1)


def sizes_and_forms(model: bytes) -> list[tuple[list[int], float, int, list[float]]]:
    """Shape, scale, zero point and range of every output of the last four ops."""
    record, operators = head_of(model)
    tensors = [record.subgraphs[0].tensors[op.outputs[0]] for op in operators]
    return [
        (
            tensor.shape.tolist(),
            float(tensor.quantization.scale[0]),
            int(tensor.quantization.zero_point[0]),
            [] if tensor.quantization.min is None else [*tensor.quantization.min, *tensor.quantization.max],
        )
        for tensor in tensors
    ]


@pytest.mark.data
@pytest.mark.parametrize(
    ("case", "prototype"),
    [("imp_cpu", "prototype"), ("imp_cpu_q", "prototype_with_quantize"), ("keep", "prototype")],
)
def test_equals_corals_engine(data: Path, case: str, prototype: str) -> None:
    folder = data / "coral" / "imprint"
    check_golden(folder / f"{prototype}.tflite", folder / f"{case}.npz")


@pytest.mark.data
def test_equals_corals_engine_on_a_model_that_it_wrote_before(data: Path) -> None:
    folder = data / "coral" / "imprint"
    first = check_golden(folder / "prototype.tflite", folder / "inc1.npz")
    check_golden(first, folder / "inc2.npz")


def check_golden(model: Path | bytes, case: Path) -> bytes:
    with np.load(case) as golden:
        engine = ImprintingEngine(model, bool(golden["keep_classes"]))
        for embedding, class_id in zip(golden["embeddings"], golden["class_ids"], strict=True):
            engine.train(embedding, int(class_id))
        written = engine.serialize_model()
        expected, factor = golden["expected_kernel"], float(golden["scale_factor"])
        assert read_model(written).description == str(golden["expected_description"])
    assert np.array_equal(kernel_of(written), expected)
    classes = len(expected)
    record, (conv, _, reshape, _) = head_of(written)
    tensors = record.subgraphs[0].tensors
    bias = tensor_data(record, tensors[conv.inputs[2]])
    assert bias is not None
    assert bias.tolist() == [0] * classes
    assert reshape.builtin_options.new_shape is None or reshape.builtin_options.new_shape[-1] == classes
    shapes = [tensor_data(record, tensors[index]) for index in reshape.inputs[1:]]
    assert [shape.tolist() for shape in shapes if shape is not None] == [[1, classes]] * len(shapes)
    assert sizes_and_forms(written) == [
        ([1, 1, 1, classes], 1 / 128, 128, [-1.0, 1.0]),
        ([1, 1, 1, classes], factor / 128, 128, [-factor, factor]),
        ([1, classes], factor / 128, 128, [-factor, factor]),
        ([1, classes], 1 / 256, 0, []),
    ]
    interpreter(written).allocate_tensors()
    return written


@pytest.mark.data
def test_the_extractor_is_the_model_with_the_embedding_for_its_output(data: Path) -> None:
    path = data / "coral" / "imprint" / "prototype.tflite"
    whole, extractor = read_model(path), read_model(ImprintingEngine(path).serialize_extractor_model())
    (output,) = extractor.subgraphs[0].outputs
    assert extractor.subgraphs[0].tensors[output].name == "L2Norm/Out"
    extractor.subgraphs[0].outputs = whole.subgraphs[0].outputs
    assert extractor == whole


@pytest.mark.data
def test_a_base_that_was_compiled_may_precede_the_head(data: Path) -> None:
    models = data / "coral" / "models"
    rows = []
    for name in ("", "_edgetpu"):
        base = (models / f"mobilenet_v1_1.0_224_quant_embedding_extractor{name}.tflite").read_bytes()
        source = base_output(base)
        head = build_head(unit_rows(2, 1024), 10.0, source.scale, source.zero_point, source.name)
        engine = ImprintingEngine(join_models(base, head))
        for class_id, embedding in enumerate(unit_rows(3, 1024, seed=5)):
            engine.train(embedding, class_id)
        written = engine.serialize_model()
        assert (b"edgetpu-custom-op" in written) == (name == "_edgetpu")
        rows.append(kernel_of(written))
    assert np.array_equal(*rows)


def test_what_is_written_runs_and_names_whom_it_was_trained_on(model: bytes) -> None:
    rng = np.random.default_rng(3)
    crops = rng.integers(0, 256, [4, 112, 112, 3], np.uint8)
    engine = ImprintingEngine(model)
    extractor = opened(engine.serialize_extractor_model())
    scale, zero_point = extractor.get_output_details()[0]["quantization"]
    for class_id, crop in enumerate(crops):
        engine.train(scale * (run(extractor, crop).astype(np.float32) - zero_point), class_id)
    written = opened(engine.serialize_model())
    assert [int(run(written, crop).argmax()) for crop in crops] == [0, 1, 2, 3]


def opened(model: bytes) -> Any:
    opened = interpreter(model)
    opened.allocate_tensors()
    return opened


def run(opened: Any, crop: np.ndarray) -> np.ndarray:
    opened.set_tensor(opened.get_input_details()[0]["index"], crop[None])
    opened.invoke()
    output: np.ndarray = opened.get_tensor(opened.get_output_details()[0]["index"])
    return output.ravel()


def reference_row(embeddings: np.ndarray) -> tuple[list[int], float]:
    """Coral's arithmetic, number by number."""
    one = np.float32
    weights = [one(0)] * embeddings.shape[1]
    for embedding in embeddings:
        weights = [one(weight + one(value)) for weight, value in zip(weights, embedding, strict=True)]
    total = one(0)
    for weight in weights:
        total = one(total + one(weight * weight))
    norm = one(math.sqrt(total))
    if norm > 1e-5:
        weights = [one(weight / norm) for weight in weights]
    row = []
    for weight in weights:
        value = float(one(one(128) + one(weight / one(1 / 128))))
        row.append(min(255, max(0, math.floor(value + 0.5))))
    return row, float(norm)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10_000),
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
    st.sampled_from([1.0, 1e-7, 0.0]),
)
def test_rows_are_corals_sum_norm_and_rounding(seed: int, counts: list[int], size: float) -> None:
    embeddings = [
        unit_rows(count, DIM, seed + index) * np.float32(size) for index, count in enumerate(counts)
    ]
    engine = ImprintingEngine(build_head(unit_rows(2), 10.0, 0.02, 120))
    for class_id, rows in enumerate(embeddings):
        for row in rows:
            engine.train(row, class_id)
    written = engine.serialize_model()
    expected = [reference_row(rows) for rows in embeddings]
    assert kernel_of(written).tolist() == [row for row, _ in expected]
    assert read_model(written).description == "".join(f"{i} {n:f}\n" for i, (_, n) in enumerate(expected))


def test_classes_are_kept_added_and_trained_further(model: bytes) -> None:
    first = ImprintingEngine(model, keep_classes=True)
    assert (first.embedding_dim, first.num_classes) == (DIM, 3)
    first.train(unit_rows(1, seed=7)[0], 3)
    written = first.serialize_model()
    assert read_model(written).description == "3 1.000000\n"
    assert np.abs(kernel_of(written)[:3].astype(int) - kernel_of(model)).max() <= 1

    again = ImprintingEngine(written, keep_classes=True)
    again.train(unit_rows(1, seed=7)[0], 3)
    class_id, norm = read_model(again.serialize_model()).description.split()
    assert class_id == "3"
    assert float(norm) == pytest.approx(2, abs=0.01)
    assert again.num_classes == 4
    with pytest.raises(NotTrainable, match="Cannot change the base model classes"):
        again.train(unit_rows(1)[0], 0)


def test_serialising_twice_gives_the_same_bytes_and_leaves_the_engine_as_it_was(model: bytes) -> None:
    engine = ImprintingEngine(model)
    extractor = engine.serialize_extractor_model()
    engine.train(unit_rows(1)[0], 0)
    assert engine.serialize_model() == engine.serialize_model()
    assert engine.serialize_extractor_model() == extractor


@pytest.mark.parametrize(
    "description", ["MLIR Converted.", "0 1.5\n1 x\n", "", "0 0x1\n", "1_0 2.0\n", "0  1.0\n"]
)
def test_a_description_that_is_no_list_of_norms_makes_no_class_trainable(
    model: bytes, description: str
) -> None:
    record = read_model(model)
    record.description = description
    engine = ImprintingEngine(write_model(record), keep_classes=True)
    with pytest.raises(NotTrainable, match="Cannot change the base model classes"):
        engine.train(unit_rows(1)[0], 0)


def test_train_refuses_what_corals_refuses(model: bytes) -> None:
    engine = ImprintingEngine(model)
    with pytest.raises(RuntimeError, match=r"^Model is not trained\.$"):
        engine.serialize_model()
    with pytest.raises(RuntimeError, match=r"^The class index of a new category is too large!$"):
        engine.train(unit_rows(1)[0], 1)
    with pytest.raises(RuntimeError, match=r"^Invalid weights array shape\.$"):
        engine.train(unit_rows(1), 0)
    with pytest.raises(RuntimeError, match="negative"):
        engine.train(unit_rows(1)[0], -1)
    with pytest.raises(TypeError):
        engine.train(unit_rows(1)[0], 0.0)  # type: ignore[arg-type]
    assert engine.num_classes == 0


def broken(model: bytes, change: Callable[[Any, Any], None]) -> bytes:
    record = read_model(model)
    change(record, record.subgraphs[0])
    return write_model(record)


def drop_l2_norm(record: Any, graph: Any) -> None:
    graph.operators[-4].inputs = np.array([graph.operators[-5].inputs[0], *graph.operators[-4].inputs[1:]])
    del graph.operators[-5]


def drop_softmax(record: Any, graph: Any) -> None:
    graph.operators.pop()


def relu_before_conv(record: Any, graph: Any) -> None:
    record.operator_codes.append(new("OperatorCode", builtin_code=19, deprecated_builtin_code=19))
    relu = new("Operator", opcode_index=len(record.operator_codes) - 1)
    relu.inputs = relu.outputs = graph.operators[-5].outputs
    graph.operators.insert(-4, relu)


def second_l2_norm(record: Any, graph: Any) -> None:
    graph.operators.insert(0, graph.operators[-5])


def wide_embedding(record: Any, graph: Any) -> None:
    graph.tensors[graph.operators[-5].outputs[0]].shape = np.array([1, 2, 2, DIM // 4], np.int32)


def shifted_bias(record: Any, graph: Any) -> None:
    bias = graph.tensors[graph.operators[-4].inputs[2]]
    bias.quantization.zero_point = np.array([256], np.int64)


def logits_of_rank_4(record: Any, graph: Any) -> None:
    graph.tensors[graph.operators[-1].outputs[0]].shape = np.array([1, 1, 1, 3], np.int32)


def two_outputs(record: Any, graph: Any) -> None:
    graph.outputs = np.append(graph.outputs, graph.operators[-2].outputs)


def no_bias(record: Any, graph: Any) -> None:
    graph.operators[-4].inputs = graph.operators[-4].inputs[:2]


def int8_kernel(record: Any, graph: Any) -> None:
    graph.tensors[graph.operators[-4].inputs[1]].type = TensorType.INT8


def scale_for_each_row(record: Any, graph: Any) -> None:
    kernel = graph.tensors[graph.operators[-4].inputs[1]]
    kernel.quantization.scale = np.full(3, 1 / 128, np.float32)
    kernel.quantization.zero_point = np.full(3, 128, np.int64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_l2_norm, "Unsupported model architecture. Input model must have an L2Norm layer."),
        (drop_softmax, "The last 4 operators must be Conv2d, Mul, Reshape, Softmax"),
        (
            relu_before_conv,
            "Unsupported model architecture. L2Norm operator must be followed with the last Conv2d operator.",
        ),
        (
            second_l2_norm,
            "Unsupported model architecture. L2Norm operator must be followed with the last Conv2d operator.",
        ),
        (wide_embedding, "Embedding extractor's output tensor should be [1, 1, 1, x]"),
        (shifted_bias, "bias_zero_point is out of [0, 255] range!"),
        (logits_of_rank_4, "Logit output tensor should be [1, x]"),
        (two_outputs, "Graph must have output from Softmax"),
    ],
)
def test_models_are_refused_with_corals_words(
    model: bytes, change: Callable[[Any, Any], None], message: str
) -> None:
    with pytest.raises(UnfitModel) as refusal:
        ImprintingEngine(broken(model, change))
    assert str(refusal.value) == message
    assert isinstance(refusal.value, ValueError)


def wide_kernel(record: Any, graph: Any) -> None:
    graph.tensors[graph.operators[-4].inputs[1]].shape = np.array([3, 2, 2, DIM // 4], np.int32)


def computed_factor(record: Any, graph: Any) -> None:
    graph.operators[-3].inputs = np.array([*graph.operators[-3].inputs[:1], graph.operators[-4].outputs[0]])


@pytest.mark.parametrize("change", [no_bias, int8_kernel, scale_for_each_row, wide_kernel, computed_factor])
def test_models_that_corals_engine_would_corrupt_or_crash_on_are_refused(
    model: bytes, change: Callable[[Any, Any], None]
) -> None:
    with pytest.raises(UnfitModel) as refusal:
        ImprintingEngine(broken(model, change))
    assert "split the model and join it with a head of facetpu's" in str(refusal.value)


def test_a_buffer_that_another_tensor_shares_is_not_overwritten(model: bytes) -> None:
    record = read_model(model)
    graph = record.subgraphs[0]
    first_kernel = graph.tensors[graph.operators[0].inputs[1]]
    bias = graph.tensors[graph.operators[-4].inputs[2]]
    first_bias = graph.tensors[graph.operators[0].inputs[2]]
    bias.shape, bias.buffer = first_bias.shape, first_bias.buffer  # 8 zeros each, as a converter would share
    kernel = tensor_data(record, first_kernel)
    engine = ImprintingEngine(write_model(record))
    engine.train(unit_rows(1)[0], 0)
    written = read_model(engine.serialize_model())
    tensors = written.subgraphs[0].tensors
    assert np.array_equal(tensor_data(written, tensors[graph.operators[0].inputs[1]]), kernel)  # type: ignore[arg-type]
    assert tensor_data(written, tensors[graph.operators[0].inputs[2]]).shape == (8,)  # type: ignore[union-attr]
    assert tensor_data(written, tensors[graph.operators[-4].inputs[2]]).tolist() == [0]  # type: ignore[union-attr]


@pytest.mark.parametrize("content", [b"", b"not a model at all", b"\0" * 4 + b"TFL3" + b"\xff" * 40])
def test_what_is_no_model_is_named_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    with pytest.raises(FacetpuError) as refusal:
        ImprintingEngine(path)
    assert "\n" not in str(refusal.value)
    with pytest.raises(FacetpuError, match="no such file"):
        ImprintingEngine(tmp_path / "missing.tflite")
