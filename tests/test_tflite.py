"""The flatbuffer codec, the TFLite schema, models read, written and built."""

from __future__ import annotations

import re
import struct
import time

import numpy as np
import pytest
import small_models
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facetpu.errors import FacetpuError
from facetpu.tflite.build import Builder
from facetpu.tflite.concat import join_models
from facetpu.tflite.cut import split_model
from facetpu.tflite.flatbuffer import Record, Schema, decode, encode
from facetpu.tflite.model import (
    Quantization,
    op_name,
    quantization,
    read_model,
    tensor_data,
    tensor_shape,
    tensor_type,
    type_name,
    write_model,
)
from facetpu.tflite.schema import SCHEMA, BuiltinOperator, Padding, TensorType, new

official = pytest.importorskip("ai_edge_litert.schema_py_generated")
flatbuffers = pytest.importorskip("flatbuffers")


# -- the schema, against the official one


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


# Named here and not there: fields that the official schema gave up and old files may hold.
GIVEN_UP = {"new_height", "new_width", "deprecated_tag"}


def assert_equal(ours, theirs, path: str) -> None:
    """Compare a record of ours with an object of the official classes, field by field."""
    if isinstance(ours, Record):
        assert type(theirs).__name__ == type(ours).__name__ + "T", path
        known = set()
        for field in ours.fields:
            if field.name in GIVEN_UP:
                continue
            known.add(camel(field.name))
            if field.kind == "union":
                known.add(camel(field.name) + "Type")
            assert_equal(
                getattr(ours, field.name), getattr(theirs, camel(field.name)), f"{path}.{field.name}"
            )
        assert known >= set(vars(theirs)), path
    elif isinstance(ours, list) and not isinstance(theirs, np.ndarray):
        assert len(ours) == len(theirs or ()), path
        for index, (left, right) in enumerate(zip(ours, theirs or (), strict=True)):
            assert_equal(left, right, f"{path}[{index}]")
    elif isinstance(ours, np.ndarray):
        assert np.array_equal(ours, () if theirs is None else theirs), path
    elif isinstance(ours, str):
        assert ours == (theirs if isinstance(theirs, str) else theirs.decode()), path
    else:
        assert ours == theirs, path


def filled(table: str, random: np.random.Generator, depth: int = 0) -> Record:
    """A record with a value other than the default in every field."""
    record = new(table)
    for field in record.fields:
        if field.name in GIVEN_UP:
            continue
        if field.kind == "scalar":
            setattr(record, field.name, number(field.of, random, field.default))
        elif field.kind == "array":
            dtype = SCHEMA.dtypes[field.of]
            setattr(record, field.name, random.integers(0, 2, random.integers(1, 9)).astype(dtype))
        elif field.kind == "text":
            setattr(record, field.name, f"näme {random.integers(99)}")
        elif depth < 3:
            of = field.of
            if field.kind == "union":
                of = str(random.choice(SCHEMA.unions[of]))
            item = filled(of, random, depth + 1)
            setattr(record, field.name, [item, filled(of, random, depth + 1)] if field.many else item)
    return record


def number(of: str, random: np.random.Generator, default: object) -> object:
    if of == "bool":
        return not default
    return 0.5 if of.startswith("float") else int(random.integers(3, 100))


def test_every_table_reads_as_the_official_classes_read_it():
    for table in SCHEMA.records:
        record = filled(table, np.random.default_rng(0))
        data = encode(SCHEMA, record)
        theirs = getattr(official, table + "T").InitFromPackedBuf(data)
        assert_equal(record, theirs, table)
        assert decode(SCHEMA, table, data, "a test") == record

        builder = flatbuffers.Builder()
        builder.Finish(theirs.Pack(builder))
        assert decode(SCHEMA, table, bytes(builder.Output()), "a test") == record


def test_every_table_has_the_official_defaults():
    for table in SCHEMA.records:
        data = encode(SCHEMA, new(table))
        assert_equal(new(table), getattr(official, table + "T").InitFromPackedBuf(data), table)


