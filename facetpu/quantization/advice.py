"""What is to be said of a quantisation: is its calibration set any good, and what would mend it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from ..image import ARCFACE_LANDMARKS, ARCFACE_SIZE
from ..mtcnn.detector import Detector
from ..mtcnn.weights import write_networks
from .calibration import Sample
from .compare import Comparison

FEW_CROPS = 50  # below that the ranges of the activations are guesses
FEW_PEOPLE = 10
VARIATION = 8.0  # grey levels by which crops differ from their mean; less is one picture over and over
LOOKED_AT = 24  # crops that are searched for a face
NEAR = 0.1  # of the side, how far a landmark may be from its place in the template
TRAIN_ON = "train on with rounding to integers (QAT)"
WEAK = 0.8  # AUC; a MobileFaceNet has 0.99 on faces, and 0.65 with pixels from 0 to 255 for -1 to 1
GOOD = 0.98  # cosine between float and int8, from which nothing need be mended


def warnings_of(sample: Sample, samples: int, aligned: bool) -> list[str]:
    """What speaks against the first ``samples`` crops of ``sample`` as a calibration set.

    Args:
        sample: the crops.
        samples: how many are calibrated on.
        aligned: whether facetpu aligned them; if not they are searched for faces.
    """
    crops, people = sample.crops[:samples], len(set(sample.people[:samples].tolist()))
    found = []
    if len(crops) < FEW_CROPS:
        found.append(
            f"has {len(crops)} crops, and {FEW_CROPS} or more make sure of the ranges; the base may be less "
            "exact"
        )
    if people < FEW_PEOPLE:
        found.append(f"shows {people} people, and {FEW_PEOPLE} or more make sure of the ranges")
    grey = crops.mean(axis=3)
    if grey.std(axis=0).mean() < VARIATION:
        found.append("shows nearly one and the same picture; give crops of many people in many lights")
    if not aligned:
        share = _faces_in_place(crops[:LOOKED_AT])
        if share < 0.5:
            found.append(
                f"has a face where alignment puts it in {share:.0%} of the crops looked at; give crops of "
                "facetpu align"
            )
    return found


def weakness(comparison: Comparison, foreign: bool) -> list[str]:
    """What speaks against the embedder itself, whose integers may follow it ever so well.

    Args:
        comparison: of its floats and its integers.
        foreign: whether it is of another maker.
    """
    area = comparison.auc_float
    if area is None or area >= WEAK:
        return []
    mend = (
        "that --mean, --std and --channels are those the model was trained with"
        if foreign
        else "train longer or on more people"
    )
    return [
        f"has people whom the model hardly tells apart, rounded or not (AUC {area:.2f}; guessing has 0.50): "
        f"see that each folder holds one person, and {mend}"
    ]


def remedies(comparison: Comparison, calibrated_on: int, clip: float | None, trainable: bool) -> list[str]:
    """What can be tried where the integers are too far from the floats.

    Args:
        comparison: of the two.
        calibrated_on: crops; none where the ranges were learnt in training.
        clip: the percentage of each activation's numbers that its range holds; None for all.
        trainable: whether facetpu trained the network, and can train it on with rounding.
    """
    if comparison.cosine >= GOOD:
        return []
    if not calibrated_on:
        return [f"{TRAIN_ON} for more steps: warm_start may be this run"] if trainable else []
    tried = []
    if calibrated_on < 500:
        tried.append("calibrate on more crops: --samples 500, of many people and lights")
    if clip is None:
        tried.append("leave out the rarest activations: --clip 99.999, then 99.99")
    if trainable:
        tried.append(
            f"{TRAIN_ON}: in a copy of the run's config.yaml set warm_start to the run, "
            "network.quantization_aware to true, a hundredth of the learning rate and a tenth of the epochs; "
            "then facetpu train COPY RECORDS NEW_RUN, and export NEW_RUN"
        )
    return tried


def _faces_in_place(crops: np.ndarray) -> float:
    """The share of ``crops`` in which a face is found with its landmarks where alignment puts them."""
    side = crops.shape[1]
    wanted = ARCFACE_LANDMARKS * (side / ARCFACE_SIZE)
    with tempfile.TemporaryDirectory() as folder:
        write_networks(Path(folder))
        detector = Detector(Path(folder), min_face=max(20, side // 3))
        found = 0
        for crop in crops:
            faces = detector.detect(crop)
            found += any(np.abs(face.landmarks - wanted).max() < NEAR * side for face in faces)
    return found / len(crops)
