"""An SSD detector in MTCNN's search, with a real small model that LiteRT runs, post-processing op and all.

The model is a matched filter for rendered faces, not a face detector that anybody trained: it shows that
boxes, scores and counts are read and placed rightly, not how well SSD models find faces.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from flatbuffers import flexbuffers
from PIL import Image

from facetpu.board import ssd
from facetpu.errors import FacetpuError
from facetpu.image import read_image, resize
from facetpu.mtcnn.detector import Detector
from facetpu.mtcnn.weights import write_networks
from facetpu.portraits import draw_people, render
from facetpu.stages.align import AlignConfig, align
from facetpu.tflite.build import Builder
from facetpu.tflite.model import read_model, write_model
from facetpu.tflite.schema import BuiltinOperator, Padding, new

PEOPLE = list(draw_people(4, seed=3).values())
SIDE, PATCH, STEP = 96, 32, 8  # of the model's input, of a face on it, and between two anchors
CELLS = (SIDE - PATCH) // STEP + 1


def face_patch(person: object, number: int) -> np.ndarray:
    """A rendered face as the filter should see it, float [PATCH, PATCH, 3]."""
    portrait = render(person, np.random.default_rng(number), 160)
    (x, y), eyes = portrait.landmarks.mean(axis=0), np.ptp(portrait.landmarks[:2, 0])
    half = max(1.3 * eyes, 20)
    crop = portrait.image[max(int(y - half), 0) : int(y + half), max(int(x - half), 0) : int(x + half)]
    return resize(np.ascontiguousarray(crop), PATCH, PATCH).astype(np.float32)


def post_processing_options() -> np.ndarray:
    writer = flexbuffers.Builder()
    with writer.Map():
        for key, value in (("max_detections", 5), ("max_classes_per_detection", 1), ("num_classes", 1)):
            writer.Int(key, value)
        for key in ("x_scale", "y_scale", "w_scale", "h_scale"):
            writer.Float(key, 1.0)
        writer.Float("nms_score_threshold", 0.05)
        writer.Float("nms_iou_threshold", 0.4)
        writer.Bool("use_regular_nms", False)
    return np.frombuffer(bytes(writer.Finish()), np.uint8)


def build_ssd() -> bytes:
    """uint8 pixels -> a filter's response at each anchor -> boxes, classes, scores, count."""
    faces = np.mean([face_patch(person, number) for person in PEOPLE for number in range(4)], axis=0)
    kernel = faces - faces.mean()
    kernel /= np.square(kernel).sum()  # 1 on the mean face, 0 on any even ground
    net = Builder()
    image = net.input("image", [1, SIDE, SIDE, 3], np.uint8, 1.0, 0)
    pixels = net.activation("pixels", [1, SIDE, SIDE, 3])
    net.op("DEQUANTIZE", [image], [pixels])
    response = net.activation("response", [1, CELLS, CELLS, 1])
    bias = net.constant("bias", np.float32([-0.5]))
    filter_ = net.constant("filter", kernel[None].astype(np.float32))
    options = new("Conv2DOptions", padding=Padding.VALID, stride_w=STEP, stride_h=STEP)
    net.op("CONV_2D", [pixels, filter_, bias], [response], options)
    anchors = CELLS * CELLS
    shape = net.constant("shape", np.int32([1, anchors, 1]))
    column = net.activation("column", [1, anchors, 1])
    net.op("RESHAPE", [response, shape], [column], new("ReshapeOptions"))
    sharp = net.activation("sharp", [1, anchors, 1])
    net.op("MUL", [column, net.constant("gain", np.float32([8]))], [sharp], new("MulOptions"))
    face = net.activation("face", [1, anchors, 1])
    net.op("LOGISTIC", [sharp], [face])
    scores = net.activation("scores", [1, anchors, 2])
    padding = net.constant("padding", np.int32([[0, 0], [0, 0], [1, 0]]))  # class 0 is the background
    net.op("PAD", [face, padding], [scores], new("PadOptions"))
    centres = (np.arange(CELLS) * STEP + PATCH / 2) / SIDE
    y, x = (axis.ravel() for axis in np.meshgrid(centres, centres, indexing="ij"))
    size = np.full(anchors, PATCH / SIDE)
    table = net.constant("anchors", np.stack([y, x, size, size], axis=1).astype(np.float32))
    offsets = net.constant("offsets", np.zeros((1, anchors, 4), np.float32))
    outputs = [
        net.activation(name, shape)
        for name, shape in (("boxes", [1, 5, 4]), ("classes", [1, 5]), ("likely", [1, 5]), ("count", [1]))
    ]
    net.op("CUSTOM", [offsets, scores, table], outputs)
    # Coral's newer models give the outputs in another order: by their names' order, not the op's.
    model = read_model(net.finish([outputs[2], outputs[0], outputs[3], outputs[1]]))
    code = next(c for c in model.operator_codes if c.builtin_code == BuiltinOperator.CUSTOM)
    code.custom_code = ssd.POST_PROCESSING
    model.subgraphs[0].operators[-1].custom_options = post_processing_options()
    return write_model(model)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ssd")
    write_networks(folder)
    (folder / "ssd.tflite").write_bytes(build_ssd())
    return folder