def test_every_official_table_and_number_is_known():
    tables = {name for name in vars(official) if hasattr(official, name + "T")}
    assert {name for name in tables if not name.endswith("T")} == set(SCHEMA.records)
    for enum in (BuiltinOperator, TensorType, Padding):
        theirs = vars(getattr(official, enum.__name__))
        assert {kind.name: kind.value for kind in enum} == {k: v for k, v in theirs.items() if k[0] != "_"}
    for union, members in SCHEMA.unions.items():
        theirs = getattr(official, union)
        assert [getattr(theirs, member) for member in members] == list(range(1, len(members) + 1))


@pytest.mark.data
def test_real_models_read_and_write_as_with_the_official_classes(data):
    files = sorted((data / "coral").glob("*/*.tflite"))
    assert files
    for file in files:
        content = file.read_bytes()
        model = read_model(file)
        if model.buffers and content.count(b"TFL3") == 1:
            assert_equal(model, official.ModelT.InitFromPackedBuf(content), file.name)
        written = write_model(model)
        assert_equal(model, official.ModelT.InitFromPackedBuf(written), file.name)
        assert read_model(written) == model
        assert all(address % 16 == 0 for address in data_addresses(written))


def data_addresses(model: bytes) -> list[int]:
    start = np.frombuffer(model, np.uint8).ctypes.data
    arrays = [buffer.data for buffer in read_model(model).buffers]
    return [array.ctypes.data - start for array in arrays if array is not None and len(array)]


def test_buffers_and_custom_options_are_aligned_to_16():
    model = read_model(small_models.base())
    model.subgraphs[0].operators[0].custom_options = np.arange(5, dtype=np.uint8)
    data = write_model(model)
    start = np.frombuffer(data, np.uint8).ctypes.data
    options = read_model(data).subgraphs[0].operators[0].custom_options
    assert (options.ctypes.data - start) % 16 == 0
    assert len(data_addresses(data)) == 2
    assert all(address % 16 == 0 for address in data_addresses(data))


# -- the codec by itself

TOY = Schema(
    """
Root count:int32=7 name:string parts:[Part] shape:Shape blobs:[bytes] spans:[Span] - late:uint64
Part weight:float32 next:Part
Circle radius:float64
Square
    """,
    unions={"Shape": "Circle Square"},
    structs={"Span": "start:int32 end:int32 step:int8"},
)

parts = st.recursive(
    st.none(),
    lambda inner: st.builds(
        lambda weight, after: TOY.new("Part", weight=weight, next=after),
        st.floats(width=32, allow_nan=False),
        inner,
    ),
    max_leaves=5,
)
toys = st.builds(
    lambda **values: TOY.new("Root", **values),
    count=st.integers(-(2**31), 2**31 - 1),
    name=st.none() | st.text(),
    parts=st.none() | st.lists(parts.filter(bool), max_size=3),
    shape=st.none()
    | st.just(TOY.new("Square"))
    | st.builds(lambda r: TOY.new("Circle", radius=r), st.floats(allow_nan=False)),
    blobs=st.none()
    | st.lists(st.binary(max_size=9).map(lambda raw: np.frombuffer(raw, np.uint8)), max_size=3),
    spans=st.none()
    | st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9), st.integers(-9, 9)), max_size=3).map(
        lambda rows: np.array(rows, TOY.dtypes["Span"])
    ),
    late=st.integers(0, 2**64 - 1),
)


@settings(deadline=None)
@given(toys)
def test_what_is_written_is_read_again(record):
    data = encode(TOY, record, identifier=b"TOY1")
    assert decode(TOY, "Root", data, "a toy", b"TOY1") == record
    assert encode(TOY, decode(TOY, "Root", data, "a toy"), identifier=b"TOY1") == data


