"""Splitting: two parts that together are the model again, or a refusal that says why."""

from __future__ import annotations

import itertools
import json
import logging

import numpy as np
import pytest
import small_models
from hypothesis import given, settings
from hypothesis import strategies as st

from facetpu.errors import FacetpuError
from facetpu.stages.split import Split, split
from facetpu.tflite.build import Builder
from facetpu.tflite.concat import join_models
from facetpu.tflite.cut import split_model
from facetpu.tflite.model import op_name, read_model, write_model
from facetpu.tflite.schema import new


def ops(data: bytes) -> list[str]:
    model = read_model(data)
    return [op_name(model, operator) for operator in model.subgraphs[0].operators]


def test_a_model_is_cut_before_its_l2_norm_and_joined_again_without_loss():
    whole = small_models.converted()
    base, head = split_model(whole)
    assert ops(base) == ["QUANTIZE", "CONV_2D"]
    assert ops(head) == ["L2_NORMALIZATION", "RESHAPE", "QUANTIZE"]
    joined = join_models(base, head)
    for seed in range(5):
        photo = small_models.image(seed)
        (expected,) = small_models.run(whole, photo)
        (embedding,) = small_models.run(base, photo)
        assert np.array_equal(small_models.run(head, embedding)[0], expected)
        assert np.array_equal(small_models.run(joined, photo)[0], expected)
    model, again = read_model(whole), read_model(joined)
    assert again.signature_defs == model.signature_defs
    assert again.description == model.description
    assert metadata(again) == metadata(model)
    assert constants(again) == constants(model)
    for tensor in [*model.subgraphs[0].tensors, *again.subgraphs[0].tensors]:
        tensor.buffer = 0
    assert again.subgraphs[0] == model.subgraphs[0]
    assert (len(again.buffers), len(again.operator_codes)) == (len(model.buffers), len(model.operator_codes))


def constants(model) -> dict[str, bytes]:
    tensors = model.subgraphs[0].tensors
    return {tensor.name: bytes(model.buffers[tensor.buffer].data) for tensor in tensors if tensor.buffer}


def metadata(model) -> dict[str, bytes]:
    return {entry.name: bytes(model.buffers[entry.buffer].data) for entry in model.metadata}


def test_each_part_has_what_is_its_own_and_no_more():
    base, head = (read_model(part) for part in split_model(small_models.converted()))
    names = [tensor.name for tensor in base.subgraphs[0].tensors]
    assert names == ["image", "image_int8", "weights", "bias", "embedding"]
    assert len(base.buffers) == 1 + 2 + 2  # the empty one, constants, metadata
    assert metadata(base) == {"min_runtime_version": b"2.5.0", "CONVERSION_METADATA": b"made by a test"}
    (signature,) = base.signature_defs
    assert [entry.name for entry in signature.inputs + signature.outputs] == ["photo", "embedding"]

    assert [tensor.name for tensor in head.subgraphs[0].tensors] == [
        "embedding",
        "unit",
        "shape",
        "flat",
        "result",
    ]
    assert len(head.buffers) == 1 + 1 + 1
    assert metadata(head) == {"min_runtime_version": b"2.5.0"}
    (signature,) = head.signature_defs
    assert [entry.name for entry in signature.inputs + signature.outputs] == ["embedding", "answer"]
    assert len(head.operator_codes) == 3
    assert base.description == head.description == "MLIR Converted."


def test_a_joined_model_splits_into_the_parts_it_was_made_of():
    base, head = small_models.base(), small_models.head(description="0 1.5\n")
    again = split_model(join_models(base, head))
    assert read_model(again[1]) == read_model(head)
    changed = read_model(base)
    changed.description = "0 1.5\n"  # both parts have the model's
    assert read_model(again[0]) == changed


def test_any_tensor_can_be_cut_at():
    whole = small_models.converted()
    photo = small_models.image()
    (expected,) = small_models.run(whole, photo)
    for name, first in {"image_int8": 1, "embedding": 2, "unit": 3, "flat": 4}.items():
        base, head = split_model(whole, name)
        assert len(ops(base)) == first
        assert np.array_equal(small_models.run(join_models(base, head), photo)[0], expected)


