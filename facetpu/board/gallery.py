"""The gallery: the people a model knows, as the embeddings of their photos, in one file beside it.

The rows of the model are made from it and never read back, so that they do not drift; a person is
their embeddings' mean, and what is further from everyone than ``threshold`` is a stranger.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Iterable, NamedTuple

import numpy as np

from ..artefacts import new_file
from ..errors import FacetpuError

VERSION = 2  # 1 had no fingerprints, and photos and settings as text
_HASH = 32  # bytes of a SHA-256 and of a fingerprint
NOBODY_NEAR = -1.0  # the least of all cosines
UNKNOWN_PRINT = 0  # the fingerprint of a photo enrolled before there were any


class Match(NamedTuple):
    """Who is nearest to a face, and how near; the second nearest tells how sure that is.

    Where nobody is enrolled nobody is near: no name and the cosine ``NOBODY_NEAR``.
    """

    name: str | None
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
        prints: fingerprint of each photo's face, see ``quality.fingerprint``.
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
    prints: list[int]

    def vectors(self) -> np.ndarray:
        """float32 [P, D]: the normalised mean of each person's embeddings."""
        return normalised(sums_of(self.embeddings, self.person, len(self.people)))

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

    def photos_of(self, name: str) -> np.ndarray:
        """The indices of the photos of ``name``, in the order they were enrolled in."""
        return np.flatnonzero(self.person == self.people.index(name))

    def without(self, name: str) -> Gallery:
        """The gallery with nothing left of ``name``; later people move up one class id."""
        gone = self.people.index(name)
        return self._kept(np.flatnonzero(self.person != gone))._without_id(gone)

    def merged(self, name: str, into: str) -> Gallery:
        """The gallery with the photos of ``name`` counted as those of ``into``, and no ``name``."""
        gone, kept = self.people.index(name), self.people.index(into)
        return self._replace(person=np.where(self.person == gone, kept, self.person))._without_id(gone)

    def renamed(self, name: str, new_name: str) -> Gallery:
        """The gallery with ``name`` called ``new_name``, at the same class id."""
        return self._replace(people=[new_name if other == name else other for other in self.people])

    def only(self, photos: np.ndarray) -> Gallery:
        """The gallery of the photos with these indices alone, and of the people who have one of them."""
        ids = np.unique(self.person[photos])
        return self._kept(photos)._replace(
            people=[self.people[class_id] for class_id in ids],
            person=np.searchsorted(ids, self.person[photos]).astype(np.int32),
        )

    def joined(self, other: Gallery) -> Gallery:
        """The gallery and the photos of ``other``; who is new comes after those who are here."""
        ids = {name: class_id for class_id, name in enumerate(self.people)}
        for name in other.people:
            ids.setdefault(name, len(ids))
        person = [ids[other.people[class_id]] for class_id in other.person]
        return self._replace(
            people=list(ids),
            person=np.append(self.person, person).astype(np.int32),
            embeddings=np.vstack([self.embeddings, other.embeddings]),
            imprints=np.vstack([self.imprints, other.imprints]),
            photos=self.photos + other.photos,
            prints=self.prints + other.prints,
        )

    def _kept(self, photos: np.ndarray) -> Gallery:
        """The gallery with the photos of these indices; who has none left is still listed."""
        return self._replace(
            person=self.person[photos],
            embeddings=self.embeddings[photos],
            imprints=self.imprints[photos],
            photos=[self.photos[index] for index in photos],
            prints=[self.prints[index] for index in photos],
        )

    def _without_id(self, gone: int) -> Gallery:
        """The gallery with the class id ``gone``, which has no photo, given to whoever comes next."""
        return self._replace(
            people=self.people[:gone] + self.people[gone + 1 :],
            person=np.where(self.person > gone, self.person - 1, self.person).astype(np.int32),
        )


def empty_gallery(dim: int, base: str, alignment: dict[str, object]) -> Gallery:
    """A gallery of nobody, whose threshold no face reaches."""
    none = np.zeros((0, dim), np.float32)
    return Gallery(
        people=[],
        person=np.zeros(0, np.int32),
        embeddings=none,
        imprints=none,
        photos=[],
        base=base,
        alignment=alignment,
        threshold=2.0,
        false_accepts=0.0,
        prints=[],
    )