def test_a_name_that_is_no_utf8_survives():
    record = TOY.new("Root", name=b"caf\xe9".decode("utf-8", "surrogateescape"))
    assert decode(TOY, "Root", encode(TOY, record), "a toy").name == record.name


def test_a_record_shows_what_differs_from_its_defaults():
    record = TOY.new("Root", count=3, spans=np.zeros(40, TOY.dtypes["Span"]))
    assert repr(TOY.new("Part")) == "Part()"
    assert repr(record).startswith("Root(count=3, spans=<40 ")


def test_a_field_that_is_not_in_the_schema_is_a_mistake_of_the_program():
    with pytest.raises(TypeError, match="Part has no field 'wieght'"):
        TOY.new("Part", wieght=1)
    with pytest.raises(AttributeError):
        TOY.new("Part").wieght = 1


def test_fields_of_a_newer_schema_are_never_lost_in_silence():
    newer = Schema("Root count:int32 - - - - - - - - - - extra:int32\nPart weight:float32")
    data = encode(newer, newer.new("Root", count=1, extra=2))
    record = decode(TOY, "Root", data, "new.bin")
    assert (record.count, record.unknown) == (1, (11,))
    with pytest.raises(
        FacetpuError, match=r"^out\.bin: Root holds field 11, which this facetpu does not know"
    ):
        encode(TOY, record, "out.bin")


def test_a_union_member_of_a_newer_schema_is_never_lost_in_silence():
    newer = Schema("Root - - - shape:Shape\nStar points:int32", unions={"Shape": "Star Star Star"})
    newer.unions["Shape"] = ["", "", "Star"]
    data = encode(newer, newer.new("Root", shape=newer.new("Star", points=5)))
    record = decode(TOY, "Root", data, "new.bin")
    assert (record.shape, record.unknown) == (None, (4,))
    with pytest.raises(FacetpuError, match="would lose"):
        encode(TOY, record)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 2**31}, r"Root\.count is 2147483648, which is no int32"),
        ({"count": "three"}, r"Root\.count is 'three', which is no int32"),
        (
            {"parts": [TOY.new("Part", weight=1e300)]},
            r"Root\.parts\[0\]\.weight is 1e\+300, which is no float32",
        ),
        ({"shape": TOY.new("Part")}, r"Root\.shape cannot be a Part"),
        ({"spans": np.zeros([2, 2], TOY.dtypes["Span"])}, r"Root\.spans has 2 dimensions; flatten it"),
    ],
)
def test_a_value_that_does_not_fit_its_field_is_refused(values, message):
    with pytest.raises(FacetpuError, match=r"^out\.bin: " + message):
        encode(TOY, TOY.new("Root", **values), "out.bin")


def test_numbers_that_a_vector_would_change_are_refused():
    with pytest.raises(FacetpuError, match=r"Model\.metadata_buffer holds numbers that are no int32"):
        encode(SCHEMA, new("Model", metadata_buffer=[1, 2**40]))


def test_tables_nested_too_deep_are_refused():
    record = TOY.new("Part")
    for _ in range(70):
        record = TOY.new("Part", next=record)
    data = encode(TOY, record)
    with pytest.raises(FacetpuError, match=r"^deep\.bin: Part(\.next){65} is nested too deep: it is damaged"):
        decode(TOY, "Part", data, "deep.bin")


def test_a_small_file_that_stands_for_a_billion_tables_is_refused_at_once():
    # Each of 4 levels is one table with a vector of 500 offsets, all to the next: 500**4 tables in 8 KB.
    levels, width = 4, 500
    size = 12 + 4 * width
    data = struct.pack("<IHHHH", 12, 6, 8, 4, 0)
    for level in range(levels):
        data += struct.pack("<iII", 8 + level * size, 4, width)
        data += b"".join(struct.pack("<I", size - 12 - 4 * index) for index in range(width))
    data += struct.pack("<iII", 8 + levels * size, 4, 0)
    start = time.monotonic()
    with pytest.raises(FacetpuError, match=r"^bomb\.bin: Node\.children.* is repeated beyond reason"):
        decode(Schema("Node children:[Node]"), "Node", data, "bomb.bin")
    assert time.monotonic() - start < 1


