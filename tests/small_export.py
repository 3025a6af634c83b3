"""Small models built in memory: a base that tells pictures apart by their coarse pixels, and its head."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from facetpu.artefacts import write_manifest
from facetpu.board.threshold import Cohort, write_cohort
from facetpu.labels import write_labels
from facetpu.mtcnn.weights import write_networks
from facetpu.tflite.build import Builder
from facetpu.tflite.concat import join_models
from facetpu.tflite.head import build_head
from facetpu.tflite.schema import ActivationFunctionType, Padding, new

DIM = 32
SIZE = 112
OUTPUT_SCALE, OUTPUT_ZERO_POINT = 0.02, 120


def build_base(seed: int = 0, dim: int = DIM, size: int = SIZE, floating: bool = False) -> bytes:
    """A uint8 base [1, size, size, 3] -> [1, 1, 1, dim]: 16 px patches, then all of them at once.

    With ``floating`` its float twin, which takes raw pixels too.
    """
    rng = np.random.default_rng(seed)
    cells = size // 16
    patches = rng.integers(-100, 101, [8, 16, 16, 3])
    patches -= np.round(patches.mean(axis=(1, 2), keepdims=True)).astype(int)  # blind to brightness
    mixing = rng.integers(-100, 101, [dim, cells, cells, 8])
    layers = [(patches, 16, 1 / 128, 1 / 512, 0.1), (mixing, 1, 0.1, 1 / 2048, OUTPUT_SCALE)]
    net = Builder()
    if floating:
        source = net.input("input", [1, size, size, 3])
    else:
        source = net.input("input", [1, size, size, 3], np.uint8, 1 / 128, 128)
    for number, (weights, stride, in_scale, scale, out_scale) in enumerate(layers):
        channels = len(weights)
        shape = [1, cells, cells, channels] if number == 0 else [1, 1, 1, channels]
        name = "embedding" if number else "patches"
        zero_point = OUTPUT_ZERO_POINT if number else 128
        if floating:
            real = (weights * scale / (128 if number == 0 else 1)).astype(np.float32)
            shift = np.zeros(channels, np.float32)
            if number == 0:
                shift = -(128 * real.sum(axis=(1, 2, 3))).astype(np.float32)
            kernel, bias = net.constant(f"kernel{number}", real), net.constant(f"bias{number}", shift)
            out = net.activation(name, shape)
        else:
            kernel = net.constant(f"kernel{number}", (weights + 128).astype(np.uint8), scale, 128)
            bias = net.constant(f"bias{number}", np.zeros(channels, np.int32), in_scale * scale)
            out = net.activation(name, shape, np.uint8, out_scale, zero_point)
        options = new(
            "Conv2DOptions",
            padding=Padding.VALID,
            stride_w=stride,
            stride_h=stride,
            fused_activation_function=ActivationFunctionType.NONE,
        )
        net.op("CONV_2D", [source, kernel, bias], [out], options)
        source = out
    return net.finish([source])


def unit_rows(rows: int, dim: int = DIM, seed: int = 0) -> np.ndarray:
    """float32 [rows, dim], each of length 1."""
    vectors = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def build_model(base: bytes, people: int = 3, dim: int = DIM, scale_factor: float = 10.0) -> bytes:
    """``base`` with a head of ``people`` random rows."""
    head = build_head(unit_rows(people, dim), scale_factor, OUTPUT_SCALE, OUTPUT_ZERO_POINT)
    return join_models(base, head)


def write_export(folder: Path, seed: int = 0) -> Path:
    """An export folder with a small base, all that a board needs in it."""
    folder.mkdir()
    base = build_base(seed)
    (folder / "base.tflite").write_bytes(base)
    (folder / "base_float.tflite").write_bytes(build_base(seed, floating=True))
    (folder / "model.tflite").write_bytes(build_model(base))
    write_labels(folder / "labels.txt", ["one", "two", "three"])
    (folder / "detector").mkdir()
    write_networks(folder / "detector")
    write_cohort(folder / "cohort.npz", Cohort(unit_rows(200), np.arange(200, dtype=np.int32) // 2))
    alignment = {"template": "arcface", "size": SIZE, "margin": 44}
    write_manifest(folder, "export", {}, {}, alignment=alignment, embedding_dim=DIM, threshold=0.5)
    return folder