def scene(left: int, top: int, person: object, shape: tuple[int, int] = (280, 280)) -> np.ndarray:
    page = np.full((*shape, 3), 190, np.uint8)
    page[top : top + 160, left : left + 160] = render(person, np.random.default_rng(1), 160).image
    return page


@pytest.mark.parametrize(("left", "top"), [(0, 0), (120, 40), (60, 100)])
def test_faces_are_where_mtcnn_finds_them(files: Path, left: int, top: int) -> None:
    image = scene(left, top, PEOPLE[3])
    found = ssd.Detector(files / "ssd.tflite", files).detect(image)
    (expected,) = Detector(files).detect(image)
    assert len(found) == 1
    side = expected.box[2] - expected.box[0]
    np.testing.assert_allclose(found[0].box, expected.box, atol=0.12 * side)
    np.testing.assert_allclose(found[0].landmarks, expected.landmarks, atol=0.12 * side)


def test_an_empty_photo_has_no_face(files: Path) -> None:
    detector = ssd.Detector(files / "ssd.tflite", files)
    assert detector.detect(np.full((200, 300, 3), 130, np.uint8)) == []
    assert detector.detect(np.full((1, 1, 3), 130, np.uint8)) == []


def test_faces_smaller_than_asked_for_are_left_out(files: Path) -> None:
    image = scene(60, 40, PEOPLE[3])
    assert ssd.Detector(files / "ssd.tflite", files, min_face=250).detect(image) == []


def test_photos_are_fitted_without_distortion() -> None:
    page, scale = ssd.fitted(np.full((100, 50, 3), 9, np.uint8), 20, 20)
    assert scale == 0.2
    np.testing.assert_array_equal(page[..., 0], np.repeat([[9] * 10 + [0] * 10], 20, axis=0))


def test_other_models_are_refused(files: Path, tmp_path: Path) -> None:
    with pytest.raises(FacetpuError, match=r"pnet\.tflite: has no TFLite_Detection_PostProcess"):
        ssd.find_tensors(files / "pnet.tflite")
    model = read_model(build_ssd())
    model.subgraphs[0].inputs = model.subgraphs[0].operators[1].inputs[:1]
    (tmp_path / "float.tflite").write_bytes(write_model(model))
    with pytest.raises(FacetpuError, match="does not take one uint8 image"):
        ssd.find_tensors(tmp_path / "float.tflite")


def test_align_takes_the_detector_and_knows_it_again(files: Path, tmp_path: Path) -> None:
    (tmp_path / "photos" / "Ana").mkdir(parents=True)
    Image.fromarray(scene(60, 100, PEOPLE[3])).save(tmp_path / "photos" / "Ana" / "a.png")
    model = files / "ssd.tflite"
    result = align(tmp_path / "photos", tmp_path / "crops", workers=1, detector=model)
    assert result.faces == 1
    assert read_image(tmp_path / "crops/Ana/a.png").shape == (112, 112, 3)
    assert align(tmp_path / "photos", tmp_path / "crops", detector=model) == result
    with pytest.raises(FacetpuError, match="exists; choose another name"):
        align(tmp_path / "photos", tmp_path / "crops")
    with pytest.raises(FacetpuError, match="--drop-levels is for MTCNN's pyramid"):
        align(tmp_path / "photos", tmp_path / "other", AlignConfig(drop_levels=1), detector=model)
