"""Identification, 1:N: who of the enrolled people a face is, and whether it is any of them at all.

A person is the normalised mean of the embeddings of their enrolled photos, as in the gallery of a
board; a face is compared with everybody, and the best match counts. In the closed set every face is of
somebody enrolled; in the open set strangers come too, and the figures are those of ISO/IEC 19795-1 and
of IJB-C: the false positive identification rate (FPIR), the share of strangers' faces given a name, and
the detection and identification rate (DIR), the share of enrolled people's faces given the right one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..board.threshold import score_threshold
from ..errors import FacetpuError
from ..metrics import threshold_at_far

RANKS = 5
FPIR = ("0.01", "0.1")
GRID = 60  # points of the curve, even in the logarithm of the FPIR

Spread = Sequence[float]  # mean and standard deviation over the draws


class Rates(NamedTuple):
    """The figures with one number of enrolled photos a person, each as (mean, deviation) over the draws.

    Attributes:
        photos: enrolled a person.
        ranks: share of faces whose person is among the best 1, 2 ... 5 of the enrolled: the CMC.
        dir: DIR by FPIR, at the thresholds that let exactly so many of the strangers pass.
        threshold: for ``false_accepts`` of the strangers, set on the faces of one half of them.
        true_accept: enrolled people's faces given the right name at that threshold.
        misnamed: enrolled people's faces given another's name at it.
        false_accept: faces of the other half of the strangers given a name at it.
    """

    photos: int
    ranks: list[Spread]
    dir: dict[str, Spread] | None = None
    threshold: Spread | None = None
    true_accept: Spread | None = None
    misnamed: Spread | None = None
    false_accept: Spread | None = None


class Person(NamedTuple):
    """How one enrolled person fared, over all draws with the most photos."""

    name: str
    faces: int
    right: int  # best match is their own
    taken_for: str | None  # whom they are mistaken for most
    times: int


class Identification(NamedTuple):
    """Identification of the faces of enrolled people and of strangers.

    Attributes:
        enrolled: people enrolled.
        strangers: people who are not.
        stranger_faces: their faces.
        repeats: draws of the enrolled photos.
        false_accepts: the share of strangers that the thresholds were set for.
        rates: one for each number of enrolled photos, rising.
        curve: FPIR, mean DIR and its deviation along the curve, with the most photos enrolled.
        people: each enrolled person, the worst first.
    """

    enrolled: int
    strangers: int
    stranger_faces: int
    repeats: int
    false_accepts: float
    rates: list[Rates]
    curve: dict[str, list[float]] | None
    people: list[Person]

    @classmethod
    def from_document(cls, document: dict) -> Identification:
        """What ``_asdict`` gave, back from JSON."""
        fields = dict(document)
        fields["rates"] = [Rates(*rates) for rates in fields["rates"]]
        fields["people"] = [Person(*person) for person in fields["people"]]
        return cls(**fields)

    def __str__(self) -> str:
        head = f"  identification   {self.enrolled:,} people enrolled, {self.repeats} draws"
        if self.strangers:
            head += f"; {self.stranger_faces:,} faces of {self.strangers:,} strangers"
        return "\n".join([head, *("    " + line for rates in self.rates for line in self._lines(rates))])

    def _lines(self, rates: Rates) -> list[str]:
        plural = "photos" if rates.photos > 1 else "photo"
        lines = [f"{rates.photos} {plural} each: rank-1 {share(rates.ranks[0])}"]
        lines[0] += f", rank-{len(rates.ranks)} {share(rates.ranks[-1])}"
        if rates.dir is not None:
            lines += [f"  DIR at FPIR {float(fpir):.0%}: {share(rate)}" for fpir, rate in rates.dir.items()]
            lines.append(
                f"  at a threshold for {self.false_accepts:.0%} of strangers: {share(rates.true_accept)} "
                f"right, {share(rates.misnamed)} misnamed, {share(rates.false_accept)} of strangers accepted"
            )
        return lines


def share(spread: Spread | None) -> str:
    """A mean and its deviation in per cent."""
    return "-" if spread is None else f"{spread[0]:.1%} ± {100 * spread[1]:.1f}"


def identify_draws(
    embeddings: np.ndarray,
    people: np.ndarray,
    names: Sequence[str],
    enrolled: np.ndarray,
    strangers: np.ndarray,
    photos: Sequence[int],
    repeats: int,
    false_accepts: float = 0.01,
    seed: int = 0,
) -> Identification:
    """Enrol people with some of their photos, drawn anew ``repeats`` times, and identify all the rest.

    Args:
        embeddings: float32 [N,D], L2-normalised.
        people: int [N], whose each is.
        names: by number of the person.
        enrolled: int [P], the people to enrol.
        strangers: int [S], the people who come without being enrolled; may be empty.
        photos: how many photos of each to enrol, one or more numbers.
        repeats: draws.
        false_accepts: share of strangers that the threshold may let through, in (0, 1).
        seed: of the draws.

    Raises:
        FacetpuError: nobody is enrolled, or somebody has no photo left to identify.
    """
    owned = [np.flatnonzero(people == person) for person in enrolled]
    if not owned:
        raise FacetpuError(
            f"nobody has more than {max(photos)} photos, so nobody can be enrolled; enrol fewer a person"
        )
    for person, crops in zip(enrolled, owned, strict=True):
        if len(crops) <= max(photos):
            raise FacetpuError(
                f"{names[person]} has {len(crops)} photos, and enrolling {max(photos)} takes "
                f"{max(photos) + 1} or more; add photos, enrol fewer, or leave them out of the list"
            )
    unknown = np.flatnonzero(np.isin(people, strangers))
    rates: list[Rates] = []
    for count in sorted(set(photos)):
        rng = np.random.default_rng([seed, count])
        draws = [
            _identify(embeddings, people, owned, unknown, count, false_accepts, rng) for _ in range(repeats)
        ]
        rates.append(_rates(count, draws))
    return Identification(
        enrolled=len(owned),
        strangers=len(strangers),
        stranger_faces=len(unknown),
        repeats=repeats,
        false_accepts=false_accepts,
        rates=rates,
        curve=_curve(draws) if len(unknown) else None,
        people=_people(draws, names, enrolled),
    )


def person_vectors(embeddings: np.ndarray, groups: Sequence[np.ndarray]) -> np.ndarray:
    """The normalised mean of each group of rows: float32 [P,D]."""
    sums = np.stack([embeddings[rows].sum(axis=0) for rows in groups])
    return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)


def ranks_of(scores: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """The rank of each probe's own person, from 1; a tie counts against it.

    Args:
        scores: float [Q,P], of each probe with each person.
        owner: int [Q], the column of its person.
    """
    own = scores[np.arange(len(scores)), owner]
    return np.sum(scores >= own[:, None], axis=1)


class _Draw(NamedTuple):
    """One draw: the best score of each probe and of each stranger, and what follows from them."""

    owner: np.ndarray
    best: np.ndarray
    ranks: np.ndarray
    scores: np.ndarray
    strangers: np.ndarray
    judged: tuple[float, float, float, float] | None


def _identify(
    embeddings: np.ndarray,
    people: np.ndarray,
    owned: Sequence[np.ndarray],
    unknown: np.ndarray,
    count: int,
    false_accepts: float,
    rng: np.random.Generator,
) -> _Draw:
    shuffled = [rng.permutation(crops) for crops in owned]
    gallery = person_vectors(embeddings, [crops[:count] for crops in shuffled])
    probes = np.concatenate([crops[count:] for crops in shuffled])
    owner = np.repeat(np.arange(len(owned)), [len(crops) - count for crops in shuffled])
    scores = embeddings[probes] @ gallery.T
    best, top = scores.argmax(axis=1), scores.max(axis=1)
    strangers = (embeddings[unknown] @ gallery.T).max(axis=1)
    judged = None
    known_strangers = np.unique(people[unknown])
    if len(known_strangers) > 1:
        half = rng.permutation(known_strangers)[: len(known_strangers) // 2]
        calibration = np.isin(people[unknown], half)
        threshold = score_threshold(strangers[calibration], false_accepts)
        accepted, right = top >= threshold, best == owner
        judged = (
            threshold,
            float(np.mean(accepted & right)),
            float(np.mean(accepted & ~right)),
            float(np.mean(strangers[~calibration] >= threshold)),
        )
    return _Draw(owner, best, ranks_of(scores, owner), top, strangers, judged)


def _detected(draw: _Draw, fpir: float) -> float:
    """DIR at the lowest threshold that gives at most the share ``fpir`` of the strangers a name."""
    threshold = threshold_at_far(draw.strangers, fpir)
    return float(np.mean((draw.scores >= threshold) & (draw.best == draw.owner)))


def _rates(count: int, draws: list[_Draw]) -> Rates:
    ranks = [_spread([float(np.mean(draw.ranks <= rank)) for draw in draws]) for rank in range(1, RANKS + 1)]
    if not len(draws[0].strangers):
        return Rates(count, ranks)
    dirs = {fpir: _spread([_detected(draw, float(fpir)) for draw in draws]) for fpir in FPIR}
    judged = [draw.judged for draw in draws if draw.judged is not None]
    return Rates(count, ranks, dirs, *(_spread(list(values)) for values in zip(*judged, strict=True)))


def _curve(draws: list[_Draw]) -> dict[str, list[float]]:
    grid = np.geomspace(1 / len(draws[0].strangers), 1, GRID)
    rates = np.array([[_detected(draw, fpir) for fpir in grid] for draw in draws])
    columns = {"fpir": grid, "dir": rates.mean(axis=0), "std": rates.std(axis=0)}
    return {name: values.tolist() for name, values in columns.items()}


def _people(draws: list[_Draw], names: Sequence[str], enrolled: np.ndarray) -> list[Person]:
    size = len(enrolled)
    confusion = np.zeros((size, size), int)
    for draw in draws:
        np.add.at(confusion, (draw.owner, draw.best), 1)
    right, faces = confusion.diagonal().copy(), confusion.sum(axis=1)
    np.fill_diagonal(confusion, 0)
    mistaken, times = confusion.argmax(axis=1), confusion.max(axis=1)
    order = sorted(range(size), key=lambda row: (right[row] / faces[row], row))
    return [
        Person(
            names[enrolled[row]],
            int(faces[row]),
            int(right[row]),
            names[enrolled[mistaken[row]]] if times[row] else None,
            int(times[row]),
        )
        for row in order
    ]


def _spread(values: list[float]) -> Spread:
    return (float(np.mean(values)), float(np.std(values)))