def sums_of(embeddings: np.ndarray, person: np.ndarray, people: int) -> np.ndarray:
    """float32 [people, D]: the sum of each person's ``embeddings`` [n, D], of whom ``person`` [n] tells."""
    sums = np.zeros((people, embeddings.shape[1]), np.float32)
    np.add.at(sums, person, embeddings)
    return sums


def normalised(vectors: np.ndarray) -> np.ndarray:
    """``vectors`` [..., D] scaled to length 1 in float32; a zero vector stays zero."""
    vectors = np.asarray(vectors, np.float32)
    norms = np.sqrt(np.sum(vectors * vectors, axis=-1, keepdims=True))
    return vectors / np.maximum(norms, np.float32(1e-12))


def write_gallery(path: Path, gallery: Gallery, overwrite: bool = True) -> None:
    """Write ``gallery`` to ``path`` atomically, readable by its owner only.

    Raises:
        FacetpuError: ``path`` exists and ``overwrite`` is false.
    """
    settings = {
        "version": VERSION,
        "people": gallery.people,
        "base": gallery.base,
        "alignment": gallery.alignment,
        "threshold": gallery.threshold,
        "false_accepts": gallery.false_accepts,
    }
    text = json.dumps(settings, sort_keys=True).encode("utf-8")
    with new_file(path, overwrite, mode=0o600) as temporary:
        descriptor = os.open(str(temporary), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            np.savez(
                file,
                settings=np.frombuffer(text, np.uint8),
                person=gallery.person.astype(np.int32),
                embeddings=gallery.embeddings.astype(np.float32),
                imprints=gallery.imprints.astype(np.float32),
                photos=_rows_of(map(bytes.fromhex, gallery.photos)),
                prints=_rows_of(number.to_bytes(_HASH, "big") for number in gallery.prints),
            )


def read_gallery(path: Path) -> Gallery:
    """The gallery at ``path``.

    Raises:
        FacetpuError: there is none, it is damaged, or a later facetpu wrote it.
    """
    if not Path(path).is_file():
        raise FacetpuError(f"{path}: no such file; enrol people with facetpu imprint")
    advice = "enrol the people again"
    hashes = ("photos", "prints")
    arrays = read_arrays(path, ("settings", "person", "embeddings", "imprints"), advice, optional=hashes)
    try:
        settings = json.loads(_text(arrays.pop("settings")))
        version = settings.pop("version")
        if version > VERSION:
            raise FacetpuError(f"{path}: was written by a later facetpu; update this one")
        if version == 1:
            settings["prints"] = [UNKNOWN_PRINT] * len(settings["photos"])
        else:
            settings["photos"] = [row.tobytes().hex() for row in arrays.pop("photos")]
            settings["prints"] = [int.from_bytes(row.tobytes(), "big") for row in arrays.pop("prints")]
        settings.update(arrays)
        gallery = Gallery(**settings)
        _check(gallery)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FacetpuError(f"{path}: is damaged ({error}); {advice}") from None
    return gallery


def _rows_of(hashes: Iterable[bytes]) -> np.ndarray:
    """uint8 [n, 32] of hashes of 32 bytes."""
    return np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, _HASH)


def _text(settings: np.ndarray) -> str:
    """The JSON text that a gallery of either version holds."""
    return str(settings) if settings.dtype.kind == "U" else settings.tobytes().decode("utf-8")


def read_arrays(
    path: Path, names: tuple[str, ...], advice: str, optional: tuple[str, ...] = ()
) -> dict[str, np.ndarray]:
    """The arrays called ``names`` in the .npz file ``path``, and the ``optional`` it has; never unpickled.

    Raises:
        FacetpuError: the file is damaged or lacks one; the message ends with ``advice``.
    """
    content = io.BytesIO(Path(path).read_bytes())
    try:
        with np.load(content, allow_pickle=False) as archive:
            there = [name for name in optional if name in archive.files]
            return {name: archive[name] for name in [*names, *there]}
    except Exception as error:  # NumPy and zipfile meet damaged bytes with errors of every kind.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FacetpuError(f"{path}: is damaged ({reason}); {advice}") from None


def _check(gallery: Gallery) -> None:
    """Refuse a gallery whose parts disagree.

    Raises:
        ValueError: they do.
    """
    photos = len(gallery.photos)
    if len(gallery.prints) != photos:
        raise ValueError("it has other than one fingerprint a photo")
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
