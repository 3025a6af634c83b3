"""Splitting: two parts that together are the model again, or a refusal that says why."""

from __future__ import annotations

import itertools
import json
import logging

import numpy as np
import pytest
import small_models
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from facetpu.cli import main
from facetpu.edgetpu.graph import ops_of
from facetpu.edgetpu.support import check
from facetpu.errors import FacetpuError
from facetpu.stages.split import DenseSplit, Split, split, split_dense_layers
from facetpu.tflite.build import Builder
from facetpu.tflite.concat import join_models
from facetpu.tflite.cut import split_model
from facetpu.tflite.dense import split_dense
from facetpu.tflite.model import op_name, read_model, tensor_shape, type_name, write_model
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


def with_scales_in_tensors(model) -> None:
    """Give weights of the head a scale for each block, in a tensor of its own as int4 models have them."""
    graph = model.subgraphs[0]
    model.buffers.append(new("Buffer", data=np.arange(12, dtype=np.uint8)))
    scales = new("Tensor", name="scales", shape=np.array([3], np.int32), buffer=len(model.buffers) - 1)
    graph.tensors.insert(2, scales)
    for op in graph.operators:
        op.inputs, op.outputs = (np.where(ends >= 2, ends + 1, ends) for ends in (op.inputs, op.outputs))
    graph.outputs = graph.outputs + 1
    for entry in model.signature_defs[0].outputs:
        entry.tensor_index += 1
    shape = next(tensor for tensor in graph.tensors if tensor.name == "shape")
    details = new("BlockwiseQuantization", scales=2, zero_points=-1, block_size=32)
    shape.quantization = new("QuantizationParameters", details=details)


def test_quantisation_details_are_kept_and_their_tensors_found_again():
    model = read_model(small_models.converted())
    with_scales_in_tensors(model)
    weights = model.subgraphs[0].operators[1].inputs[1]
    custom = new("CustomQuantization", custom=np.arange(5, dtype=np.uint8))
    model.subgraphs[0].tensors[weights].quantization.details = custom
    base, head = split_model(write_model(model))
    assert "scales" not in [tensor.name for tensor in read_model(base).subgraphs[0].tensors]
    for data in (head, join_models(base, head)):
        tensors = {tensor.name: tensor for tensor in read_model(data).subgraphs[0].tensors}
        details = tensors["shape"].quantization.details
        assert list(tensors)[details.scales] == "scales"
        assert (details.zero_points, details.block_size) == (-1, 32)
    joined = {tensor.name: tensor for tensor in read_model(join_models(base, head)).subgraphs[0].tensors}
    assert joined["weights"].quantization.details == custom


def test_what_is_written_is_aligned_to_16():
    base, head = split_model(small_models.converted())
    for data in (base, head, join_models(base, head), split_dense(dense_model(), "y", 3)):
        start = np.frombuffer(data, np.uint8).ctypes.data
        arrays = [buffer.data for buffer in read_model(data).buffers if buffer.data is not None]
        assert arrays
        assert all((array.ctypes.data - start) % 16 == 0 for array in arrays if len(array))


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


# -- dense layers


def dense_model(
    dtype=np.int8, bias: bool = True, per_channel: bool = False, rows: int = 10, batch: int = 2, **options
) -> bytes:
    """A dense layer [batch, 7] -> [batch, rows] between two others, all of one type."""
    random = np.random.default_rng(5)
    real = dtype is np.float32
    scale = dict(zip(("x", "w", "b", "y"), (None,) * 4 if real else (0.05, 0.02, 0.001, 0.3), strict=True))
    points = 0 if real or dtype is np.int8 else 128
    net = Builder()
    x = net.input("x", [batch, 7], dtype, scale["x"], points)
    low, high = (-127, 128) if dtype is np.int8 else (0, 256)
    weights = (
        random.normal(size=[rows, 7]).astype(np.float32) if real else random.integers(low, high, [rows, 7])
    )
    w = net.constant("weights", weights.astype(dtype), scale["w"], points)
    if per_channel:
        params = net.graph.tensors[w].quantization
        params.scale = np.linspace(0.01, 0.03, rows, dtype=np.float32)
        params.zero_point = np.zeros(rows, np.int64)
    shifts = (
        random.normal(size=rows).astype(np.float32) if real else random.integers(-500, 500, rows, np.int32)
    )
    b = net.constant("bias", shifts, scale["b"]) if bias else None
    y = net.activation("y", [batch, rows], dtype, scale["y"], points)
    version = 1 if dtype is not np.int8 else 4
    net.op("FULLY_CONNECTED", [x, w, b], [y], new("FullyConnectedOptions", **options), version=version)
    z = net.activation("z", [batch, rows], dtype, scale["y"], points)
    net.op("RELU", [y], [z], version=2 if dtype is np.int8 else 1)
    return net.finish([z])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.float32])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("parts", [2, 3, 10])