# -- damaged files


def mutations(data: bytes, count: int, seed: int) -> list[bytes]:
    """Bytes and 32-bit words overwritten with what is nasty, pieces cut out, the end cut off."""
    random = np.random.default_rng(seed)
    nasty = [0, 1, 4, 0x7F, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, len(data), len(data) - 4]
    out = []
    for _ in range(count):
        changed = bytearray(data)
        for _ in range(random.integers(1, 5)):
            at = int(random.integers(0, len(changed) - 4))
            kind = random.integers(0, 10)
            if kind < 5:
                changed[at] = int(random.integers(0, 256))
            elif kind < 8:
                struct.pack_into("<I", changed, at // 4 * 4, nasty[random.integers(len(nasty))])
            elif kind < 9:
                del changed[at : at + int(random.integers(1, 9))]
            else:
                del changed[max(8, at) :]
            if len(changed) < 16:
                break
        out.append(bytes(changed))
    return out


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_model_gives_a_model_or_one_clear_line(seed):
    model = join_models(small_models.base(), small_models.head()) if seed % 2 else small_models.converted()
    refused = []
    for data in mutations(model, 150, seed):
        try:
            record = read_model(data, "m.tflite")
            for graph in record.subgraphs:
                for operator in graph.operators:
                    op_name(record, operator)
            written = write_model(record)
            assert write_model(read_model(written)) == written
            for tensor in record.subgraphs[0].tensors:
                type_name(tensor)
                tensor_data(record, tensor)
                quantization(tensor)
            join_models(*split_model(data))
        except FacetpuError as error:
            refused.append(str(error))
    assert len(refused) > 20
    assert not any("\n" in message for message in refused)


def test_every_truncation_of_a_model_is_refused():
    model = small_models.converted()
    for length in [*range(64), *range(64, len(model) - 1, 97)]:
        with pytest.raises(FacetpuError, match=r"^m\.tflite: "):
            read_model(model[:length], "m.tflite")


def test_a_file_that_is_no_model_is_refused(tmp_path):
    for name, content in {
        "empty.tflite": b"",
        "text.tflite": b"hello, this is no model",
        "short.tflite": b"TFL3",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(
            FacetpuError, match=re.escape(f"{tmp_path / name}: is no TFLite model; give a .tflite")
        ):
            read_model(tmp_path / name)
    with pytest.raises(FacetpuError, match=r"missing\.tflite: no such file; give a \.tflite model"):
        read_model(tmp_path / "missing.tflite")
    with pytest.raises(FacetpuError, match="no such file"):
        read_model(tmp_path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda m: m.subgraphs[0].operators[0].inputs.__setitem__(0, 99),
            r"operators\[0\]\.inputs: number 99",
        ),
        (
            lambda m: m.subgraphs[0].operators[0].outputs.__setitem__(0, -1),
            r"operators\[0\]\.outputs: number -1",
        ),
        (lambda m: setattr(m.subgraphs[0].operators[0], "opcode_index", 7), r"operators\[0\]: number 7"),
        (lambda m: setattr(m.subgraphs[0].tensors[0], "buffer", 50), "number 50 is not one of"),
        (lambda m: setattr(m.metadata[0], "buffer", 50), "metadata: number 50"),
        (
            lambda m: setattr(m.signature_defs[0], "subgraph_index", 1),
            "signature 'serving_default': number 1",
        ),
        (lambda m: setattr(m.signature_defs[0].outputs[0], "tensor_index", 40), "signature .*: number 40"),
        (lambda m: m.subgraphs.clear(), "holds no graph"),
    ],
)
def test_a_model_with_a_number_that_leads_nowhere_is_neither_written_nor_read(edit, message):
    model = read_model(small_models.converted())
    for operator in model.subgraphs[0].operators:
        operator.inputs, operator.outputs = operator.inputs.copy(), operator.outputs.copy()
    edit(model)
    with pytest.raises(FacetpuError, match=rf"^out\.tflite: .*{message}"):
        write_model(model, "out.tflite")
    with pytest.raises(FacetpuError, match=rf"^in\.tflite: .*{message}"):
        read_model(encode(SCHEMA, model, identifier=b"TFL3"), "in.tflite")


