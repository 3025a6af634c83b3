"""From which cosine on a face is somebody's: the threshold, from the faces of other people.

A face is compared with everyone in the gallery and the best match counts, so the more people are
enrolled, the nearer a stranger comes to somebody. Hence the threshold belongs to the gallery: each
face of a cohort of strangers is matched against it, and the threshold is the cosine that only the
asked share of them reaches.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..artefacts import new_file
from ..errors import FacetpuError
from .gallery import Gallery, normalised, read_arrays, sums_of

log = logging.getLogger(__name__)

SMALLEST_COHORT = 10  # with fewer faces nothing can be said about one in a hundred strangers
OUT_OF_REACH = 2.0  # a threshold of no face
_BLOCK = 4096  # photos that are compared with the cohort at once, to bound the memory
SAME_PHOTO = 0.9995  # one photo on two runtimes; look-alikes come up to .997 in a barely trained model


class Cohort(NamedTuple):
    """Faces of people who are to be strangers.

    Attributes:
        embeddings: float32 [n, D], L2-normalised.
        people: int32 [n], whose face each is.
    """

    embeddings: np.ndarray
    people: np.ndarray


class Threshold(NamedTuple):
    """A cosine, and in words where it is from."""

    cosine: float
    source: str


def read_cohort(path: Path, dim: int) -> Cohort:
    """The cohort in ``path``, in embeddings of ``dim`` numbers.

    Raises:
        FacetpuError: the file is damaged or another model's.
    """
    advice = "export the model again"
    cohort = Cohort(**read_arrays(path, ("embeddings", "people"), advice))
    if cohort.embeddings.ndim != 2 or cohort.people.shape != cohort.embeddings.shape[:1]:
        raise FacetpuError(f"{path}: is damaged (it has other than one person an embedding); {advice}")
    if cohort.embeddings.shape[1] != dim:
        raise FacetpuError(
            f"{path}: is of another model, with {cohort.embeddings.shape[1]} numbers; {advice}"
        )
    return cohort


def no_faces(gallery: Gallery) -> Cohort:
    """A cohort without a face, of the embeddings of ``gallery``."""
    return Cohort(np.zeros([0, gallery.embeddings.shape[1]], np.float32), np.zeros(0, np.int32))


def without_people(cohort: Cohort, people: list[int]) -> Cohort:
    """``cohort`` without the faces of these ``people``, who are no strangers."""
    kept = ~np.isin(cohort.people, people)
    if not kept.all():
        log.info("%d of %d cohort faces are of enrolled people: left out", (~kept).sum(), len(kept))
    return Cohort(cohort.embeddings[kept], cohort.people[kept])


def write_cohort(path: Path, cohort: Cohort) -> None:
    """Write ``cohort`` to the new file ``path``, readable by its owner only."""
    with new_file(path, mode=0o600) as temporary, open(str(temporary), "xb") as file:
        np.savez(file, embeddings=cohort.embeddings, people=cohort.people)


def gallery_threshold(
    gallery: Gallery, cohort: Cohort | None, false_accepts: float, pairs_threshold: float | None
) -> Threshold:
    """The 1:N threshold of ``gallery``.

    Args:
        gallery: the people enrolled; its own threshold is not looked at.
        cohort: faces of strangers, if there are any.
        false_accepts: share of strangers to let through, in (0, 1).
        pairs_threshold: the model's 1:1 threshold, for want of a cohort.

    Raises:
        FacetpuError: there are too few strangers and no 1:1 threshold.
    """
    if not gallery.people:
        return Threshold(OUT_OF_REACH if pairs_threshold is None else pairs_threshold, "nobody is enrolled")
    cohort = cohort or no_faces(gallery)
    strangers = strangers_among(cohort, gallery)
    scores = (strangers.embeddings @ gallery.vectors().T).max(axis=1)  # of each with the nearest person
    if len(scores) >= SMALLEST_COHORT:
        return Threshold(
            score_threshold(scores, false_accepts),
            f"{false_accepts:.2%} of {len(scores)} strangers' faces reach it",
        )
    advice = more_strangers(gallery, cohort, strangers)
    if pairs_threshold is None:
        raise FacetpuError(
            f"no threshold: {len(scores)} faces of strangers, {SMALLEST_COHORT} needed; {advice}"
        )
    log.warning(
        "the threshold is the model's for one pair of faces, since there are %d faces of strangers and %d "
        "are needed; more strangers than asked may pass: %s",
        len(scores),
        SMALLEST_COHORT,
        advice,
    )
    return Threshold(float(pairs_threshold), "the model's for one pair of faces")


def strangers_among(cohort: Cohort, gallery: Gallery) -> Cohort:
    """``cohort`` without those who are enrolled, known by a photo that is in both."""
    nearest = np.full(len(cohort.embeddings), -1, np.float32)
    for start in range(0, len(gallery.embeddings), _BLOCK):
        cosines = cohort.embeddings @ gallery.embeddings[start : start + _BLOCK].T
        nearest = np.maximum(nearest, cosines.max(axis=1))
    return without_people(cohort, cohort.people[nearest >= SAME_PHOTO].tolist())


def more_strangers(gallery: Gallery, cohort: Cohort, strangers: Cohort) -> str:
    """What to do where too few of ``cohort`` are ``strangers`` to ``gallery``, see ``strangers_among``."""
    taken, people = len(np.setdiff1d(cohort.people, strangers.people)), len(gallery.people)
    if taken > people:
        return (
            f"the model takes {taken} strangers for the {people} enrolled, so it tells no faces apart; "
            "export a better one"
        )
    return "give photos of other people with --strangers"


def score_threshold(scores: np.ndarray, false_accepts: float) -> float:
    """The cosine that at most ``false_accepts`` of the strangers' best ``scores`` [n] reach.

    With enough scores it lies between the last that may pass and the first that may not. Where not
    one may pass (n < 1 / false_accepts) the sample does not reach so far out; the tail is then that
    of a Gumbel distribution, the limit law of the maximum of many, with the sample's mean and
    standard deviation, and every score seen stays below the threshold.
    """
    ordered = np.sort(np.asarray(scores, np.float64))[::-1]
    passing = min(int(false_accepts * len(ordered) + 1e-9), len(ordered) - 1)
    if passing:
        asked = (ordered[passing - 1] + ordered[passing]) / 2
    else:
        scale = ordered.std() * math.sqrt(6) / math.pi
        location = ordered.mean() - np.euler_gamma * scale
        asked = location - scale * math.log(-math.log1p(-false_accepts))
    above_the_rest = np.nextafter(np.float32(ordered[passing]), np.float32(2))
    return float(min(max(asked, above_the_rest), 1.0))


def genuine_scores(gallery: Gallery) -> np.ndarray:
    """float32 [n]: the cosine of each photo to its person as the other photos of theirs make them.

    NaN for the only photo of a person.
    """
    sums = sums_of(gallery.embeddings, gallery.person, len(gallery.people))
    others = sums[gallery.person] - gallery.embeddings
    scores = (gallery.embeddings * normalised(others)).sum(axis=1)
    alone = np.bincount(gallery.person, minlength=len(gallery.people))[gallery.person] == 1
    scores[alone] = np.nan
    return scores
