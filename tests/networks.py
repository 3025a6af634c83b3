"""Small quantised networks, built in memory for the tests of the Edge TPU's room."""

from __future__ import annotations

from typing import Any

import numpy as np

from facetpu.tflite.build import Builder
from facetpu.tflite.model import read_model
from facetpu.tflite.schema import Padding, new


class Network(Builder):
    """A builder whose tensors are uint8 and whose convolutions and the like take one line."""

    def flow(self, name: str, shape: list[int], dtype: Any = np.uint8) -> int:
        """An activation between two ops."""
        return self.activation(name, shape, dtype, scale=1 / 64, zero_point=128)

    def image(self, shape: list[int], dtype: Any = np.uint8, name: str = "image") -> int:
        """An input of the model."""
        return self.input(name, shape, dtype, scale=1 / 128, zero_point=128)

    def convolution(self, name: str, source: int, channels: int, version: int = 1, **options: Any) -> int:
        """A 1x1 convolution."""
        batch, height, width, depth = (int(n) for n in self.graph.tensors[source].shape)
        kernel = self.constant(
            f"{name}/kernel", np.full([channels, 1, 1, depth], 129, np.uint8), scale=1 / 64, zero_point=128
        )
        scale = float(self.graph.tensors[source].quantization.scale[0]) / 64
        bias = self.constant(f"{name}/bias", np.zeros(channels, np.int32), scale)
        out = self.flow(name, [batch, height, width, channels])
        table = new("Conv2DOptions", **{"stride_w": 1, "stride_h": 1, **options})
        self.op("CONV_2D", [source, kernel, bias], [out], table, version)
        return out

    def step(
        self,
        op: str,
        sources: list[int | None],
        shape: list[int],
        options: Any = None,
        dtype: Any = np.uint8,
        version: int = 1,
        name: str | None = None,
    ) -> int:
        """Any op with one output."""
        out = self.flow(name or f"{op.lower()}{len(self.graph.operators)}", shape, dtype)
        self.op(op, sources, [out], options, version)
        return out

    def model(self, *outputs: int) -> Any:
        """The network as a record."""
        return read_model(self.finish(outputs))


def base_network(channels: int = 8) -> bytes:
    """A base: three ops, all of which the Edge TPU runs."""
    net = Network()
    image = net.image([1, 8, 8, 3])
    hidden = net.convolution("conv", image, channels)
    window = new(
        "Pool2DOptions", filter_width=8, filter_height=8, stride_w=1, stride_h=1, padding=Padding.VALID
    )
    pooled = net.step("AVERAGE_POOL_2D", [hidden], [1, 1, 1, channels], window)
    return net.finish([net.convolution("embedding", pooled, 4)])