# -- models


def test_weights_kept_behind_the_flatbuffer_are_brought_in():
    model = read_model(small_models.base())
    weights = bytes(model.buffers[1].data)
    model.buffers[1].data = None
    model.buffers[1].offset, model.buffers[1].size = 2**20, len(weights)
    data = encode(SCHEMA, model, identifier=b"TFL3")
    data += bytes(2**20 - len(data)) + weights
    again = read_model(data)
    assert (bytes(again.buffers[1].data), again.buffers[1].offset, again.buffers[1].size) == (weights, 0, 0)
    with pytest.raises(FacetpuError, match=r"buffers\[1\] leads out of the file"):
        read_model(data[:-1])


def test_what_a_tensor_holds():
    model = read_model(small_models.base())
    pixels, weights, bias, embedding = model.subgraphs[0].tensors
    assert (type_name(pixels), tensor_shape(pixels), tensor_data(model, pixels)) == (
        "uint8",
        (1, 8, 8, 3),
        None,
    )
    assert tensor_data(model, weights).shape == (16, 8, 8, 3)
    assert tensor_data(model, bias).dtype == np.int32
    assert quantization(embedding) == Quantization(float(np.float32(0.1)), 120)
    embedding.quantization.scale = np.ones(16, np.float32)
    with pytest.raises(FacetpuError, match="'embedding' has a scale for each channel"):
        quantization(embedding)
    embedding.quantization = None
    assert quantization(embedding) is None
    weights.shape = np.array([16, 8, 8, 4], np.int32)
    with pytest.raises(FacetpuError, match=r"'weights' has 3072 bytes, and not \[16, 8, 8, 4\] of uint8"):
        tensor_data(model, weights)
    weights.type = TensorType.INT4
    with pytest.raises(FacetpuError, match="'weights' is int4, which has no plain array"):
        tensor_data(model, weights)


def test_types_of_tensors_are_those_of_numpy():
    for dtype in (
        np.float16,
        np.float32,
        np.float64,
        np.int8,
        np.uint8,
        np.int16,
        np.uint16,
        np.int32,
        np.int64,
    ):
        assert tensor_type(dtype).name.lower() == np.dtype(dtype).name
    assert tensor_type(bool) is TensorType.BOOL
    with pytest.raises(FacetpuError, match="TFLite has no tensors of datetime64"):
        tensor_type("datetime64")


def test_names_of_ops_old_new_and_unknown():
    model = new("Model", operator_codes=[])
    for old, current, custom, name in [
        (3, 0, None, "CONV_2D"),
        (127, 150, None, "GELU"),
        (0, 0, None, "ADD"),
        (32, 32, "edgetpu-custom-op", "edgetpu-custom-op"),
        (32, 0, None, "CUSTOM"),
        (127, 999, None, "BUILTIN_999"),
    ]:
        code = new("OperatorCode", deprecated_builtin_code=old, builtin_code=current, custom_code=custom)
        model.operator_codes = [code]
        assert op_name(model, new("Operator")) == name


