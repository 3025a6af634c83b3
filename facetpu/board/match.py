"""Who is nearest: embeddings against everybody that a gallery knows."""

from __future__ import annotations

import numpy as np

from .gallery import NOBODY_NEAR, Gallery, Match


class Matcher:
    """A gallery made ready to be asked again and again."""

    def __init__(self, gallery: Gallery) -> None:
        """Take the people's vectors out of ``gallery``."""
        self._people = gallery.people
        self._vectors = np.ascontiguousarray(gallery.vectors())

    def __call__(self, embeddings: np.ndarray) -> list[Match]:
        """The nearest and second nearest person of each of ``embeddings``, float32 [n, D] of length 1."""
        # One thread is enough, and einsum takes no more: on a busy machine BLAS waits 8 ms for its others.
        return [self._nearest(np.einsum("pd,d->p", self._vectors, embedding)) for embedding in embeddings]

    def _nearest(self, cosines: np.ndarray) -> Match:
        if not len(cosines):
            return Match(None, NOBODY_NEAR, None, None)
        best = int(cosines.argmax())
        cosine = float(cosines[best])
        if len(cosines) == 1:
            return Match(self._people[best], cosine, None, None)
        cosines[best] = -np.inf
        second = int(cosines.argmax())
        return Match(self._people[best], cosine, self._people[second], float(cosines[second]))
