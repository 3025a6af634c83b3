"""What speaks against enrolling a photo: its picture, and whom it is like.

Whoever is asked can be wrong, so each fault can be overruled; the limits are such that photos which the
model could use are seldom refused.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..image import Face
from ..quality import (
    BLURRED,
    BRIGHT,
    DARK,
    FLAT,
    SAME_PICTURE,
    TURNED,
    brightness,
    contrast,
    fingerprint_bits,
    sharpness,
    turn,
)
from .gallery import UNKNOWN_PRINT, Gallery
from .threshold import Cohort, genuine_scores

# Faces of LFW made so small that their eyes are 10 px apart lie at a cosine of .62 to their person by
# MobileFaceNet instead of .77; at 5 px it is .26.
TINY = 24
ALIKE = 0.5  # of the main face's area: another so large may be the one that was meant
_BLOCK = 1024  # photos that are compared with all others at once, to bound the memory
STRANGERS_BELOW = 0.99  # of strangers' faces lie below the cosine from which a photo may be the person's


class Fault(NamedTuple):
    """What speaks against a photo: of what kind it is, in a word or two, and what to tell of it."""

    kind: str
    text: str


def picture_faults(face: Face, faces: list[Face], crop: np.ndarray) -> list[Fault]:
    """What is wrong with a photo for what it shows.

    Args:
        face: the main face.
        faces: all of the photo's, it included.
        crop: its crop by the five landmarks, uint8 [112, 112, 3].
    """
    faults = []
    alike = sum(_area(other) >= ALIKE * _area(face) for other in faces)
    if alike > 1:
        faults.append(Fault("several faces", f"shows {alike} faces of like size; cut it to one"))
    side = min(face.box[2] - face.box[0], face.box[3] - face.box[1])
    if side < TINY:
        faults.append(Fault("tiny", f"shows a face of only {side:.0f} px; take it from nearer"))
    if abs(turn(face.landmarks)) > TURNED:
        faults.append(Fault("turned away", "shows the face from the side; take it from the front"))
    light = brightness(crop)
    if light < DARK:
        faults.append(Fault("dark", "is too dark; take it with more light"))
    elif light > BRIGHT:
        faults.append(Fault("bright", "is too bright; take it with less light"))
    elif contrast(crop) < FLAT:
        faults.append(Fault("flat", "has too little contrast; wipe the lens or turn the light to the face"))
    if side >= TINY and sharpness(crop) < BLURRED:
        faults.append(Fault("blurred", "is blurred; hold still or clean the lens"))
    return faults


def copies(prints: list[int], old: list[int]) -> np.ndarray:
    """For each of ``prints``, which earlier picture it is a copy of.

    Args:
        prints: fingerprints of new photos.
        old: fingerprints of photos before them; unknown ones equal nothing.

    Returns:
        int [n]: an index into ``old + prints``, the first that is the same picture; -1 for none.
    """
    bits = fingerprint_bits([*old, *prints])
    known = np.array([number != UNKNOWN_PRINT for number in [*old, *prints]], bool)
    least = bits.shape[1] - 2 * SAME_PICTURE  # of the product of two rows that are one picture's
    found = np.full(len(prints), -1)
    for start in range(0, len(prints), _BLOCK):
        places = np.arange(len(old) + start, min(len(old) + start + _BLOCK, len(bits)))
        same = bits[places] @ bits[: places[-1] + 1].T >= least
        same &= known[: places[-1] + 1] & known[places, None]
        same &= np.arange(places[-1] + 1) < places[:, None]
        found[places - len(old)] = np.where(same.any(axis=1), same.argmax(axis=1), -1)
    return found


def likeness_faults(
    gallery: Gallery, new: np.ndarray, threshold: float, cohort: Cohort | None
) -> dict[int, Fault]:
    """The new photos of ``gallery`` that are probably not their person's, and why.

    A photo looks like someone else when its cosine to them reaches the gallery's threshold and exceeds
    that to its own person's other photos. It is an outlier when it is no nearer to these than 1 in 100
    strangers are. A person's photos are judged only where the model recognises half of them by the
    others and these are nearer than such strangers, and nobody's where it does not recognise half of all:
    it then cannot tell.

    Measured on 5 photos each of 153 people of LFW, a wrong one put among those of every one of them, by
    MobileFaceNet, at thresholds for 0.1% to 5% of strangers: 98% and more of the strangers' photos are
    refused, 99% and more of those of someone else enrolled, and 0.07% of the right ones
    (``scripts/wrong_photos.py``).

    Args:
        gallery: everyone, with the photos in question among them.
        new: their indices.
        threshold: the cosine from which a face is somebody's.
        cohort: faces of strangers; without any there are no outliers.
    """
    own, vectors = genuine_scores(gallery), gallery.vectors()
    if np.nanmedian(np.append(own, 1)) < threshold:
        return {}
    person = gallery.person[new]
    others, cosines = _nearest_others(gallery, vectors, new)
    limits = _stranger_limits(vectors, cohort)
    together = (_typical_scores(gallery, own) >= np.maximum(threshold, limits))[person]
    with np.errstate(invalid="ignore"):  # the only photo of a person has no score
        elses = (cosines >= threshold) & ~(own[new] >= cosines)
        outliers = own[new] < limits[person]
    faults: dict[int, Fault] = {}
    for place in np.flatnonzero(together & (elses | outliers)):
        index = int(new[place])
        if elses[place]:
            other = gallery.people[others[place]]
            text = f"looks like {other} (cosine {cosines[place]:.2f}); whose is it?"
            faults[index] = Fault("someone else", text)
        else:
            name = gallery.people[person[place]]
            text = f"is unlike the others of {name} (cosine {own[index]:.2f}); is it them?"
            faults[index] = Fault("outlier", text)
    return faults


def _nearest_others(gallery: Gallery, vectors: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Who but their own person is nearest to each new photo, int [n], and the cosines, float32 [n].

    One photo is no witness against several: whose it is may be what is wrong. It counts beside another
    single one only.
    """
    counts = np.bincount(gallery.person, minlength=len(gallery.people))
    nearest, cosines = np.zeros(len(new), int), np.zeros(len(new), np.float32)
    for start in range(0, len(new), _BLOCK):
        block = new[start : start + _BLOCK]
        person = gallery.person[block]
        found = gallery.embeddings[block] @ vectors.T
        found[(counts[person] > 1)[:, None] & (counts == 1)] = -1
        found[np.arange(len(block)), person] = -1
        nearest[start : start + _BLOCK] = found.argmax(axis=1)
        cosines[start : start + _BLOCK] = found.max(axis=1)
    return nearest, cosines


def _typical_scores(gallery: Gallery, own: np.ndarray) -> np.ndarray:
    """The median of each person's scores ``own`` [n], float [P]; 1 for a person of one photo."""
    order = np.argsort(gallery.person, kind="stable")
    ends = np.cumsum(np.bincount(gallery.person, minlength=len(gallery.people)))[:-1]
    medians = np.array([np.median(scores) for scores in np.split(own[order], ends)])
    return np.where(np.isnan(medians), 1, medians)


def _stranger_limits(vectors: np.ndarray, cohort: Cohort | None) -> np.ndarray:
    """The cosine to each person that only the nearest strangers reach, float [P]."""
    if cohort is None or not len(cohort.embeddings):
        return np.full(len(vectors), -1.0)
    return np.quantile(cohort.embeddings @ vectors.T, STRANGERS_BELOW, axis=0)


def _area(face: Face) -> float:
    x1, y1, x2, y2 = face.box
    return (x2 - x1) * (y2 - y1)
