"""The tables of a compiled model's package: libedgetpu's schema ``executable.fbs``, as far as we read it.

A package holds a serialised list of executables, each a flatbuffer of its own inside a string. What is
not read (DMA hints, output layouts, link information) is skipped by ``-``.
"""

from __future__ import annotations

from ..tflite.flatbuffer import Schema

IDENTIFIER = b"DWN1"
EXECUTABLE_TYPES = ("STAND_ALONE", "PARAMETER_CACHING", "EXECUTION_ONLY")
DATA_TYPES = {
    0: "FIXED_POINT8",
    1: "FIXED_POINT16",
    2: "SIGNED_FIXED_POINT32",
    3: "BFLOAT",
    4: "HALF",
    5: "SINGLE",
    8: "SIGNED_FIXED_POINT8",
    9: "SIGNED_FIXED_POINT16",
}

SCHEMA = Schema(
    """
Package min_runtime_version:int32 serialized_multi_executable:[uint8] signature:[uint8]
    keypair_version:int32 compiler_version:string virtual_chip_id:int32 - model_identifier:string
MultiExecutable serialized_executables:[bytes]
Executable version:int32 name:string serialized_model:[uint8] batch_size:int32 scratch_size_bytes:int32
    instruction_bitstreams:[InstructionBitstream] parameters:[uint8] - input_layers:[Layer]
    output_layers:[Layer] chip:string estimated_cycles:int32 used_narrow_memory_bytes_per_tile:int32
    type:int16 parameter_caching_token:uint64 use_tpu_dram_for_parameters:bool
    estimated_cycles_64bit:int64
InstructionBitstream bitstream:[uint8] -
Layer name:string size_bytes:int32 y_dim:int32 x_dim:int32 z_dim:int32 numerics:NumericsConstants
    data_type:int16 - - execution_count_per_inference:int32=1 cache_on_dram:bool shape:TensorShape
NumericsConstants zero_point:int32 dequantization_factor:float32
TensorShape dimension:[Range]
""",
    structs={"Range": "start:int32 end:int32"},
)
