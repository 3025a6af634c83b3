"""The people of the house: the imprinted folder, which is changed in place, and never half."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import Callable, Iterator

import numpy as np

from ..artefacts import BeingWritten, mend_folder
from ..board.checks import Fault
from ..board.enrolment import Enrolled, enrolled_people, remark
from ..board.folder import COHORT, GALLERY, MODEL, ModelFolder
from ..board.gallery import Gallery
from ..board.intake import Candidate
from ..board.people import change_people
from ..board.recogniser import L2Norm, read_known
from ..board.selection import enrolled, judged, with_copies
from ..board.threshold import (
    SMALLEST_COHORT,
    Cohort,
    Threshold,
    gallery_threshold,
    read_cohort,
    strangers_among,
)
from ..errors import FacetpuError, os_error
from ..labels import check_distinct, check_name
from .answers import ThresholdChoice, ThresholdState
from .refusals import Busy, Conflict, Full, Refused, Unknown

CHOICES = (0.001, 0.003, 0.01, 0.03, 0.1)
LONGEST_NAME = 80  # characters


class Roster:
    """Whom the model knows; for any thread, one change at a time.

    Attributes:
        gallery: as of the last change.
    """

    def __init__(self, model: Path) -> None:
        """Open the imprinted folder ``model``, and mend what a run that was killed left beside it.

        Raises:
            FacetpuError: it is none, or is damaged.
        """
        folder = ModelFolder.find(model)
        self._root = folder.root.resolve()
        self._folder = ModelFolder(self._root, None)
        if not (self._root / GALLERY).is_file():
            raise FacetpuError(
                f"{folder.root}: knows nobody yet; enrol people with facetpu imprint, or begin with nobody: "
                f"facetpu serve {folder.root} --new OUT"
            )
        mend_folder(self._root)
        self._changing = threading.RLock()
        self._untold = False  # there is a change that not everybody was told of
        self._l2_norm = L2Norm(folder.needed(MODEL, "facetpu export"))
        self._read_again()

    def _read_again(self) -> None:
        """Take the folder for what it is now."""
        stamp = self._stamp()
        self.gallery = read_known(self._folder)
        self._mark = stamp  # only now: what could not be read is read again

    def changed_elsewhere(self) -> bool:
        """Whether another program has changed the folder since this was asked, or a change is ``untold``.

        The gallery follows what the folder holds.

        Raises:
            FacetpuError: the folder is no longer one that can be used.
        """
        if not self._changing.acquire(blocking=False):
            return False
        try:
            self._take_over()
            changed, self._untold = self._untold, False
            return changed
        finally:
            self._changing.release()

    def untold(self) -> None:
        """Not everybody could be told of a change: ``changed_elsewhere`` is to say so."""
        self._untold = True

    def _take_over(self) -> None:
        """Take the folder for what another program has made of it, if one has."""
        if self._stamp() != self._mark:
            self._read_again()
            self._untold = True

    def _stamp(self) -> tuple[int, int, int]:
        """What tells one gallery file from the next."""
        try:
            stat = os.stat(str(self._root / GALLERY))
        except OSError:
            return (0, 0, 0)
        return (stat.st_ino, stat.st_mtime_ns, stat.st_size)

    # --- names

    def known(self, name: str) -> str:
        """``name`` as the gallery spells it.

        Raises:
            Unknown: nobody has it.
        """
        normal = proper_name(name)
        if normal not in self.gallery.people:
            raise Unknown(f"nobody is called {name!r}")
        return normal

    def checked(self, name: str) -> str:
        """``name``, of somebody who is known or could be, in its normal form.

        Raises:
            Refused: it is no name.
            Conflict: it is another's, but for how it is written.
        """
        normal = proper_name(name)
        if normal not in self.gallery.people:
            _check_distinct([*self.gallery.people, normal])
        return normal

    def owner_of(self, photo: str) -> str | None:
        """Whose the photo with this SHA-256 is; None where there is none such."""
        return self.owners().get(photo)

    def owners(self) -> dict[str, str]:
        """Whose each enrolled photo is, by its SHA-256."""
        return _owners(self.gallery)

    # --- changes

    def rename(self, name: str, new: str) -> None:
        """See ``House.rename``."""
        with self._one_change():
            old, new = self.known(name), proper_name(new)
            if new in self.gallery.people:
                raise Conflict(f"{new} is known already; choose another name, or merge the two")
            self._change(lambda gallery: gallery.renamed(old, new))

    def merge(self, name: str, into: str) -> None:
        """See ``House.merge``."""
        with self._one_change():
            gone, kept = self.known(name), self.known(into)
            if gone == kept:
                raise Conflict(f"{gone} cannot be merged into {gone}; give two names")
            self._change(lambda gallery: gallery.merged(gone, kept))

    def erase(self, name: str) -> None:
        """Leave nothing of ``name`` in the folder; it may then know nobody."""
        with self._one_change():
            gone = self.known(name)
            self._change(lambda gallery: gallery.without(gone))

    def enrol(self, name: str, candidates: list[Candidate], by: str) -> Enrolled:
        """Enrol those of ``candidates`` that nothing speaks against; without one nothing changes.

        Args:
            name: whose they are, from ``checked``.
            candidates: photos.
            by: how they came: by ``upload`` each must be like the others of its person; by ``camera`` it
                was seen that they are one person's, in poses that differ; by ``correction`` somebody has
                looked and says whose it is, whomever it is like, and whoever has had it.
        """
        with self._one_change():
            name = self.checked(name)
            known = self.gallery
            if by == "correction":
                known = _without(known, {candidate.digest for candidate in candidates})
                candidates = with_copies(candidates, known)
            else:
                candidates = _with_owners(candidates, known)
                cohort = self._cohort()

                def threshold_of(gallery: Gallery) -> float:
                    return self._found_threshold(gallery, cohort, known.false_accepts).cosine

                strangers = cohort if by == "upload" else None
                candidates = judged(candidates, known, self._l2_norm, strangers, threshold_of)
            taken = [candidate for candidate in candidates if candidate.good]
            if taken:
                given = {candidate.digest for candidate in taken}
                self._change(lambda gallery: enrolled(_without(gallery, given), taken, self._l2_norm))
                told = enrolled_people(self.gallery, candidates, taken)
            elif name in known.people:
                told = enrolled_people(known, candidates, [])
            else:
                told = [Enrolled(name, 0, 0, [remark(candidate) for candidate in candidates], [])]
            return next(person for person in told if person.name == name)

    def take_away(self, photo: str) -> str | None:
        """Forget the photo with this SHA-256; whose it was, None where there is none such.

        Somebody without another photo is forgotten with it.
        """
        with self._one_change():
            owner = self.owner_of(photo)
            if owner is not None:
                self._change(lambda gallery: _without(gallery, {photo}))
            return owner

    # --- the threshold

    def threshold(self) -> ThresholdState:
        """See ``House.threshold``."""
        with self._changing:
            gallery, cohort = self.gallery, self._cohort()
            asked = gallery.false_accepts
            found = self._found_threshold(gallery, cohort, asked)
            choices = []
            if gallery.people and _large_enough(cohort, gallery):
                cosines = [self._found_threshold(gallery, cohort, share).cosine for share in CHOICES]
                choices = [ThresholdChoice(*choice) for choice in zip(CHOICES, cosines)]
            cosine = gallery.threshold if gallery.people else None
            return ThresholdState(cosine, asked, found.source, choices)

    def set_threshold(self, false_accepts: float) -> None:
        """See ``House.set_threshold``."""
        if not 0 < false_accepts < 1:
            raise Refused(f"{false_accepts:g} is no share of strangers; give one between 0 and 1, as 0.01")
        with self._one_change():
            if not _large_enough(self._cohort(), self.gallery):
                raise Refused(
                    "the model has no faces of strangers to set a threshold by; imprint it with --strangers"
                )
            self._change(lambda gallery: gallery._replace(false_accepts=false_accepts))

    # --- how a change is made

    @contextlib.contextmanager
    def _one_change(self) -> Iterator[None]:
        """One change at a time, to what the folder holds now; what goes wrong is said as a refusal."""
        with self._changing:
            try:
                self._take_over()
                yield
            except (Unknown, Conflict, Refused, Busy, Full):
                raise
            except BeingWritten as error:
                raise Busy(str(error)) from None
            except FacetpuError as error:
                raise Refused(str(error)) from None
            except OSError as error:
                raise Full(str(os_error(error))) from None

    def _change(self, change: Callable[[Gallery], Gallery]) -> None:
        def checked(_: ModelFolder, gallery: Gallery) -> Gallery:
            changed = change(gallery)
            _check_distinct(changed.people)
            return changed

        self.gallery = change_people(self._root, checked)
        self._mark = self._stamp()

    def _cohort(self) -> Cohort | None:
        path = self._root / COHORT
        return read_cohort(path, self.gallery.embeddings.shape[1]) if path.is_file() else None

    def _found_threshold(self, gallery: Gallery, cohort: Cohort | None, false_accepts: float) -> Threshold:
        return gallery_threshold(gallery, cohort, false_accepts, self.pairs_threshold())

    def pairs_threshold(self) -> float | None:
        """The model's 1:1 threshold; None where its maker did not set one."""
        found = self._folder.manifest().get("threshold")
        return None if found is None else float(found)


