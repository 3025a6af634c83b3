"""What a compiled model holds: the packages inside its ``edgetpu-custom-op`` ops.

The op's custom options are a flexbuffer map whose key ``4`` is the package. It usually has two
executables: PARAMETER_CACHING, run once, brings its parameters onto the chip; EXECUTION_ONLY, run at
every inference, streams its own parameters from the host each time.
"""

from __future__ import annotations

import struct
from collections import Counter
from typing import Any, NamedTuple

from flatbuffers import flexbuffers

from ..errors import FacetpuError
from ..tflite.flatbuffer import decode
from .executable import DATA_TYPES, EXECUTABLE_TYPES, IDENTIFIER, SCHEMA
from .graph import Op, ops_of

CUSTOM_OP = "edgetpu-custom-op"
_PACKAGE, _EARLY_CACHING = "4", "3"  # keys of the options


class Layer(NamedTuple):
    """An input or output of an executable.

    ``yxz`` are its height, width and channels, 1 where it has none; ``size_bytes`` counts the padding;
    ``shape`` is the tensor's, where the package gives it.
    """

    name: str
    size_bytes: int
    yxz: tuple[int, int, int]
    data_type: str
    scale: float
    zero_point: int
    executions: int
    cached_on_dram: bool
    shape: tuple[int, ...] | None


class Executable(NamedTuple):
    """One program of a package, sizes in bytes.

    ``parameter_caching_token`` is equal in models that were compiled together: their parameters stay on
    the chip side by side.
    """

    type: str
    parameter_bytes: int
    scratch_bytes: int
    instruction_bytes: list[int]
    narrow_memory_bytes_per_tile: int
    parameter_caching_token: str
    chip: str
    inputs: list[Layer]
    outputs: list[Layer]


class Package(NamedTuple):
    """What one ``edgetpu-custom-op`` runs; ``min_runtime_version`` is 0 where it does not say."""

    min_runtime_version: int
    compiler_version: str
    executables: list[Executable]

    def parameter_bytes(self, cached: bool) -> int:
        """Bytes of parameters: those kept on the chip, or those streamed at every inference."""
        return sum(
            program.parameter_bytes
            for program in self.executables
            if (program.type == "PARAMETER_CACHING") == cached
        )


def is_compiled(model: Any) -> bool:
    """Whether the compiler has already put a part of ``model`` on the Edge TPU."""
    return any(op.name == CUSTOM_OP for op in ops_of(model))


def read_packages(model: Any, where: str) -> list[Package]:
    """The packages of a model, one for each ``edgetpu-custom-op``; none of an uncompiled model.

    Args:
        model: as ``facetpu.tflite.model.read_model`` gives it.
        where: the file, for messages.

    Raises:
        FacetpuError: a package is missing or damaged.
    """
    return [_package(op) for op in ops_of(model, where) if op.name == CUSTOM_OP]


def ops_left(original: Any, compiled: Any) -> list[bool]:
    """For each op of ``original``, whether it is still an op of its own in ``compiled``: on the CPU.

    An op is known by its kind and by the names of its outputs, which the compiler keeps.
    """
    left = Counter((op.name, op.output_names) for op in ops_of(compiled))
    found = []
    for op in ops_of(original):
        key = (op.name, op.output_names)
        found.append(left[key] > 0)
        left[key] -= 1
    return found


def _package(op: Op) -> Package:
    inside, texts = str(op), _texts(op)
    if _EARLY_CACHING in texts:
        return _early_package(texts, inside)
    package = decode(SCHEMA, "Package", texts[_PACKAGE], inside, IDENTIFIER)
    if package.serialized_multi_executable is None:
        raise FacetpuError(f"{inside}: its package holds no program; compile the model again")
    programs = decode(SCHEMA, "MultiExecutable", package.serialized_multi_executable, inside)
    return Package(
        package.min_runtime_version,
        package.compiler_version or "",
        [
            _executable(decode(SCHEMA, "Executable", data, inside))
            for data in programs.serialized_executables or []
        ],
    )


def _early_package(texts: dict[str, bytes], inside: str) -> Package:
    """What a compiler of 2019 wrote: two programs beside each other, whose layers had another form."""
    programs = []
    for key, kind in ((_PACKAGE, "EXECUTION_ONLY"), (_EARLY_CACHING, "PARAMETER_CACHING")):
        record = decode(SCHEMA, "Executable", texts[key], inside)
        record.input_layers = record.output_layers = None
        programs.append(_executable(record)._replace(type=kind))
    return Package(0, "", programs)


def _texts(op: Op) -> dict[str, bytes]:
    """The strings in a custom op's options, by key; there is always a package."""
    try:
        options = flexbuffers.GetRoot(op.custom_options).AsMap
        entries = {key.AsKey: options[key.AsKey] for key in options.Keys}
        texts = {key: bytes(entry.AsStringBytes) for key, entry in entries.items() if entry.IsString}
    except (IndexError, KeyError, TypeError, ValueError, struct.error):
        texts = {}
    if _PACKAGE not in texts:
        raise FacetpuError(
            f"{op}: its options hold no package: it is damaged or cut short; compile the model again"
        )
    return texts


def _executable(record: Any) -> Executable:
    known = 0 <= record.type < len(EXECUTABLE_TYPES)
    return Executable(
        type=EXECUTABLE_TYPES[record.type] if known else str(record.type),
        parameter_bytes=_length(record.parameters),
        scratch_bytes=record.scratch_size_bytes,
        instruction_bytes=[_length(chunk.bitstream) for chunk in record.instruction_bitstreams or []],
        narrow_memory_bytes_per_tile=record.used_narrow_memory_bytes_per_tile,
        parameter_caching_token=hex(record.parameter_caching_token),
        chip=record.chip or "",
        inputs=[_layer(layer) for layer in record.input_layers or []],
        outputs=[_layer(layer) for layer in record.output_layers or []],
    )


def _layer(record: Any) -> Layer:
    numerics = record.numerics
    ranges = record.shape.dimension if record.shape else None
    return Layer(
        name=record.name or "",
        size_bytes=record.size_bytes,
        yxz=(record.y_dim, record.x_dim, record.z_dim),
        data_type=DATA_TYPES.get(record.data_type, str(record.data_type)),
        scale=numerics.dequantization_factor if numerics else 0.0,
        zero_point=numerics.zero_point if numerics else 0,
        executions=record.execution_count_per_inference,
        cached_on_dram=record.cache_on_dram,
        shape=None if ranges is None else tuple(int(last) - int(first) + 1 for first, last in ranges),
    )


def _length(vector: Any) -> int:
    return 0 if vector is None else len(vector)