@pytest.mark.data
@pytest.mark.parametrize("name", ["prototype", "prototype_with_quantize"])
def test_corals_prototypes_split_and_join_without_loss(data, name):
    whole = (data / "coral" / "imprint" / f"{name}.tflite").read_bytes()
    joined = join_models(*split_model(whole))
    assert read_model(joined) == read_model(write_model(read_model(whole)))
    photo = np.random.default_rng(0).integers(0, 256, [1, 224, 224, 3], dtype=np.uint8)
    assert np.array_equal(small_models.run(joined, photo)[0], small_models.run(whole, photo)[0])


@pytest.mark.data
def test_a_compiled_base_is_split_off_again(data):
    folder = data / "coral" / "join"
    base, head = split_model(
        (folder / "mobilenet_quant_v1_1.0_224_partial_delegation.tflite").read_bytes(),
        "MobilenetV1/Logits/AvgPool_1a/AvgPool",
    )
    assert ops(base) == ["edgetpu-custom-op"]
    assert ops(head) == ["CONV_2D", "RESHAPE", "SOFTMAX"]
    assert len(read_model(base).buffers) == 1


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        ("nothing", r"^m: has no tensor named 'nothing'; see facetpu inspect"),
        ("image", r"^m: nothing is computed before 'image'; cut at a later tensor"),
        ("weights", r"^m: nothing is computed before 'weights'"),
        ("result", r"^m: nothing is computed after 'result'; it is a base already"),
    ],
)
def test_a_tensor_that_cannot_be_cut_at_is_refused(tensor, message):
    with pytest.raises(FacetpuError, match=message):
        split_model(small_models.converted(), tensor, "m")


def test_a_model_without_one_l2_norm_needs_the_name_of_a_tensor():
    with pytest.raises(
        FacetpuError, match=r"^m: has no L2 norm to cut before; name the tensor .* with --tensor"
    ):
        split_model(small_models.base(), where="m")
    net = Builder()
    tensors = [net.input("x", [1, 4]), *(net.activation(name, [1, 4]) for name in "yz")]
    for given_, made in itertools.pairwise(tensors):
        net.op("L2_NORMALIZATION", [given_], [made], new("L2NormOptions"))
    with pytest.raises(FacetpuError, match=r"^m: has 2 L2 norms to cut before"):
        split_model(net.finish(tensors[-1:]), where="m")


def test_a_name_that_two_tensors_have_is_refused():
    model = read_model(small_models.converted())
    model.subgraphs[0].tensors[-1].name = "embedding"
    with pytest.raises(FacetpuError, match=r"^m: has 2 tensors named 'embedding'"):
        split_model(write_model(model), "embedding", "m")


def test_names_that_occur_twice_are_told_apart():
    model = read_model(small_models.converted())
    for tensor in model.subgraphs[0].tensors:
        if tensor.name in ("image_int8", "unit", "flat"):
            tensor.name = "same"
    whole = write_model(model)
    base, head = split_model(whole)
    assert [tensor.name for tensor in read_model(head).subgraphs[0].tensors] == [
        "embedding", "same_1", "shape", "same_2", "result",
    ]  # fmt: skip
    photo = small_models.image()
    assert np.array_equal(
        small_models.run(join_models(base, head), photo)[0], small_models.run(whole, photo)[0]
    )


def test_several_tensors_across_the_cut_are_refused():
    net = Builder()
    x, y, z, out = (net.input("x", [1, 4]), *(net.activation(name, [1, 4]) for name in ("y", "z", "out")))
    net.op("RELU", [x], [y])
    net.op("L2_NORMALIZATION", [y], [z], new("L2NormOptions"))
    net.op("ADD", [z, x], [out], new("AddOptions"))
    with pytest.raises(
        FacetpuError, match=r"^m: 'x' too would have to cross the cut at 'y'; cut where one tensor"
    ):
        split_model(net.finish([out]), where="m")

    net = Builder()
    x, z, y, out = (net.input("x", [1, 4]), *(net.activation(name, [1, 4]) for name in ("z", "y", "out")))
    net.op("RELU", [x], [z])
    net.op("TANH", [z], [y])
    net.op("ADD_N", [y, z, x], [out], new("AddNOptions"))
    with pytest.raises(FacetpuError, match=r"^m: 'x', 'z' too would have to cross the cut at 'y'"):
        split_model(net.finish([out]), "y", "m")