def proper_name(name: str) -> str:
    """``name`` in its normal form, whether anybody has it or not.

    Raises:
        Refused: it is no name.
    """
    if len(name) > LONGEST_NAME:
        raise Refused(f"the name has {len(name)} characters; {LONGEST_NAME} are the most")
    try:
        return check_name(name, "enrolling")
    except FacetpuError as error:
        raise Refused(str(error)) from None


def _check_distinct(names: list[str]) -> None:
    try:
        check_distinct(names, "the house")
    except FacetpuError as error:
        raise Conflict(str(error)) from None


def _owners(gallery: Gallery) -> dict[str, str]:
    """Whose each photo is, by its SHA-256."""
    return {photo: gallery.people[person] for photo, person in zip(gallery.photos, gallery.person)}


def _with_owners(candidates: list[Candidate], known: Gallery) -> list[Candidate]:
    """The candidates, with a fault for those whose very file is enrolled already."""
    owners = _owners(known)
    result = []
    for candidate in candidates:
        owner = owners.get(candidate.digest)
        if owner is not None:
            whose = "" if owner == candidate.name else f", as a photo of {owner}"
            fault = Fault("known", f"is enrolled already{whose}")
            candidate = candidate._replace(look=None, faults=[fault])
        result.append(candidate)
    return result


def _without(gallery: Gallery, photos: set[str]) -> Gallery:
    """``gallery`` without the photos of these SHA-256, and without those who have no other."""
    return gallery.only(np.array([i for i, photo in enumerate(gallery.photos) if photo not in photos], int))


def _large_enough(cohort: Cohort | None, gallery: Gallery) -> bool:
    """Whether there are enough strangers to set a threshold by."""
    return cohort is not None and len(strangers_among(cohort, gallery).people) >= SMALLEST_COHORT
