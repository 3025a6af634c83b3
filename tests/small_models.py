"""Small models, built in memory, and a way to run them."""

from __future__ import annotations

import numpy as np

from facetpu.runtime import interpreter
from facetpu.tflite.build import Builder
from facetpu.tflite.head import base_output, build_head
from facetpu.tflite.schema import Padding, new

DIMENSION = 16
PEOPLE = 5


def run(model: bytes, *inputs: np.ndarray) -> list[np.ndarray]:
    """What the model gives for ``inputs``, output by output."""
    net = interpreter(model)
    for detail, value in zip(net.get_input_details(), inputs, strict=True):
        net.resize_tensor_input(detail["index"], value.shape)
    net.allocate_tensors()
    for detail, value in zip(net.get_input_details(), inputs, strict=True):
        net.set_tensor(detail["index"], value)
    net.invoke()
    return [net.get_tensor(detail["index"]) for detail in net.get_output_details()]


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, [1, 8, 8, 3], dtype=np.uint8)


def unit_rows(count: int = PEOPLE, dimension: int = DIMENSION, seed: int = 1) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=[count, dimension])
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def base(name: str = "embedding", zero_point: int = 120) -> bytes:
    """A quantised base: one convolution over the whole image, uint8 [1,8,8,3] to uint8 [1,1,1,16]."""
    random = np.random.default_rng(2)
    net = Builder()
    pixels = net.input("image", [1, 8, 8, 3], np.uint8, 1 / 128, 128)
    kernel = random.integers(0, 256, [DIMENSION, 8, 8, 3], dtype=np.uint8)
    weights = net.constant("weights", kernel, 0.01, 128)
    bias = net.constant("bias", random.integers(-99, 99, DIMENSION, dtype=np.int32), 0.01 / 128)
    embedding = net.activation(name, [1, 1, 1, DIMENSION], np.uint8, 0.1, zero_point)
    options = new("Conv2DOptions", padding=Padding.VALID, stride_w=8, stride_h=8)
    net.op("CONV_2D", [pixels, weights, bias], [embedding], options)
    return net.finish([embedding], "MLIR Converted.")


def head(of: bytes | None = None, description: str = "") -> bytes:
    source = base_output(of or base())
    return build_head(
        unit_rows(), 10.0, source.scale, source.zero_point, source.name, description=description
    )


def converted() -> bytes:
    """A whole model as a converter writes it: int8 inside, QUANTIZE at both ends, a signature, metadata."""
    from facetpu.tflite.model import read_model, write_model

    random = np.random.default_rng(3)
    net = Builder()
    outside = net.input("image", [1, 8, 8, 3], np.uint8, 1 / 128, 128)
    inside = net.activation("image_int8", [1, 8, 8, 3], np.int8, 1 / 128, 0)
    net.op("QUANTIZE", [outside], [inside], new("QuantizeOptions"))
    kernel = random.integers(-127, 128, [DIMENSION, 8, 8, 3], dtype=np.int8)
    weights = net.constant("weights", kernel, 0.01)
    bias = net.constant("bias", np.zeros(DIMENSION, np.int32), 0.01 / 128)
    embedding = net.activation("embedding", [1, 1, 1, DIMENSION], np.int8, 0.1)
    options = new("Conv2DOptions", padding=Padding.VALID, stride_w=8, stride_h=8)
    net.op("CONV_2D", [inside, weights, bias], [embedding], options, version=3)
    unit = net.activation("unit", [1, 1, 1, DIMENSION], np.int8, 1 / 128)
    net.op("L2_NORMALIZATION", [embedding], [unit], new("L2NormOptions"), version=2)
    shape = net.constant("shape", np.array([1, DIMENSION], np.int32))
    flat = net.activation("flat", [1, DIMENSION], np.int8, 1 / 128)
    net.op("RESHAPE", [unit, shape], [flat], new("ReshapeOptions", new_shape=np.array([1, DIMENSION])))
    result = net.activation("result", [1, DIMENSION], np.uint8, 1 / 128, 128)
    net.op("QUANTIZE", [flat], [result], new("QuantizeOptions"), version=2)
    model = read_model(net.finish([result], "MLIR Converted."))
    for name, data in (("min_runtime_version", b"2.5.0"), ("CONVERSION_METADATA", b"made by a test")):
        model.metadata.append(new("Metadata", name=name, buffer=len(model.buffers)))
        model.buffers.append(new("Buffer", data=np.frombuffer(data, np.uint8)))
    signature = new("SignatureDef", signature_key="serving_default")
    signature.inputs = [new("TensorMap", name="photo", tensor_index=outside)]
    signature.outputs = [new("TensorMap", name="answer", tensor_index=result)]
    model.signature_defs = [signature]
    return write_model(model)
