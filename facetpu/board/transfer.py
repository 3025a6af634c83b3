"""People from one gallery to another: as they are where the base is the same, else from the photos kept."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from ..errors import FacetpuError
from ..labels import check_distinct, check_name
from .gallery import Gallery, read_gallery
from .kept import kept_photos

log = logging.getLogger(__name__)


def same_base(known: Gallery, other: Gallery) -> bool:
    """Whether the embeddings of ``other`` are of the base that ``known`` has, from crops cut alike."""
    return (known.base, known.alignment) == (other.base, other.alignment)


def taken_over(known: Gallery, other: Gallery, where: Path) -> Gallery:
    """``known`` and everyone of ``other``, which has the same base; photos that both have count once.

    Args:
        known: whom the model knows.
        other: who comes to it.
        where: the file of ``other``, for messages.

    Raises:
        FacetpuError: a photo is one person's here and another's there, or names look like one person's.
    """
    for name in other.people:
        check_name(name, str(where))
    check_distinct([*known.people, *(name for name in other.people if name not in known.people)], str(where))
    owners = {sha: known.people[person] for sha, person in zip(known.photos, known.person)}
    new = []
    for index, (sha, person) in enumerate(zip(other.photos, other.person)):
        owner = owners.get(sha)
        if owner is None:
            new.append(index)
        elif owner != other.people[person]:
            raise FacetpuError(
                f"{where}: has a photo of {other.people[person]} that is {owner}'s here; rename one of them"
            )
    return known.joined(other.only(np.array(new, int)))


def photos_to_enrol_again(source: Path, other: Gallery, known: Gallery) -> dict[str, list[Path]]:
    """The photos that the imprinted folder ``source`` keeps of the people in its gallery ``other``.

    Args:
        source: the folder.
        other: its gallery, which has another base than the model.
        known: whom the model knows already: they are not needed again.

    Raises:
        FacetpuError: of somebody else not one photo is kept; the message says of whom.
    """
    kept = kept_photos(source)
    photos: dict[str, list[Path]] = {name: [] for name in other.people}
    lost = 0
    for sha, person in zip(other.photos, other.person):
        if sha in kept:
            photos[other.people[person]].append(kept[sha])
        else:
            lost += 1
    missing = [name for name, paths in photos.items() if not paths and name not in known.people]
    if missing:
        raise FacetpuError(
            f"{source}: was made with another base, and keeps no photos of {', '.join(missing)}; enrol them "
            "first from a folder of their photos, then give the model that knows them"
        )
    if lost:
        log.warning("%s: does not keep %d of the photos that people were enrolled with", source, lost)
    return {name: sorted(paths) for name, paths in photos.items() if paths}


def read_other(path: Path, known: Gallery) -> Gallery:
    """The gallery in the file ``path``, to be added to ``known``.

    Raises:
        FacetpuError: it is damaged, or was made with another base; the message names its people.
    """
    other = read_gallery(path)
    if not same_base(known, other):
        raise FacetpuError(
            f"{path}: was made with another base, and embeddings hold for their own only; enrol "
            f"{', '.join(other.people)} with facetpu imprint, from their photos"
        )
    return other