def test_a_dense_layer_in_parts_gives_the_same_bytes(dtype, bias, parts):
    whole = dense_model(dtype, bias, fused_activation_function=1)
    split_up = split_dense(whole, "y", parts)
    assert ops(split_up) == ["FULLY_CONNECTED"] * parts + ["CONCATENATION", "RELU"]
    sizes = [tensor_shape(op.output(0)) for op in ops_of(read_model(split_up))[:parts]]
    assert sum(columns for _, columns in sizes) == 10
    assert max(columns for _, columns in sizes) - min(columns for _, columns in sizes) <= 1
    for seed in range(5):
        random = np.random.default_rng(seed)
        given_ = (
            random.normal(size=[2, 7]) if dtype is np.float32 else random.integers(0, 128, [2, 7])
        ).astype(dtype)
        assert np.array_equal(small_models.run(split_up, given_)[0], small_models.run(whole, given_)[0])
    names = [tensor.name for tensor in read_model(split_up).subgraphs[0].tensors]
    assert "weights" not in names
    assert len(names) == len(set(names))
    assert len(split_up) < len(whole) + 1200 * parts  # the whole weights are not kept beside their parts


def test_each_row_keeps_its_own_scale():
    whole = dense_model(per_channel=True)
    split_up = split_dense(whole, "y", 3)
    scales = [op.input(1).quantization.scale.tolist() for op in ops_of(read_model(split_up))[:3]]
    expected = np.linspace(0.01, 0.03, 10, dtype=np.float32).tolist()
    assert scales == [expected[:4], expected[4:7], expected[7:]]
    x = np.arange(14, dtype=np.int8).reshape(2, 7)
    assert np.array_equal(small_models.run(split_up, x)[0], small_models.run(whole, x)[0])


@pytest.mark.parametrize(
    ("layer", "parts", "message"),
    [
        ("z", 2, r"^m: has no dense layer whose output is 'z'; it has 'y'"),
        ("y", 11, r"^m: the dense layer 'y' has 10 rows, which make no 11 parts"),
    ],
)
def test_a_dense_layer_that_cannot_be_split(layer, parts, message):
    with pytest.raises(FacetpuError, match=message):
        split_dense(dense_model(), layer, parts, "m")
    with pytest.raises(FacetpuError, match=r"^m: the weights of 'y' are no plain matrix"):
        split_dense(dense_model(weights_format=1), "y", 2, "m")


def test_a_dense_layer_too_large_for_the_chip_is_found_split_and_then_mapped(tmp_path):
    big, out = tmp_path / "big.tflite", tmp_path / "split"
    net = Builder()
    x = net.input("x", [1, 3000], np.int8, 0.05)
    w = net.constant("weights", np.random.default_rng(0).integers(-9, 9, [3000, 3000], np.int8), 0.02)
    y = net.activation("y", [1, 3000], np.int8, 0.3)
    net.op("FULLY_CONNECTED", [x, w, None], [y], new("FullyConnectedOptions"), version=4)
    big.write_bytes(net.finish([y]))
    (report,) = check(read_model(big))
    assert report.reason == (
        "its weights take 8.6 MiB, and the chip keeps 7.7: split it (facetpu split --dense 2)"
    )
    done = CliRunner().invoke(main, ["split", "-q", str(big), str(out), "--dense", "2"])
    assert (done.exit_code, done.stdout) == (0, f"{out / 'model.tflite'}: y in 2 parts each\n")
    assert {op.target for op in check(read_model(out / "model.tflite"))} == {"TPU"}
    given_ = np.random.default_rng(1).integers(-128, 128, [1, 3000], np.int8)
    assert np.array_equal(
        small_models.run((out / "model.tflite").read_bytes(), given_)[0],
        small_models.run(big.read_bytes(), given_)[0],
    )
    assert split_dense_layers(big, out, 2) == DenseSplit(out / "model.tflite", ["y"], 2)


def test_without_a_large_dense_layer_one_must_be_named(tmp_path):
    small = tmp_path / "small.tflite"
    small.write_bytes(dense_model())
    with pytest.raises(FacetpuError) as caught:
        split_dense_layers(small, tmp_path / "out", 2)
    assert str(caught.value) == (
        f"{small}: has no dense layer larger than the 7.7 MiB that the chip keeps; name one to split all the "
        "same with --tensor: 'y'"
    )
    assert split_dense_layers(small, tmp_path / "out", 2, tensor="y").layers == ["y"]


# -- every public model


@pytest.mark.data
def test_public_models_cut_at_any_tensor_and_joined_again_give_the_same_bytes(data):
    cuts = dict.fromkeys(["prototype", "mobilenet", "deeplab", "keras_lstm", "movenet", "split_concat"], 0)
    for path in sorted((data / "coral").glob("*/*.tflite")):
        whole = path.read_bytes()
        model = read_model(whole)
        if "edgetpu-custom-op" in ops(whole) or path.name == "model_invoking_error.tflite":
            continue  # neither runs here
        ends = [model.subgraphs[0].tensors[index] for index in model.subgraphs[0].inputs]
        random = np.random.default_rng(0)
        given_ = [random.integers(0, 256, tensor_shape(end)).astype(type_name(end)) for end in ends]
        expected = small_models.run(whole, *given_)
        made = [model.subgraphs[0].tensors[op.outputs[0]].name for op in model.subgraphs[0].operators]
        for name in made[:: max(1, len(made) // 8)]:
            try:
                parts = split_model(whole, name)
            except FacetpuError as error:
                assert "too would have to cross" in str(error) or "nothing is computed" in str(error)  # noqa: PT017
                continue
            joined = small_models.run(join_models(*parts), *given_)
            assert all(map(np.array_equal, joined, expected)), (path.name, name)
            assert len(joined) == len(expected)
            cuts.update({key: count + 1 for key, count in cuts.items() if path.name.startswith(key)})
    assert min(cuts.values()) > 0, cuts