# -- the builder


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    height=st.integers(5, 12),
    width=st.integers(5, 12),
    filters=st.integers(1, 5),
    same=st.booleans(),
    stride=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_a_float_net_of_any_input_size_computes_what_numpy_does(height, width, filters, same, stride, seed):
    random = np.random.default_rng(seed)
    kernel = random.normal(size=[filters, 3, 3, 2]).astype(np.float32)
    alpha = random.normal(size=[1, 1, filters]).astype(np.float32)
    net = Builder()
    image = net.input("image", [1, -1, -1, 2])
    conv = net.activation("conv", [1, -1, -1, filters])
    options = new(
        "Conv2DOptions", padding=Padding.SAME if same else Padding.VALID, stride_w=stride, stride_h=stride
    )
    bias = net.constant("bias", random.normal(size=filters).astype(np.float32))
    net.op("CONV_2D", [image, net.constant("kernel", kernel), bias], [conv], options)
    result = net.activation("result", [1, -1, -1, filters])
    net.op("PRELU", [conv, net.constant("alpha", alpha)], [result])
    data = net.finish([result], "a net")

    model = read_model(data)
    assert model.description == "a net"
    assert model.subgraphs[0].tensors[image].shape.tolist() == [1, 1, 1, 2]
    assert model.subgraphs[0].tensors[image].shape_signature.tolist() == [1, -1, -1, 2]
    pixels = random.normal(size=[1, height, width, 2]).astype(np.float32)
    (given,) = small_models.run(data, pixels)
    offset = tensor_data(model, model.subgraphs[0].tensors[bias])
    np.testing.assert_allclose(given, convolved(pixels, kernel, offset, alpha, same, stride), 1e-4, 1e-4)


def convolved(pixels, kernel, bias, alpha, same, stride):
    if same:
        pads = [max(-(-size // stride) * stride - stride + 3 - size, 0) for size in pixels.shape[1:3]]
        pixels = np.pad(pixels, [(0, 0), *((pad // 2, pad - pad // 2) for pad in pads), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(pixels[0], (3, 3), axis=(0, 1))[::stride, ::stride]
    values = np.einsum("hwcij,fijc->hwf", windows, kernel)[None] + bias
    return np.where(values < 0, values * alpha, values)


def test_the_ops_of_a_detector_run():
    random = np.random.default_rng(0)
    net = Builder()
    image = net.input("image", [2, 6, 6, 1])
    pooled = net.activation("pooled", [2, 3, 3, 1])
    pool = new("Pool2DOptions", padding=Padding.SAME, stride_w=2, stride_h=2, filter_width=3, filter_height=3)
    net.op("MAX_POOL_2D", [image], [pooled], pool)
    flat = net.activation("flat", [2, 9])
    shape = net.constant("shape", np.array([2, 9], np.int32))
    net.op("RESHAPE", [pooled, shape], [flat], new("ReshapeOptions", new_shape=np.array([2, 9])))
    weights = random.normal(size=[4, 9]).astype(np.float32)
    result = net.activation("result", [2, 4])
    net.op(
        "FULLY_CONNECTED", [flat, net.constant("w", weights), None], [result], new("FullyConnectedOptions")
    )
    pixels = random.normal(size=[2, 6, 6, 1]).astype(np.float32)
    (given,) = small_models.run(net.finish([result]), pixels)
    padded = np.pad(pixels, [(0, 0), (0, 1), (0, 1), (0, 0)], constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::2, ::2]
    np.testing.assert_allclose(given, windows.max((-1, -2)).reshape(2, 9) @ weights.T, 1e-5, 1e-6)


def test_a_name_used_twice_is_refused():
    net = Builder()
    net.input("x", [1])
    with pytest.raises(FacetpuError, match="tensor 'x' is made twice"):
        net.constant("x", np.zeros(3, np.float32))


def test_equal_models_give_equal_bytes():
    assert small_models.base() == small_models.base()


def test_a_large_constant_is_written_fast():
    net = Builder()
    weights = net.constant("weights", np.zeros([64, 1024, 1024], np.uint8))
    start = time.monotonic()
    data = net.finish([weights])
    assert len(data) > 2**26
    assert read_model(data).subgraphs[0].outputs.tolist() == [weights]
    assert time.monotonic() - start < 3
