"""Whether a person is better known by the mean of their embeddings or by several prototypes.

Run: facetpu embed MODEL CROPS faces.npz && python scripts/compare_prototypes.py faces.npz --photos 5

People with more photos than asked are enrolled with that many, drawn anew each time; the rest of their photos
are to be named, and everybody else's are strangers. The share of photos named rightly is given at the
thresholds that 1% and 10% of the strangers reach.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from facetpu.board.gallery import normalised
from facetpu.evaluation.embeddings import Embeddings, read_embeddings

ROUNDS = 10  # of k-means, which has settled long before


def prototypes(photos: np.ndarray, count: int) -> np.ndarray:
    """Up to ``count`` unit vectors for the unit vectors ``photos`` [n, D]: 1 is their mean, 0 is all of them.

    Spherical k-means from the photo nearest to the mean and, one by one, the photo farthest from those taken.
    """
    if count == 0 or count >= len(photos) > 1:
        return photos
    centres = normalised(photos.sum(axis=0, keepdims=True))
    if count == 1:
        return centres
    centres = photos[(photos @ centres[0]).argmax()][None]
    while len(centres) < count:
        centres = np.vstack([centres, photos[(photos @ centres.T).max(axis=1).argmin()]])
    for _ in range(ROUNDS):
        nearest = (photos @ centres.T).argmax(axis=1)
        sums = [photos[nearest == index].sum(axis=0) for index in range(count)]
        centres = np.array(
            [normalised(total) if total.any() else old for total, old in zip(sums, centres, strict=True)]
        )
    return centres


def person_scores(faces: np.ndarray, people: list[np.ndarray], count: int) -> np.ndarray:
    """Float32 [n, P]: the cosine of each face to each person's best prototype."""
    rows = [prototypes(photos, count) for photos in people]
    starts = np.cumsum([0, *map(len, rows)])[:-1]
    return np.maximum.reduceat(faces @ np.vstack(rows).T, starts, axis=1)


def people_of(faces: Embeddings) -> np.ndarray:
    """Whose each crop is: its folder's name."""
    return np.array([Path(crop).parent.name for crop in faces.crops])


def read_arguments(text: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("faces", type=Path, help="a file of facetpu embed")
    parser.add_argument("--photos", type=int, default=5, help="enrolled of each person")
    parser.add_argument("--draws", type=int, default=10)
    return parser.parse_args()


def main() -> None:
    asked = read_arguments(__doc__)
    faces = read_embeddings(asked.faces)
    embeddings, owners = faces.rows, people_of(faces)
    names, counts = np.unique(owners, return_counts=True)
    names = names[counts > asked.photos]
    strangers = embeddings[~np.isin(owners, names)]
    found: dict[int, list[list[float]]] = {count: [] for count in (1, 2, 3, 0)}
    for draw in range(asked.draws):
        rng = np.random.default_rng(draw)
        orders = [rng.permutation(np.flatnonzero(owners == name)) for name in names]
        enrolled = [embeddings[order[: asked.photos]] for order in orders]
        probes = embeddings[np.concatenate([order[asked.photos :] for order in orders])]
        truth = np.repeat(np.arange(len(names)), [len(order) - asked.photos for order in orders])
        for count, shares in found.items():
            scores = person_scores(probes, enrolled, count)
            best = np.sort(person_scores(strangers, enrolled, count).max(axis=1))[::-1]
            right = scores.argmax(axis=1) == truth
            limits = [best[int(share * len(best))] for share in (0.01, 0.1)]
            shares.append([float((right & (scores.max(axis=1) > limit)).mean()) for limit in limits])
    print(f"{len(names)} people, {asked.photos} photos each; {len(strangers)} faces of strangers")
    for count, shares in found.items():
        name = {1: "mean", 0: "every photo"}.get(count, f"{count} prototypes")
        (low, high), (low_std, high_std) = np.mean(shares, axis=0), np.std(shares, axis=0)
        print(f"{name:13} 1%: {low:.4f} ± {low_std:.4f}   10%: {high:.4f} ± {high_std:.4f}")


if __name__ == "__main__":
    main()
