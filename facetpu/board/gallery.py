"""The gallery: the people a model knows, as the embeddings of their photos, in one file beside it.

The rows of the model are made from it and never read back, so that they do not drift; a person is
their embeddings' mean, and what is further from everyone than ``threshold`` is a stranger.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..artefacts import new_file
from ..errors import FacetpuError

VERSION = 1


class Match(NamedTuple):
    """Who is nearest to a face, and how near; the second nearest tells how sure that is."""

    name: str
    cosine: float
    second: str | None
    second_cosine: float | None


class Gallery(NamedTuple):
    """n photos of P people, D numbers a photo.

    Attributes:
        people: names, by class id of the model.
        person: int32 [n], the class id of each photo.
        embeddings: float32 [n, D], L2-normalised in float: what cosines are taken between.
        imprints: float32 [n, D], the same embeddings as the model's own quantised L2 norm gives them:
            what Coral's engine is trained with.
        photos: SHA-256 of each photo's file.
        base: SHA-256 of the base model that gave the embeddings.
        alignment: template, size and margin of the crops.
        threshold: cosine to a person from which a face is theirs.
        false_accepts: share of strangers that the threshold lets through.
    """

    people: list[str]
    person: np.ndarray
    embeddings: np.ndarray
    imprints: np.ndarray
    photos: list[str]
    base: str
    alignment: dict[str, object]
    threshold: float
    false_accepts: float

    def vectors(self) -> np.ndarray:
        """float32 [P, D]: the normalised mean of each person's embeddings."""
        sums = np.zeros((len(self.people), self.embeddings.shape[1]), np.float32)
        np.add.at(sums, self.person, self.embeddings)
        return normalised(sums)

    def match(self, embeddings: np.ndarray) -> list[Match]:
        """The nearest and second nearest person of each embedding.

        Args:
            embeddings: float32 [m, D], L2-normalised.
        """
        cosines = embeddings @ self.vectors().T
        matches = []
        for row in cosines:
            order = np.argsort(-row, kind="stable")[:2]
            best = int(order[0])
            second = int(order[1]) if len(order) > 1 else None
            matches.append(
                Match(
                    self.people[best],
                    float(row[best]),
                    None if second is None else self.people[second],
                    None if second is None else float(row[second]),
                )
            )
        return matches

    def without(self, name: str) -> Gallery:
        """The gallery with nothing left of ``name``; later people move up one class id."""
        gone = self.people.index(name)
        kept = self.person != gone
        return self._replace(
            people=[other for other in self.people if other != name],
            person=np.where(self.person > gone, self.person - 1, self.person)[kept].astype(np.int32),
            embeddings=self.embeddings[kept],
            imprints=self.imprints[kept],
            photos=[photo for photo, keep in zip(self.photos, kept) if keep],
        )

    def renamed(self, name: str, new_name: str) -> Gallery:
        """The gallery with ``name`` called ``new_name``, at the same class id."""
        return self._replace(people=[new_name if other == name else other for other in self.people])


def empty_gallery(dim: int, base: str, alignment: dict[str, object]) -> Gallery:
    """A gallery of nobody, whose threshold no face reaches."""
    none = np.zeros((0, dim), np.float32)
    return Gallery(
        [], np.zeros(0, np.int32), none, none, [], base, alignment, threshold=2.0, false_accepts=0.0
    )


def normalised(vectors: np.ndarray) -> np.ndarray:
    """``vectors`` [..., D] scaled to length 1 in float32; a zero vector stays zero."""
    vectors = np.asarray(vectors, np.float32)
    norms = np.sqrt(np.sum(vectors * vectors, axis=-1, keepdims=True))
    return vectors / np.maximum(norms, np.float32(1e-12))


def write_gallery(path: Path, gallery: Gallery) -> None:
    """Write ``gallery`` to ``path`` atomically, readable by its owner only."""
    settings = {
        "version": VERSION,
        "people": gallery.people,
        "photos": gallery.photos,
        "base": gallery.base,
        "alignment": gallery.alignment,
        "threshold": gallery.threshold,
        "false_accepts": gallery.false_accepts,
    }
    with new_file(path, overwrite=True, mode=0o600) as temporary:
        descriptor = os.open(str(temporary), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            np.savez(
                file,
                settings=np.array(json.dumps(settings, sort_keys=True)),
                person=gallery.person.astype(np.int32),
                embeddings=gallery.embeddings.astype(np.float32),
                imprints=gallery.imprints.astype(np.float32),
            )


def read_gallery(path: Path) -> Gallery:
    """The gallery at ``path``.

    Raises:
        FacetpuError: there is none, it is damaged, or a later facetpu wrote it.
    """
    if not Path(path).is_file():
        raise FacetpuError(f"{path}: no such file; enrol people with facetpu imprint")
    advice = "enrol the people again"
    arrays = read_arrays(path, ("settings", "person", "embeddings", "imprints"), advice)
    try:
        settings = json.loads(str(arrays.pop("settings")))
        if settings.pop("version") > VERSION:
            raise FacetpuError(f"{path}: was written by a later facetpu; update this one")
        settings.update(arrays)
        gallery = Gallery(**settings)
        _check(gallery)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FacetpuError(f"{path}: is damaged ({error}); {advice}") from None
    return gallery


def read_arrays(path: Path, names: tuple[str, ...], advice: str) -> dict[str, np.ndarray]:
    """The arrays called ``names`` in the .npz file ``path``, never unpickled.

    Raises:
        FacetpuError: the file is damaged or lacks one; the message ends with ``advice``.
    """
    content = io.BytesIO(Path(path).read_bytes())
    try:
        with np.load(content, allow_pickle=False) as archive:
            return {name: archive[name] for name in names}
    except Exception as error:  # NumPy and zipfile meet damaged bytes with errors of every kind.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FacetpuError(f"{path}: is damaged ({reason}); {advice}") from None


def _check(gallery: Gallery) -> None:
    """Refuse a gallery whose parts disagree.

    Raises:
        ValueError: they do.
    """
    photos = len(gallery.photos)
    if gallery.embeddings.ndim != 2 or gallery.embeddings.dtype != np.float32:
        raise ValueError("its embeddings are no float32 matrix")
    if gallery.imprints.shape != gallery.embeddings.shape or gallery.imprints.dtype != np.float32:
        raise ValueError("its imprints do not fit its embeddings")
    if gallery.person.shape != (photos,) or gallery.embeddings.shape[0] != photos:
        raise ValueError("it has other than one embedding a photo")
    if sorted(set(gallery.person.tolist())) != list(range(len(gallery.people))):
        raise ValueError("a person has no photo, or a photo has no person")
    if not np.isfinite(gallery.embeddings).all() or not np.isfinite(gallery.imprints).all():
        raise ValueError("it holds numbers that are not finite")
