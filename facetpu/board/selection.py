"""Which of the photos that were given are enrolled."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import numpy as np

from ..errors import FacetpuError
from .checks import Fault, copies, likeness_faults
from .gallery import Gallery
from .intake import Candidate
from .recogniser import L2Norm
from .threshold import Cohort


def judged(
    candidates: list[Candidate],
    known: Gallery,
    l2_norm: L2Norm,
    cohort: Cohort | None,
    threshold_of: Callable[[Gallery], float],
) -> list[Candidate]:
    """The candidates with the faults that only show beside the others: copies, and faces of someone else.

    Args:
        candidates: photos, with what is wrong with their pictures.
        known: whom the model knows already.
        l2_norm: of the model.
        cohort: faces of strangers.
        threshold_of: gives the threshold of a gallery.
    """
    candidates = with_copies(candidates, known)
    good = [index for index, candidate in enumerate(candidates) if candidate.good]
    if not good:
        return candidates
    gallery = enrolled(known, [candidates[index] for index in good], l2_norm)
    new = np.arange(len(known.photos), len(gallery.photos))
    faults = likeness_faults(gallery, new, threshold_of(gallery), cohort)
    for place, index in zip(new.tolist(), good):
        if place in faults:
            candidates[index] = candidates[index]._replace(faults=[faults[place]])
    return candidates


def accepted(candidates: list[Candidate], known: Gallery, accept_all: bool, root: Path) -> list[Candidate]:
    """Those of ``candidates`` that are to be enrolled.

    Args:
        candidates: photos, with all that speaks against them.
        known: whom the model knows already.
        accept_all: take those with faults too, as long as they show a face.
        root: the folder of people, for messages.

    Raises:
        FacetpuError: no photo of somebody new can be used.
    """
    taken = [c for c in candidates if (c.look is not None if accept_all else c.good)]
    present = {*known.people, *(candidate.name for candidate in taken)}
    for name in dict.fromkeys(candidate.name for candidate in candidates):
        if name not in present:
            own = [candidate for candidate in candidates if candidate.name == name]
            reasons = "; ".join(f"{candidate.photo} {candidate.faults[0].text}" for candidate in own[:3])
            way_out = "; --accept-all takes them" if any(candidate.look for candidate in own) else ""
            raise FacetpuError(f"{root / name}: no photo of {name} can be used: {reasons}{way_out}")
    return taken


def enrolled(known: Gallery, candidates: list[Candidate], l2_norm: L2Norm) -> Gallery:
    """``known`` and the candidates, all of which show a face; the people it has keep their class ids."""
    looks = [candidate.look for candidate in candidates if candidate.look is not None]
    ids = {name: index for index, name in enumerate(dict.fromkeys(c.name for c in candidates))}
    dim = known.embeddings.shape[1]
    return known.joined(
        known._replace(
            people=list(ids),
            person=np.array([ids[candidate.name] for candidate in candidates], np.int32),
            embeddings=np.array([look.embedding for look in looks], np.float32).reshape(-1, dim),
            imprints=np.array([l2_norm(look.row) for look in looks], np.float32).reshape(-1, dim),
            photos=[candidate.digest for candidate in candidates],
            prints=[look.fingerprint for look in looks],
        )
    )


def with_copies(candidates: list[Candidate], known: Gallery) -> list[Candidate]:
    """The candidates, those that are the same picture as one before them with that fault."""
    result = list(candidates)
    places = [index for index, candidate in enumerate(candidates) if candidate.look is not None]
    prints = [candidate.look.fingerprint for candidate in candidates if candidate.look is not None]
    for place, first in zip(places, copies(prints, known.prints)):
        if first < 0:
            continue
        mine = candidates[place]
        if first < len(known.prints):
            owner, which = known.people[known.person[first]], "one enrolled before"
        else:
            original = candidates[places[first - len(known.prints)]]
            owner, which = original.name, original.photo
        text = f"is the same picture as {which}"
        if owner != mine.name:
            text += f" of {owner}; whose is it?"
        result[place] = mine._replace(faults=[*mine.faults, Fault("copy", text)])
    return result
