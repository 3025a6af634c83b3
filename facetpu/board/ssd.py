"""An SSD model in the place of MTCNN's search: Edge TPUs run such models in milliseconds.

SSD models end in the op ``TFLite_Detection_PostProcess``, which writes boxes, classes, scores and their
count, and no landmarks. So the model does P-Net's work and proposes boxes, of whatever class; R-Net and
O-Net, which take the CPU a few milliseconds a face, confirm them, place them as MTCNN places its own, and
find the landmarks. Both templates work, and crops agree with those that MTCNN leads to.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import FacetpuError
from ..image import resize
from ..mtcnn import detector as mtcnn
from ..mtcnn.boxes import squares
from ..tflite.model import op_name, read_model, type_name
from .interpreter import DeviceModel, is_compiled
from .runner import read_tflite

POST_PROCESSING = "TFLite_Detection_PostProcess"
PROPOSED = 0.3  # least score of a box that R-Net looks at


class Tensors(NamedTuple):
    """An SSD model's tensors, by their numbers.

    Attributes:
        image: uint8 [1, H, W, 3], RGB.
        boxes: float32 [1, N, 4]: top, left, bottom, right as shares of the image.
        classes: float32 [1, N].
        scores: float32 [1, N].
        found: float32 [1], how many of the N there are.
    """

    image: int
    boxes: int
    classes: int
    scores: int
    found: int


class Detector(mtcnn.Detector):
    """Finds faces with an SSD model; not safe for use by several threads at once."""

    def __init__(self, model: Path, networks: Path, min_face: int = 20, device: str | None = None) -> None:
        """Load the model and MTCNN's networks.

        Args:
            model: the .tflite file. A compiled one runs on the Edge TPU, which serves one process at a
                time; without one its CPU twin beside it runs.
            networks: a folder with ``pnet.tflite``, ``rnet.tflite`` and ``onet.tflite``.
            min_face: the smallest face to look for in pixels.
            device: ``cpu``, or which Edge TPU, see ``devices.check_device``.

        Raises:
            FacetpuError: the model is no such detector or cannot run here, or a network is missing.
        """
        super().__init__(networks, min_face)
        self._model = DeviceModel(Path(model), device)
        self._tensors = find_tensors(self._model.path)
        self._input_shape = self._model.inputs[0]["shape"]
        # Places among the outputs, which a compiled model and its twin have in one order.
        numbers = [output["index"] for output in self._model.outputs]
        self._places = [numbers.index(number) for number in self._tensors[1:]]

    def _propose(self, pixels: np.ndarray) -> np.ndarray:
        """The squares around the model's boxes: float64 [n, 4] of whole numbers."""
        boxes = self._boxes(pixels.astype(np.uint8, copy=False))
        large = (boxes[:, 2:] - boxes[:, :2]).min(axis=1) >= self.min_face
        return np.fix(squares(boxes[large] + 1))  # MTCNN counts pixels from 1.

    def _boxes(self, image: np.ndarray) -> np.ndarray:
        """The model's likely boxes in pixels of ``image``: float64 [n, 4], x1, y1, x2, y2."""
        pixels, scale = fitted(image, *self._input_shape[1:3])
        outputs = self._model.run(pixels[None])
        boxes, _, scores, count = (outputs[place] for place in self._places)
        found = boxes[0, : int(count[0])][scores[0, : int(count[0])] >= PROPOSED]
        sides = np.tile(self._input_shape[1:3], 2) / scale
        return (found * sides)[:, [1, 0, 3, 2]].astype(np.float64)


def find_tensors(model: Path) -> Tensors:
    """The tensors of the SSD model in the file ``model``, which need not be able to run here.

    Raises:
        FacetpuError: it is no TFLite model, or no detector with a uint8 image and the post-processing op.
    """
    record = read_model(read_tflite(model), str(model))
    graph = record.subgraphs[0]
    last = [op for op in graph.operators if op_name(record, op) == POST_PROCESSING]
    if len(last) != 1 or len(last[0].outputs) != 4:
        raise FacetpuError(f"{model}: has no {POST_PROCESSING} with four outputs; give an SSD face detector")
    inputs = [graph.tensors[number] for number in graph.inputs]
    if len(inputs) != 1 or type_name(inputs[0]) != "uint8" or len(inputs[0].shape) != 4:
        raise FacetpuError(f"{model}: does not take one uint8 image; quantise the detector with uint8 input")
    return Tensors(int(graph.inputs[0]), *(int(number) for number in last[0].outputs))


def needs_edgetpu(model: Path) -> bool:
    """Whether the model in the file ``model`` is compiled for an Edge TPU."""
    return is_compiled(read_tflite(model))


def fitted(image: np.ndarray, height: int, width: int) -> tuple[np.ndarray, float]:
    """``image`` scaled to fit into the upper left corner of a black one, and by how much it was scaled.

    As Coral's examples give photos to detectors.

    Args:
        image: uint8 [H, W, 3].
        height: of the result.
        width: of the result.
    """
    scale = min(height / image.shape[0], width / image.shape[1])
    rows, columns = (max(1, round(side * scale)) for side in image.shape[:2])
    page = np.zeros((height, width, 3), np.uint8)
    page[:rows, :columns] = resize(image, rows, columns)
    return page, scale
