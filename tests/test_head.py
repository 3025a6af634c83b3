"""The head: its arithmetic, and every rule that Coral's imprinting engine holds a model to."""

from __future__ import annotations

import numpy as np
import pytest
import small_models
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from facetpu.errors import FacetpuError
from facetpu.tflite.concat import join_models
from facetpu.tflite.head import UNIT_SCALE, UNIT_ZERO_POINT, Source, base_output, build_head, quantize_rows
from facetpu.tflite.model import (
    op_name,
    quantization,
    read_model,
    tensor_data,
    tensor_shape,
    type_name,
    write_model,
)
from facetpu.tflite.schema import TensorType

TAIL = ["L2_NORMALIZATION", "CONV_2D", "MUL", "RESHAPE", "SOFTMAX"]


def assert_imprintable(data: bytes, people: int) -> None:
    """The rules of Coral's imprinting engine, in its order, and the form in which it reads the kernel."""
    model = read_model(data)
    graph = model.subgraphs[0]
    names = [op_name(model, operator) for operator in graph.operators]
    assert names.count("L2_NORMALIZATION") == 1
    assert names[-5:] == TAIL
    norm, conv, mul, reshape, softmax = graph.operators[-5:]
    tensors = graph.tensors
    assert norm.outputs.tolist() == conv.inputs.tolist()[:1]
    shape = tensor_shape(tensors[norm.outputs[0]])
    assert shape[:3] == (1, 1, 1)
    kernel, bias = (tensors[index] for index in conv.inputs[1:])
    assert (type_name(kernel), tensor_shape(kernel)) == ("uint8", (people, 1, 1, shape[3]))
    assert quantization(kernel) == (UNIT_SCALE, UNIT_ZERO_POINT)
    assert 0 <= quantization(bias).zero_point <= 255
    assert not tensor_data(model, bias).any()
    assert (type_name(bias), tensor_shape(bias)) == ("int32", (people,))
    assert tensor_shape(tensors[mul.outputs[0]]) == (1, 1, 1, people)
    factor = tensors[mul.inputs[1]]
    form = quantization(factor)
    assert form.scale * (int(tensor_data(model, factor).reshape(-1)[0]) - form.zero_point) == 10.0
    assert tensor_data(model, tensors[reshape.inputs[1]]).tolist() == [1, people]
    assert reshape.builtin_options.new_shape.tolist() == [1, people]
    assert tensor_shape(tensors[softmax.outputs[0]]) == (1, people)
    assert graph.outputs.tolist() == softmax.outputs.tolist()


def test_a_joined_head_passes_every_rule_of_the_imprinting_engine():
    base = small_models.base()
    assert_imprintable(join_models(base, small_models.head(base)), small_models.PEOPLE)


def test_a_head_over_a_single_person_passes_too():
    source = base_output(small_models.base())
    head = build_head(small_models.unit_rows(1), 10.0, source.scale, source.zero_point)
    assert_imprintable(join_models(small_models.base(), head), 1)


@settings(max_examples=30, deadline=None)
@given(
    people=st.integers(1, 40),
    dimension=st.sampled_from([8, 64, 128, 512]),
    factor=st.floats(1, 64),
    zero_point=st.integers(0, 255),
    seed=st.integers(0, 999),
)
def test_a_head_gives_the_softmax_of_scaled_cosines(people, dimension, factor, zero_point, seed):
    random = np.random.default_rng(seed)
    rows = small_models.unit_rows(people, dimension, seed)
    stored = random.integers(0, 256, [1, 1, 1, dimension], dtype=np.uint8)
    stored[0, 0, 0, 0] = 0 if zero_point > 127 else 255  # never all zero
    (given_,) = small_models.run(build_head(rows, factor, 0.05, zero_point), stored)
    real = stored.reshape(-1).astype(np.float64) - zero_point
    cosines = rows @ (real / np.linalg.norm(real))
    expected = np.exp(factor * cosines)
    expected /= expected.sum()
    # What uint8 costs: .0032 a cosine from rows and input, half a step of 1/128 each for cosine and logit.
    error = 4 * 0.0032 + 1 / 128
    assert np.abs(given_[0] / 256 - expected).max() <= np.expm1(factor * error) * expected.max() + 1 / 256


