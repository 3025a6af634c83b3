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
    found = np.full(len(prints), -1)
    for index in range(len(prints)):
        place = len(old) + index
        # A difference of bits that are -1 or 1 is counted by their product.
        differing = (bits.shape[1] - bits[:place] @ bits[place]) / 2
        same = np.flatnonzero((differing <= SAME_PICTURE) & known[:place])
        if known[place] and len(same):
            found[index] = same[0]
    return found


def likeness_faults(
    gallery: Gallery, new: np.ndarray, threshold: float, cohort: Cohort | None
) -> dict[int, Fault]:
    """The new photos of ``gallery`` that are probably not their person's, and why.

    A photo looks like someone else when its cosine to them reaches the gallery's threshold and exceeds
    that to its own person's other photos. It is an outlier when it is no nearer to these than 1 in 100
    strangers are. A person's photos are judged only where the model recognises half of them by the
    others, and nobody's where it does not recognise half of all: it then cannot tell.

    Measured on 5 photos each of 153 people of LFW with a wrong one put among them, by MobileFaceNet: 95%
    of the wrong ones are refused, all where they show someone else enrolled, and none of the right ones.

    Args:
        gallery: everyone, with the photos in question among them.
        new: their indices.
        threshold: the cosine from which a face is somebody's.
        cohort: faces of strangers; without any there are no outliers.
    """
    own, vectors = genuine_scores(gallery), gallery.vectors()
    counts = np.bincount(gallery.person, minlength=len(gallery.people))
    limits = _stranger_limits(vectors, cohort)
    typical = {person: float(np.median(own[gallery.person == person])) for person in set(gallery.person[new])}
    faults: dict[int, Fault] = {}
    if np.nanmedian(np.append(own, 1)) < threshold:
        return faults
    for index in new:
        person, score = int(gallery.person[index]), own[index]
        if typical[person] < threshold:
            continue
        cosines = vectors @ gallery.embeddings[index]
        cosines[person] = -1
        if counts[person] > 1:
            cosines[counts == 1] = -1  # one photo is no witness against several: it may be the wrong one
        nearest = int(cosines.argmax())
        if cosines[nearest] >= threshold and not score >= cosines[nearest]:
            name = gallery.people[nearest]
            text = f"looks like {name} (cosine {cosines[nearest]:.2f}); whose is it?"
            faults[int(index)] = Fault("someone else", text)
        elif score < limits[person]:
            name = gallery.people[person]
            text = f"is unlike the others of {name} (cosine {score:.2f}); is it them?"
            faults[int(index)] = Fault("outlier", text)
    return faults


def _stranger_limits(vectors: np.ndarray, cohort: Cohort | None) -> np.ndarray:
    """Float [P]: the cosine to each person that only the nearest strangers reach."""
    if cohort is None or not len(cohort.embeddings):
        return np.full(len(vectors), -1.0)
    limits = [np.quantile(cohort.embeddings @ vector, STRANGERS_BELOW) for vector in vectors]
    return np.array(limits)


def _area(face: Face) -> float:
    x1, y1, x2, y2 = face.box
    return (x2 - x1) * (y2 - y1)
