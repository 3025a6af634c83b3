"""What is told of an enrolment: of everyone in the gallery, and of every photo that was given."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .gallery import Gallery
from .intake import Candidate
from .threshold import genuine_scores

log = logging.getLogger(__name__)


class Remark(NamedTuple):
    """Something to know about a photo.

    Attributes:
        photo: which, named relative to the folder of people.
        kinds: of faults, a word or two each.
        text: what to tell of it.
    """

    photo: str
    kinds: list[str]
    text: str


class Enrolled(NamedTuple):
    """A person.

    Attributes:
        name: theirs.
        photos: in the gallery now.
        added: how many of them are new.
        refused: those that were not taken, and why.
        remarks: what speaks against those that were taken all the same.
    """

    name: str
    photos: int
    added: int
    refused: list[Remark]
    remarks: list[Remark]


class ImprintResult(NamedTuple):
    """The imprinted folder and whom it knows.

    Attributes:
        out: the folder.
        people: everyone in its gallery, those enrolled before included.
        threshold: cosine from which a face is known.
        threshold_source: where that is from, in words.
        left_out: photos of people who have others, each matched as if it were not in the gallery.
        recognised: how many of them reach the threshold.
        kept_photos: photos that the folder keeps.
    """

    out: Path
    people: list[Enrolled]
    threshold: float
    threshold_source: str
    left_out: int
    recognised: int
    kept_photos: int

    def __str__(self) -> str:
        lines = []
        for person in self.people:
            lines.append(f"{person.name}: {person.photos} photos, {person.added} of them new")
            lines += [f"  refused {remark.photo}: {remark.text}" for remark in person.refused]
            lines += [f"  {remark.photo}: {remark.text}" for remark in person.remarks]
        lines.append(f"threshold {self.threshold:.3f}: {self.threshold_source}")
        if self.left_out:
            lines.append(
                f"{self.recognised} of {self.left_out} photos are recognised by their person's others"
            )
        if self.kept_photos:
            lines.append(f"{self.kept_photos} photos are kept in it")
        lines.append(f"{self.out} knows {len(self.people)} people")
        return "\n".join(lines)


def summary(
    out: Path,
    gallery: Gallery,
    candidates: list[Candidate],
    taken: list[Candidate],
    source: str,
    kept: int,
) -> ImprintResult:
    """What to tell of everyone in ``gallery``, those enrolled before included.

    Args:
        out: the imprinted folder.
        gallery: everyone.
        candidates: the photos that were given.
        taken: those of them that are in the gallery.
        source: of the threshold, in words.
        kept: photos that the folder keeps.
    """
    told = enrolled_people(gallery, candidates, taken)
    for person in told:
        if person.photos == 1:
            log.warning("%s: one photo only; five to ten make a surer model", person.name)
    scores = genuine_scores(gallery)
    left_out = scores[np.isfinite(scores)]
    recognised = int((left_out >= gallery.threshold).sum())
    if recognised < len(left_out) / 2:
        log.warning(
            "only %d of %d photos are recognised by their person's others: enrol more photos of each, let "
            "more strangers pass with --false-accepts, or train the model longer",
            recognised,
            len(left_out),
        )
    return ImprintResult(out, told, gallery.threshold, source, len(left_out), recognised, kept)


def enrolled_people(gallery: Gallery, candidates: list[Candidate], taken: list[Candidate]) -> list[Enrolled]:
    """Everyone in ``gallery``, with what became of the ``candidates``, of which ``taken`` are in it."""
    counts = np.bincount(gallery.person, minlength=len(gallery.people))
    accepted = {candidate.photo for candidate in taken}
    told: dict[str, Enrolled] = {
        name: Enrolled(name, int(count), 0, [], []) for name, count in zip(gallery.people, counts)
    }
    for candidate in candidates:
        person = told[candidate.name]
        said = remark(candidate)
        if candidate.look is None or candidate.photo not in accepted:
            person.refused.append(said)
            continue
        told[candidate.name] = person._replace(added=person.added + 1)
        if candidate.look.faces > 1 and not candidate.faults:
            said = said._replace(text=f"shows {candidate.look.faces} faces; the main one is taken")
        if said.text:
            person.remarks.append(said)
    return list(told.values())


def remark(candidate: Candidate) -> Remark:
    """All that speaks against a photo."""
    kinds = [fault.kind for fault in candidate.faults]
    return Remark(candidate.photo, kinds, "; ".join(fault.text for fault in candidate.faults))