def test_rows_are_quantised_as_coral_does():
    rows = np.array([-1.0, -0.5 / 128, 0.5 / 128, 1.5 / 128, 0.49 / 128, 1.0, 2.0, -2.0], np.float32)
    assert quantize_rows(rows, 1 / 128, 128).tolist() == [0, 128, 129, 130, 128, 255, 255, 0]
    assert quantize_rows(np.float32([-0.5, 0.5]), 1.0, 0).tolist() == [0, 1]


@settings(deadline=None)
@given(arrays.arrays(np.float32, 16, elements=st.floats(-1, 1, width=32)))
def test_a_unit_row_keeps_its_direction(row):
    norm = np.linalg.norm(row)
    if norm < 1e-3:
        return
    row = (row / norm).astype(np.float32)
    again = (quantize_rows(row, UNIT_SCALE, UNIT_ZERO_POINT).astype(np.float32) - 128) / 128
    assert np.abs(again - row).max() <= 1 / 128
    assert again @ row / np.linalg.norm(again) > 0.999


@pytest.mark.data
@pytest.mark.parametrize("case", ["imp_cpu", "inc1"])
def test_rows_of_one_embedding_give_the_bytes_that_corals_engine_wrote(data, case):
    with np.load(data / "coral" / "imprint" / f"{case}.npz") as golden:
        embedding = golden["embeddings"][0].astype(np.float32)
        row = embedding / np.sqrt(np.cumsum(embedding * embedding, dtype=np.float32)[-1])
        given_ = quantize_rows(row, golden["kernel_scale"], int(golden["kernel_zero_point"]))
        assert np.array_equal(given_, golden["expected_kernel"][0])


@pytest.mark.data
def test_a_head_fits_a_real_base(data):
    base = (data / "coral" / "models" / "mobilenet_v1_1.0_224_quant_embedding_extractor.tflite").read_bytes()
    source = base_output(base)
    assert source.dimension == 1024
    head = build_head(small_models.unit_rows(3, 1024), 10.0, source.scale, source.zero_point, source.name)
    joined = join_models(base, head)
    assert_imprintable(joined, 3)
    photo = np.random.default_rng(0).integers(0, 256, [1, 224, 224, 3], dtype=np.uint8)
    (embedding,) = small_models.run(base, photo)
    assert np.array_equal(small_models.run(joined, photo)[0], small_models.run(head, embedding)[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kernel": np.ones([2, 4])}, "row 0 of the head's kernel has length 2"),
        ({"kernel": np.array([[1, 0], [np.nan, 1]])}, "row 1 of the head's kernel has length nan"),
        ({"kernel": np.zeros([0, 4])}, r"kernel has shape \[0, 4\]; give \[people, dimension\]"),
        ({"kernel": np.ones(4) / 2}, r"kernel has shape \[4\]"),
        ({"scale_factor": 0.0}, "scale factor is 0.0; give a positive number"),
        ({"scale_factor": float("inf")}, "scale factor is inf"),
        ({"input_scale": -1.0}, "input scale is -1.0"),
        ({"input_zero_point": -128}, "input zero point is -128; a uint8 base has one in 0 to 255"),
    ],
)
def test_a_head_that_could_not_work_is_refused(changes, message):
    good = {"kernel": np.eye(4), "scale_factor": 10.0, "input_scale": 0.1, "input_zero_point": 128}
    with pytest.raises(FacetpuError, match=message):
        build_head(**{**good, **changes})


def test_what_a_base_gives():
    assert base_output(small_models.base("out", 7)) == Source("out", 16, float(np.float32(0.1)), 7)


def test_a_base_with_another_output_is_refused():
    model = read_model(small_models.base())
    model.subgraphs[0].tensors[-1].type = TensorType.INT8
    with pytest.raises(
        FacetpuError, match=r"^b\.tflite: its output 'embedding' is int8 \[1, 1, 1, 16\]; a base"
    ):
        base_output(write_model(model), "b.tflite")
    model.subgraphs[0].outputs = np.array([3, 0], np.int32)
    with pytest.raises(FacetpuError, match=r"^b\.tflite: has 2 outputs; a base has one"):
        base_output(write_model(model), "b.tflite")
