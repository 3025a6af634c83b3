"""Crops to calibrate on: a seeded sample of a folder of crops, or of a folder of records."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..artefacts import read_manifest
from ..errors import FacetpuError
from ..image import read_image
from ..people import people_under
from ..training.records import first_photos, read_records, shuffled


class Sample(NamedTuple):
    """Some crops of a folder, in an order that does not depend on the people's names."""

    crops: np.ndarray  # uint8 [n, S, S, 3], RGB
    people: np.ndarray  # int32 [n], places in ``names``
    names: list[str]
    alignment: dict[str, Any] | None  # None for crops that facetpu did not align


def read_sample(source: Path, count: int, size: int) -> Sample:
    """Up to ``count`` crops of ``source``, a folder of crops or of records.

    Args:
        source: the folder.
        count: how many crops at most.
        size: the side in pixels that they must have.

    Raises:
        FacetpuError: ``source`` is neither, a crop cannot be read, or it has another size.
    """
    source = Path(source)
    manifest = read_manifest(source)
    if manifest.get("stage") == "pack":
        records = read_records(source)
        _check_size(source, records.image_size, size)
        crops, people = zip(*first_photos(records, count), strict=True)
        return Sample(np.stack(crops), np.array(people, np.int32), records.labels, records.alignment)
    named = people_under(source)
    label_of = {str(path): label for label, paths in enumerate(named.values()) for path in paths}
    relative = {path.relative_to(source).as_posix(): path for paths in named.values() for path in paths}
    chosen = [relative[name] for name in shuffled(relative, seed=0)[:count]]
    images = []
    for path in chosen:
        image = read_image(path)
        _check_size(path, image.shape[0] if image.shape[0] == image.shape[1] else 0, size)
        images.append(image)
    labels = np.array([label_of[str(path)] for path in chosen], np.int32)
    return Sample(np.stack(images), labels, list(named), manifest.get("alignment"))


def _check_size(where: Path, size: int, wanted: int) -> None:
    if size != wanted:
        found = f"{size} px" if size else "not square"
        raise FacetpuError(
            f"{where}: is {found}, and the network takes {wanted} px; align with --size {wanted}"
        )
