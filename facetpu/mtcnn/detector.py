"""MTCNN: three small networks that find the faces in a photo, one after the other.

P-Net runs over the whole photo at several scales and proposes boxes, R-Net looks at each of them and
refuses most, O-Net places the five landmarks. Thresholds and steps are those of davidsandberg/facenet's
``detect_face.py``, whose boxes this detector reproduces. (Zhang et al., "Joint Face Detection and
Alignment Using Multi-task Cascaded Convolutional Networks", 2016.)
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Iterator, Sequence

import numpy as np

from ..image import Face
from .areas import crops, level
from .boxes import CELL, STRIDE, cell_boxes, regress, squares, suppress, suppress_each
from .networks import Network

FACTOR = 0.709  # from one level of the pyramid to the next
PROPOSED, REFINED, ACCEPTED = 0.6, 0.7, 0.7  # least probability after P-, R- and O-Net

_STRIP_PIXELS = 1 << 18  # of a level that P-Net takes at once: about 100 bytes of memory each
_CROPS = 64  # in memory at once
_FLOAT_VALUES = 12 << 20  # of a photo that is taken as float32: 48 MB of memory


class Detector:
    """Finds faces; not safe for use by several threads at once."""

    def __init__(self, folder: Path, min_face: int = 20, drop_levels: int = 0) -> None:
        """Load the networks.

        Args:
            folder: holds ``pnet.tflite``, ``rnet.tflite`` and ``onet.tflite``, see ``weights``.
            min_face: the smallest face to look for in pixels, 12 or more.
            drop_levels: the finest levels of the pyramid to leave out. Each makes the search faster and
                the smallest face 1.4 times larger. The other levels stay as they are, so larger faces
                hardly move, while another ``min_face`` moves every box.

        Raises:
            FacetpuError: a network is missing or damaged, or there is no TFLite runtime.
        """
        folder = Path(folder)
        self.min_face = min_face
        self.drop_levels = drop_levels
        self._pnet = Network(folder / "pnet.tflite", (1, 12, 12, 3), (1, 1, 1, 5))
        self._rnet = Network(folder / "rnet.tflite", (1, 24, 24, 3), (1, 5))
        self._onet = Network(folder / "onet.tflite", (1, 48, 48, 3), (1, 15))

    def detect(self, image: np.ndarray) -> list[Face]:
        """The faces in ``image``, uint8 [H, W, 3] RGB, best first; an empty list where there is none."""
        # Areas of float32 are averaged faster, and are crops' type; a huge photo stays as small as it is.
        pixels = image.astype(np.float32) if image.size <= _FLOAT_VALUES else image
        boxes = self._propose(pixels)
        boxes = self._refine(pixels, boxes)
        return self._accept(pixels, boxes)

    def _propose(self, pixels: np.ndarray) -> np.ndarray:
        """P-Net: squares that may hold a face, float64 [n, 4] of whole numbers, best first."""
        scales = self._scales(pixels.shape)[::-1]
        if not scales:
            return np.empty((0, 4))
        levels = [self._propose_at(pixels, scale) for scale in scales]
        x, y, cells = (np.concatenate(parts) for parts in zip(*levels))
        counts = [len(columns) for columns, _, _ in levels]
        boxes = cell_boxes(x, y, np.repeat(scales, counts)[:, None])
        scores = _probability(cells[:, 0])
        kept = np.sort(suppress_each(boxes, scores, 0.5, np.repeat(np.arange(len(scales)), counts)))
        # The reference suppresses what overlaps by 0.7 here. Boxes of one level overlap by 0.5 at most
        # now, those of two by less than 0.7, rounding included: only the order is left, which is the
        # coarser level's first among equal scores.
        best = kept[np.argsort(-scores[kept], kind="stable")]
        return np.fix(squares(regress(boxes[best], cells[best, 1:], inclusive=False)))

    def _propose_at(self, pixels: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Column and row of the cells that P-Net proposes at one level, and its output there, [n, 5]."""
        size = (math.ceil(side * scale) for side in pixels.shape[:2])
        cells = np.concatenate([self._pnet(strip[None])[0] for strip in _strips(level(pixels, *size))])
        x, y = np.nonzero((cells[:, :, 0] >= _logit(PROPOSED)).T)
        found = cells[y, x]
        if len(x) == 1:  # The reference has it so, and its boxes are what this detector is measured by.
            found[:, 1:] = cells[y, cells.shape[1] - 1 - x, 1:]
        return x, y, found

    def _refine(self, pixels: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """R-Net: of these squares those that look like a face, better placed."""
        boxes, output = _look(self._rnet, 24, pixels, boxes, REFINED)
        kept = suppress(boxes, _probability(output[:, 0]), 0.7)
        return np.fix(squares(regress(boxes[kept], output[kept, 1:5])))

    def _accept(self, pixels: np.ndarray, boxes: np.ndarray) -> list[Face]:
        """O-Net: of these squares the faces."""
        boxes, output = _look(self._onet, 48, pixels, boxes, ACCEPTED)
        scores = _probability(output[:, 0])
        size = boxes[:, 2:] - boxes[:, :2] + 1
        # Five shares of the width, then five of the height, and back to counting pixels from 0.
        landmarks = output[:, 5:].reshape(-1, 2, 5).transpose(0, 2, 1)
        landmarks = landmarks * size[:, None] + boxes[:, None, :2] - 1
        boxes = regress(boxes, output[:, 1:5])
        return [
            Face(tuple(boxes[index].tolist()), float(scores[index]), landmarks[index])
            for index in suppress(boxes, scores, 0.7, of_smaller=True)
        ]

    def _scales(self, shape: tuple[int, ...]) -> list[float]:
        """The pyramid's scales for a photo of ``shape``, the largest first."""
        finest = CELL / self.min_face
        side = min(shape[:2]) * finest
        scales: list[float] = []
        while side >= CELL:
            scales.append(finest * FACTOR ** len(scales))
            side *= FACTOR
        return scales[self.drop_levels :]


def main_face(faces: Sequence[Face], image_shape: tuple[int, ...]) -> Face:
    """The face that a photo is of: large and near the centre.

    As the reference aligner chooses: the largest area less twice the squared distance from the centre.

    Args:
        faces: one or more.
        image_shape: height, width of the photo, and what else its shape has.
    """

    def weight(face: Face) -> float:
        x1, y1, x2, y2 = face.box
        away = ((x1 + x2 - image_shape[1]) / 2) ** 2 + ((y1 + y2 - image_shape[0]) / 2) ** 2
        return (x2 - x1) * (y2 - y1) - 2 * away

    return max(faces, key=weight)


def _look(
    network: Network, side: int, pixels: np.ndarray, boxes: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Those of ``boxes`` that ``network`` takes for a face, and its output for each: [n, channels]."""
    boxes = boxes[(boxes[:, 2:] >= boxes[:, :2]).all(axis=1)]
    if not len(boxes):
        return boxes, np.empty((0, 15), np.float32)
    output = []
    for start in range(0, len(boxes), _CROPS):
        output.append(network(crops(pixels, boxes[start : start + _CROPS], side)))
    outputs = np.concatenate(output)
    likely = outputs[:, 0] > _logit(threshold)
    return boxes[likely], outputs[likely]


def _strips(whole: np.ndarray) -> Iterator[np.ndarray]:
    """A level ``whole`` in strips whose P-Net outputs, one below the other, are the output for all of it.

    A row of cells sees 12 rows of pixels from an even one on, so strips overlap by 10 and start evenly.
    """
    height, width = whole.shape[:2]
    rows = max(_STRIP_PIXELS // width, 4 * CELL) // STRIDE * STRIDE
    step = rows - (CELL - STRIDE)
    for top in range(0, max(height - (CELL - STRIDE), 1), step):
        yield whole[top : top + rows]


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def _probability(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))
