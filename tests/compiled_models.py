"""Compiled models, made without a compiler: what it writes, around programs that hold nothing to run."""

from __future__ import annotations

from typing import Any

import numpy as np
from flatbuffers import flexbuffers

from facetpu.edgetpu.executable import IDENTIFIER, SCHEMA
from facetpu.edgetpu.graph import ops_of
from facetpu.tflite.flatbuffer import encode
from facetpu.tflite.model import read_model, write_model
from facetpu.tflite.schema import BuiltinOperator
from facetpu.tflite.schema import new as tflite


class _RawText(bytes):
    """Bytes that the flexbuffer builder takes for a string, as the real compiler stores its package."""

    def encode(self, _: str) -> bytes:
        return bytes(self)


def program(kind: int, parameters: int, token: int, **fields: Any) -> bytes:
    """One executable of ``kind`` with so many bytes of parameters."""
    return encode(
        SCHEMA,
        SCHEMA.new(
            "Executable",
            type=kind,
            parameters=np.zeros(parameters, np.uint8),
            parameter_caching_token=token,
            chip="beagle",
            **fields,
        ),
    )


def package(programs: list[bytes], runtime: int = 14) -> bytes:
    """The custom options that hold ``programs``."""
    texts = [np.frombuffer(data, np.uint8) for data in programs]
    inner = encode(SCHEMA, SCHEMA.new("MultiExecutable", serialized_executables=texts))
    outer = SCHEMA.new(
        "Package",
        min_runtime_version=runtime,
        compiler_version="stand-in",
        serialized_multi_executable=np.frombuffer(inner, np.uint8),
    )
    return as_options(encode(SCHEMA, outer, identifier=IDENTIFIER))


def as_options(data: bytes) -> bytes:
    """``data`` as the package in the flexbuffer that a custom op's options are."""
    builder = flexbuffers.Builder()
    with builder.Map():
        builder.Int("1", 1)
        builder.String("4", _RawText(data))
    return bytes(builder.Finish())


def compile_model(data: Any, left: int = 0, token: int = 0x1234, options: bytes | None = None) -> bytes:
    """The model as a compiler would write it that leaves its last ``left`` ops on the CPU."""
    model = read_model(data)
    graph, ops = model.subgraphs[0], ops_of(model)
    cut = len(ops) - left
    if options is None:
        cached = sum(len(buffer.data) for buffer in model.buffers if buffer.data is not None)
        options = package([program(2, 0, token), program(1, cached, token)])
    made = {int(i) for op in ops[:cut] for i in op.record.outputs}
    read = {int(i) for op in ops[cut:] for i in op.record.inputs} | {int(i) for i in graph.outputs}
    code = tflite(
        "OperatorCode",
        builtin_code=BuiltinOperator.CUSTOM,
        deprecated_builtin_code=BuiltinOperator.CUSTOM,
        custom_code="edgetpu-custom-op",
    )
    model.operator_codes.append(code)
    custom = tflite(
        "Operator",
        opcode_index=len(model.operator_codes) - 1,
        inputs=graph.inputs,
        outputs=np.array(sorted(made & read), np.int32),
        custom_options=np.frombuffer(options, np.uint8),
    )
    graph.operators[:cut] = [custom] if cut else []
    return write_model(model)