def test_an_output_at_the_cut_comes_back_with_bypass(caplog):
    both = join_models(small_models.base(), small_models.head(), bypass=True)
    with caplog.at_level(logging.WARNING):
        base, head = split_model(both)
    assert caplog.messages == [
        "'embedding' is an output of the model too: join the parts with --bypass to have it again"
    ]
    assert join_models(base, head, bypass=True) == both


@st.composite
def nets(draw) -> tuple[bytes, str]:
    """A net of element-wise ops, each on one or two earlier tensors or a constant, and a tensor to cut at."""
    net = Builder()
    tensors = [net.input("x", [1, 3])]
    constants = [
        net.constant(name, np.float32([value, -value, 2]).reshape(1, 3))
        for name, value in (("one", 1), ("two", 2))
    ]
    names = []
    for number in range(draw(st.integers(2, 6))):
        names.append(f"t{number}")
        made = net.activation(names[-1], [1, 3])
        given_ = draw(st.sampled_from(tensors[-2:]))
        if draw(st.booleans()):
            net.op("RELU", [given_], [made])
        else:
            other = draw(st.sampled_from([*constants, *tensors[-2:]]))
            net.op("ADD", [given_, other], [made], new("AddOptions"))
        tensors.append(made)
    return net.finish([tensors[-1]]), draw(st.sampled_from(names))


@settings(max_examples=60, deadline=None)
@given(nets(), st.integers(0, 9))
def test_any_cut_is_without_loss_or_refused(net, seed):
    whole, tensor = net
    values = np.random.default_rng(seed).normal(size=[1, 3]).astype(np.float32)
    try:
        base, head = split_model(whole, tensor)
    except FacetpuError as error:
        reasons = ("too would have to cross", "nothing is computed after")
        assert any(reason in str(error) for reason in reasons)  # noqa: PT017
        return
    (middle,) = small_models.run(base, values)
    (expected,) = small_models.run(whole, values)
    assert np.array_equal(small_models.run(head, middle)[0], expected)
    assert np.array_equal(small_models.run(join_models(base, head), values)[0], expected)
    assert sorted(ops(base) + ops(head)) == sorted(ops(whole))


# -- the stage


def test_the_stage_writes_both_parts_once(tmp_path, caplog):
    model, out = tmp_path / "model.tflite", tmp_path / "parts"
    model.write_bytes(small_models.converted())
    expected = Split(out / "base.tflite", out / "head.tflite", "embedding", [1, 1, 1, 16], "int8")
    assert split(model, out) == expected
    assert sorted(path.name for path in out.iterdir()) == ["base.tflite", "head.tflite", "manifest.json"]
    assert ((out / "base.tflite").read_bytes(), (out / "head.tflite").read_bytes()) == split_model(
        model.read_bytes()
    )
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["stage"], manifest["config"]) == ("split", {"tensor": None})
    assert str(expected) == f"{out}/base.tflite and head.tflite, cut at embedding: int8 [1, 1, 1, 16]"
    with caplog.at_level(logging.INFO):
        assert split(model, out) == expected
    assert caplog.messages == [f"{out} is split from this model already"]
    with pytest.raises(FacetpuError, match="parts: exists; choose another name, or pass --overwrite"):
        split(model, out, tensor="unit")
    assert split(model, out, tensor="unit", overwrite=True).tensor == "unit"


def test_the_stage_leaves_nothing_behind_when_it_fails(tmp_path):
    (tmp_path / "photo.tflite").write_bytes(b"\x89PNG and so on")
    with pytest.raises(FacetpuError, match=r"photo\.tflite: is no TFLite model"):
        split(tmp_path / "photo.tflite", tmp_path / "parts")
    with pytest.raises(FacetpuError, match=r"none\.tflite: no such file"):
        split(tmp_path / "none.tflite", tmp_path / "parts")
    assert [path.name for path in tmp_path.iterdir()] == ["photo.tflite"]
