"""Whether enrolment finds the photos that are put among the wrong person's, and takes the right ones.

Run: facetpu embed MODEL lfw_crops faces.npz && python scripts/wrong_photos.py faces.npz

People with more photos than asked are enrolled with that many, drawn anew each time, and every one of them
with a wrong photo more: first a stranger's, then that of the next of those enrolled. People of a single photo
are the strangers; half of them set the threshold, the wrong photos are of the other half.
"""

from __future__ import annotations

import sys

import numpy as np
from compare_prototypes import people_of, read_arguments

from facetpu.board.checks import likeness_faults
from facetpu.board.gallery import empty_gallery
from facetpu.board.threshold import Cohort, gallery_threshold
from facetpu.evaluation.embeddings import read_embeddings


def refused(
    embeddings: np.ndarray, photos: np.ndarray, wrong: np.ndarray, cohort: Cohort, false_accepts: float
) -> tuple[np.ndarray, np.ndarray]:
    """What is refused of each person's right photos [P, k] and of the wrong one beside them [P]; bool."""
    chosen = np.column_stack([photos, wrong])
    gallery = empty_gallery(embeddings.shape[1], "", {})._replace(
        people=[str(person) for person in range(len(chosen))],
        person=np.repeat(np.arange(len(chosen), dtype=np.int32), chosen.shape[1]),
        embeddings=embeddings[chosen.ravel()],
        photos=[str(photo) for photo in chosen.ravel()],
    )
    threshold = gallery_threshold(gallery, cohort, false_accepts, None).cosine
    faults = likeness_faults(gallery, np.arange(chosen.size), threshold, cohort)
    found = np.isin(np.arange(chosen.size), list(faults)).reshape(chosen.shape)
    return found[:, :-1], found[:, -1]


def main() -> None:
    asked = read_arguments(__doc__)
    faces = read_embeddings(asked.faces)
    _, person, counts = np.unique(people_of(faces), return_inverse=True, return_counts=True)
    known = np.flatnonzero(counts > asked.photos)
    single = np.flatnonzero(counts[person] == 1)
    if len(known) < 2 or len(single) // 2 < max(len(known), 10):
        sys.exit(
            f"{asked.faces}: {len(known)} people have more than {asked.photos} photos and {len(single)} a "
            "single one; it takes two of the former, and twice as many of the latter and 20 at least"
        )
    print(f"{len(known)} people, {asked.photos} photos each; {len(single)} strangers")
    for false_accepts in (0.001, 0.01, 0.05):
        kinds: dict[str, list[np.ndarray]] = {"strangers'": [], "others'": [], "right": []}
        for draw in range(asked.draws):
            rng = np.random.default_rng(draw)
            orders = [rng.permutation(np.flatnonzero(person == one)) for one in known]
            photos = np.array([order[: asked.photos] for order in orders])
            strangers = rng.permutation(single)
            half = len(single) // 2
            cohort = Cohort(faces.rows[strangers[:half]], np.arange(half, dtype=np.int32))
            nexts = np.roll([order[-1] for order in orders], -1)
            for kind, wrong in (("strangers'", strangers[half:][: len(known)]), ("others'", nexts)):
                right, found = refused(faces.rows, photos, wrong, cohort, false_accepts)
                kinds[kind].append(found)
                kinds["right"].append(right)
        shares = (f"{kind} {np.mean(found):.2%} of {np.size(found):,}" for kind, found in kinds.items())
        print(f"threshold for {false_accepts:.1%}: refused {', '.join(shares)}")


if __name__ == "__main__":
    main()
