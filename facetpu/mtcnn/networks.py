"""One of the detector's networks, run by the compiled ``_networks.c`` where it can be, else by TFLite.

P-, R- and O-Net have few channels and small images, which general runtimes are slow at; the compiled
piece takes some two thirds of XNNPACK's time. Both give the same outputs but for what rounding does to
sums of another order: 1e-5 of a logit. On one machine it is always the same.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any, Iterator

import numpy as np

from ..errors import FacetpuError
from ..runtime import interpreter, refused
from ..trial import require_runnable
from . import chains

_CACHED_PIXELS = 1 << 20  # of all inputs that a network keeps a TFLite interpreter for
_BATCHES = (8, 2, 1)  # crops that TFLite takes at once


class Network:
    """A network of the detector; not safe for use by several threads at once."""

    def __init__(self, path: Path, image: tuple[int, ...], output: tuple[int, ...]) -> None:
        """Load the network at ``path``, which takes ``image`` to ``output``, both shapes.

        Raises:
            FacetpuError: it is missing, damaged or another network, or there is no TFLite runtime.
        """
        self._path = path
        if path.is_file():
            require_runnable(path.read_bytes(), str(path))
        model = interpreter(path)
        try:
            model.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise refused(str(path), error) from None
        ends = [*model.get_input_details(), *model.get_output_details()]
        forms = [(detail["dtype"], tuple(detail["shape"])) for detail in ends]
        if forms != [(np.float32, image), (np.float32, output)]:
            raise FacetpuError(f"{path}: is not the detector's network; export the model again")
        self._input, self._output = (int(detail["index"]) for detail in ends)
        # An interpreter for each of the last few shapes of input.
        self._interpreters: OrderedDict[tuple[int, ...], Any] = OrderedDict([(image, model)])
        self._chain = self._sound_chain(image)
        if self._chain is not None:
            self._interpreters.clear()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The output, float32 [N, ...], for pixels [N, H, W, 3] of any type."""
        images = np.ascontiguousarray(images, np.float32)
        if self._chain is not None:
            return self._chain(images)
        return np.concatenate([self._interpret(images[batch]) for batch in _batches(len(images))])

    def _sound_chain(self, shape: tuple[int, ...]) -> chains.Chain | None:
        """The compiled form of the network, if there is one and it agrees with TFLite on noise."""
        chain = chains.read_chain(self._path) if chains.compiled is not None else None
        if chain is None:
            return None
        noise = np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)
        found, expected = chain(noise), self._interpret(noise)
        agree = found.shape == expected.shape and np.allclose(found, expected, rtol=1e-3, atol=1e-3)
        return chain if agree else None

    def _interpret(self, images: np.ndarray) -> np.ndarray:
        try:
            model = self._interpreter(images.shape)
            model.set_tensor(self._input, images)
            model.invoke()
        except (RuntimeError, ValueError) as error:
            raise refused(str(self._path), error) from None
        return model.get_tensor(self._output)

    def _interpreter(self, shape: tuple[int, ...]) -> Any:
        if shape in self._interpreters:
            self._interpreters.move_to_end(shape)
            return self._interpreters[shape]
        model = interpreter(self._path)
        model.resize_tensor_input(self._input, shape)
        model.allocate_tensors()
        self._interpreters[shape] = model
        while len(self._interpreters) > 1 and self._cached_pixels() > _CACHED_PIXELS:
            self._interpreters.popitem(last=False)
        return model

    def _cached_pixels(self) -> int:
        return sum(count * height * width for count, height, width, _ in self._interpreters)


def _batches(count: int) -> Iterator[slice]:
    """``count`` crops in batches of a few sizes, each of which keeps an interpreter."""
    start = 0
    for size in _BATCHES:
        while start + size <= count:
            yield slice(start, start + size)
            start += size
