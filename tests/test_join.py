"""Joining: the graph of Coral's own tool, and a refusal where that tool writes a broken model."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import small_models
from click.testing import CliRunner

from facetpu.cli import main
from facetpu.errors import FacetpuError
from facetpu.stages.join import Joined, join
from facetpu.tflite.build import Builder
from facetpu.tflite.concat import join_models
from facetpu.tflite.edit import is_constant
from facetpu.tflite.flatbuffer import Record
from facetpu.tflite.model import op_name, read_model, tensor_shape, write_model
from facetpu.tflite.schema import TensorType, new

CLASSES = "0 0.998748\n1 1.002225\n"


def edited(data: bytes, edit) -> bytes:
    model = read_model(data)
    edit(model, model.subgraphs[0].tensors)
    return write_model(model)


def canonical(model: Record) -> tuple:
    """The graph with its tensors numbered as the ops come to them, whatever their names and order."""
    graph = model.subgraphs[0]
    numbers: dict[int, int] = {}
    for index in [*graph.inputs, *(i for op in graph.operators for i in [*op.inputs, *op.outputs])]:
        numbers.setdefault(int(index), len(numbers))
    ops = [
        (
            op_name(model, op),
            [numbers[i] for i in op.inputs],
            [numbers[i] for i in op.outputs],
            op.builtin_options,
        )
        for op in graph.operators
    ]
    tensors = [
        (number, tensor_shape(tensor), tensor.type, is_constant(model, tensor))
        for index, number in numbers.items()
        for tensor in [graph.tensors[index]]
    ]
    ends = [[numbers[i] for i in indices] for indices in (graph.inputs, graph.outputs)]
    return ops, tensors, ends, model.version, len(graph.tensors)


@pytest.mark.data
@pytest.mark.parametrize("bypass", [False, True])
def test_a_join_is_the_graph_that_corals_tool_makes(data, bypass):
    folder = data / "coral" / "join"
    base = folder / "mobilenet_quant_v1_224_feature_layers_edgetpu.tflite"
    head = folder / "mobilenet_quant_v1_224_head_layers.tflite"
    golden = "mobilenet_quant_v1_1.0_224_partial_delegation" + "_with_bypass" * bypass + ".tflite"
    joined = read_model(join_models(base.read_bytes(), head.read_bytes(), bypass))
    assert canonical(joined) == canonical(read_model(folder / golden))
    given, *moved = joined.subgraphs[0].operators
    assert bytes(given.custom_options) == bytes(read_model(base).subgraphs[0].operators[0].custom_options)
    assert len(moved) == 3
    assert joined.description == read_model(base).description


@pytest.mark.data
def test_a_join_recognises_a_cat(data):
    from PIL import Image

    coral = data / "coral"
    base = coral / "models" / "mobilenet_v1_1.0_224_quant_embedding_extractor.tflite"
    head = coral / "join" / "mobilenet_quant_v1_224_head_layers.tflite"
    photo = (
        Image.open(coral / "images" / "cat.bmp").convert("RGB").resize([224, 224], Image.Resampling.NEAREST)
    )
    (scores,) = small_models.run(join_models(base.read_bytes(), head.read_bytes()), np.array(photo)[None])
    assert (int(scores.argmax()), int(scores.max())) == (286, 212)  # 212/256 = 0.828


def test_a_join_gives_what_base_and_head_give_one_after_the_other():
    base, head = small_models.base(), small_models.head()
    joined = join_models(base, head)
    for seed in range(5):
        photo = small_models.image(seed)
        (embedding,) = small_models.run(base, photo)
        (scores,) = small_models.run(head, embedding)
        assert np.array_equal(small_models.run(joined, photo)[0], scores)
        both = small_models.run(join_models(base, head, bypass=True), photo)
        assert [array.tolist() for array in both] == [scores.tolist(), embedding.tolist()]


def test_what_corals_tool_drops_is_kept():
    def mark(model, tensors):
        tensors[0].shape_signature = np.array([-1, 8, 8, 3], np.int32)
        model.metadata = [new("Metadata", name="min_runtime_version", buffer=len(model.buffers))]
        model.metadata.append(new("Metadata", name="about", buffer=len(model.buffers) + 1))
        model.buffers += [new("Buffer", data=np.frombuffer(text, np.uint8)) for text in (b"1.9.0", b"base")]
        model.signature_defs = [
            new(
                "SignatureDef",
                signature_key="serving_default",
                inputs=[new("TensorMap", name="photo", tensor_index=0)],
                outputs=[new("TensorMap", name="vector", tensor_index=3)],
            )
        ]

    def mark_head(model, tensors):
        tensors[1].is_variable = True
        model.metadata = [new("Metadata", name="min_runtime_version", buffer=len(model.buffers))]
        model.metadata.append(new("Metadata", name="about", buffer=0))
        model.metadata.append(new("Metadata", name="extra", buffer=len(model.buffers) + 1))
        model.buffers += [new("Buffer", data=np.frombuffer(text, np.uint8)) for text in (b"1.14.0", b"head")]

    base, head = edited(small_models.base(), mark), edited(small_models.head(), mark_head)
    joined = read_model(join_models(base, head, bypass=True))
    tensors = joined.subgraphs[0].tensors
    assert tensors[0].shape_signature.tolist() == [-1, 8, 8, 3]
    assert [tensor.name for tensor in tensors if tensor.is_variable] == ["head/unit_embedding"]
    texts = {entry.name: bytes(joined.buffers[entry.buffer].data).decode() for entry in joined.metadata}
    assert texts == {"min_runtime_version": "1.14.0", "about": "base", "extra": "head"}
    (signature,) = joined.signature_defs
    assert signature.signature_key == "serving_default"
    assert [(entry.name, entry.tensor_index) for entry in signature.inputs] == [("photo", 0)]
    names = [(entry.name, tensors[entry.tensor_index].name) for entry in signature.outputs]
    assert names == [("head/probabilities", "head/probabilities"), ("vector", "embedding")]


def test_a_signature_of_the_head_alone_becomes_the_models():
    def sign(model, tensors):
        outputs = [new("TensorMap", name="scores", tensor_index=int(model.subgraphs[0].outputs[0]))]
        inputs = [new("TensorMap", name="vector", tensor_index=0)]
        model.signature_defs = [new("SignatureDef", signature_key="s", inputs=inputs, outputs=outputs)]

    joined = read_model(join_models(small_models.base(), edited(small_models.head(), sign)))
    (signature,) = joined.signature_defs
    assert [entry.name for entry in signature.inputs] == ["image"]
    assert [entry.name for entry in signature.outputs] == ["scores"]


def test_the_description_is_the_bases_but_for_a_list_of_imprinted_classes():
    base = small_models.base()
    plain = join_models(base, small_models.head(description="a head"))
    taught = join_models(base, small_models.head(description=CLASSES))
    assert read_model(plain).description == "MLIR Converted."
    assert read_model(taught).description == CLASSES


def with_dense(constant: np.ndarray, name: str = "shared") -> tuple[bytes, bytes]:
    """A base and a head of one FULLY_CONNECTED without bias each, with a constant of the same name."""
    parts = []
    for given, made in (("x", "y"), ("y", "z")):
        net = Builder()
        source = net.input(given, [1, 2])
        weights = net.constant(name, np.eye(2, dtype=np.float32) if given == "x" else constant)
        result = net.activation(made, [1, 2])
        net.op("FULLY_CONNECTED", [source, weights, None], [result], new("FullyConnectedOptions"))
        parts.append(net.finish([result]))
    return parts[0], parts[1]


def test_optional_inputs_survive_and_equal_constants_are_kept_once():
    base, head = with_dense(np.eye(2, dtype=np.float32))
    joined = join_models(base, head)
    model = read_model(joined)
    assert [tensor.name for tensor in model.subgraphs[0].tensors] == ["x", "shared", "y", "z"]
    assert [op.inputs.tolist() for op in model.subgraphs[0].operators] == [[0, 1, -1], [2, 1, -1]]
    assert (len(model.buffers), len(model.operator_codes)) == (2, 1)
    assert small_models.run(joined, np.float32([[3, 4]]))[0].tolist() == [[3, 4]]


def test_one_name_for_two_things_is_refused():
    with pytest.raises(
        FacetpuError, match=r"^b and h both have a tensor 'shared', and not the same; rename one"
    ):
        join_models(*with_dense(2 * np.eye(2, dtype=np.float32)), base_name="b", head_name="h")
    base = small_models.base()
    clash = edited(small_models.head(), lambda m, tensors: setattr(tensors[-1], "name", "weights"))
    with pytest.raises(FacetpuError, match="both have a tensor 'weights'"):
        join_models(base, clash)
    clash = edited(small_models.head(), lambda m, tensors: setattr(tensors[1], "name", "image"))
    with pytest.raises(FacetpuError, match="both have a tensor 'image'"):
        join_models(base, clash)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda t: setattr(t, "name", "other"),
            "h: its input 'other' is not in b, which gives 'embedding'; build",
        ),
        (lambda t: setattr(t, "name", "image"), "h: its input 'image' is not in b, which gives 'embedding'"),
        (lambda t: setattr(t, "name", None), "h: its input None is not in b"),
        (
            lambda t: setattr(t, "shape", np.array([1, 1, 1, 8], np.int32)),
            r"'embedding': its shape is \[1, 1, 1, 16\] in b and \[1, 1, 1, 8\] in h; build the head",
        ),
        (lambda t: setattr(t, "type", TensorType.INT8), "'embedding': its type is uint8 in b and int8 in h"),
        (
            lambda t: setattr(t, "quantization", None),
            "'embedding': its quantisation is True in b and False in h",
        ),
        (
            lambda t: setattr(t.quantization, "scale", np.float32([0.2])),
            r"'embedding': its scale is 0.1\d* in b and 0.2\d* in h",
        ),
        (
            lambda t: setattr(t.quantization, "zero_point", np.array([121])),
            "'embedding': its zero point is 120 in b and 121 in h",
        ),
    ],
)
def test_a_head_for_another_base_is_refused(edit, message):
    head = edited(small_models.head(), lambda model, tensors: edit(tensors[0]))
    with pytest.raises(FacetpuError, match=message):
        join_models(small_models.base(), head, base_name="b", head_name="h")


def test_models_with_several_graphs_or_weights_elsewhere_are_refused():
    def twice(model, tensors):
        model.subgraphs = model.subgraphs * 2

    with pytest.raises(FacetpuError, match=r"^b: has 2 graphs; a model with control flow"):
        join_models(edited(small_models.base(), twice), small_models.head(), base_name="b")

    def outside(model, tensors):
        model.external_buffers = [new("ExternalBuffer", id=1)]

    with pytest.raises(FacetpuError, match=r"^h: keeps weights in another file"):
        join_models(small_models.base(), edited(small_models.head(), outside), head_name="h")


def test_a_head_without_inputs_is_refused():
    net = Builder()
    head = net.finish([net.constant("c", np.zeros(3, np.float32))])
    with pytest.raises(FacetpuError, match=r"^h: has no input, so nothing would connect it"):
        join_models(small_models.base(), head, head_name="h")


@pytest.mark.data
def test_labels_packed_behind_a_model_are_not_lost_in_silence(data, caplog):
    from facetpu.tflite.cut import split_model

    file = data / "coral" / "models" / "mobilenet_v1_0.25_128_quant.tflite"
    with caplog.at_level(logging.WARNING):
        split_model(file.read_bytes(), "MobilenetV1/Logits/AvgPool_1a/AvgPool", "m.tflite")
    assert caplog.messages == ["m.tflite: the files packed behind the model are not carried over"]


# -- the stage


def test_the_stage_writes_the_model_once(tmp_path, caplog):
    base, head, out = (tmp_path / name for name in ("base.tflite", "head.tflite", "model.tflite"))
    base.write_bytes(small_models.base())
    head.write_bytes(small_models.head())
    expected = Joined(
        out,
        ["CONV_2D", "L2_NORMALIZATION", "CONV_2D", "MUL", "RESHAPE", "SOFTMAX"],
        ["image"],
        ["head/probabilities"],
    )
    assert join(base, head, out) == expected
    assert out.read_bytes() == join_models(base.read_bytes(), head.read_bytes())
    assert str(expected) == f"{out}: 6 ops, image -> head/probabilities"
    with caplog.at_level(logging.INFO):
        assert join(base, head, out) == expected
    assert caplog.messages == [f"{out} is joined from these already"]
    with pytest.raises(
        FacetpuError, match=r"model\.tflite: exists; choose another name, or pass --overwrite"
    ):
        join(base, head, out, bypass=True)
    assert join(base, head, out, bypass=True, overwrite=True).outputs == ["head/probabilities", "embedding"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base.tflite", "head.tflite", "model.tflite"]


def test_the_commands_split_and_join_again(tmp_path):
    model, parts, again = tmp_path / "a model.tflite", tmp_path / "its parts", tmp_path / "again.tflite"
    model.write_bytes(join_models(small_models.base(), small_models.head(), bypass=True))
    done = CliRunner().invoke(main, ["split", "-q", str(model), str(parts)])
    assert (done.exit_code, done.stdout) == (
        0,
        f"{parts / 'base.tflite'} and head.tflite, cut at embedding: uint8 [1, 1, 1, 16]\n",
    )
    files = [str(parts / "base.tflite"), str(parts / "head.tflite"), str(again)]
    done = CliRunner().invoke(main, ["join", *files, "--bypass", "--json"])
    assert json.loads(done.stdout) == {
        "model": str(again),
        "ops": ["CONV_2D", "L2_NORMALIZATION", "CONV_2D", "MUL", "RESHAPE", "SOFTMAX"],
        "inputs": ["image"],
        "outputs": ["head/probabilities", "embedding"],
    }
    assert again.read_bytes() == model.read_bytes()


def test_the_stage_names_the_file_that_is_wrong(tmp_path):
    base, head, out = (tmp_path / name for name in ("base.tflite", "head.tflite", "model.tflite"))
    base.write_bytes(small_models.base())
    with pytest.raises(FacetpuError, match=r"head\.tflite: no such file; give a \.tflite model"):
        join(base, head, out)
    head.write_text("not a model")
    with pytest.raises(FacetpuError, match=r"head\.tflite: is no TFLite model"):
        join(base, head, out)
    assert not out.exists()
