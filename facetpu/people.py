"""A folder of people: one sub-folder a person, photos inside; the listing that every stage shares."""

from __future__ import annotations

from pathlib import Path

from .artefacts import files_under
from .errors import FacetpuError
from .labels import check_distinct, check_name
from .storage import as_path, named_errors

PHOTO_SUFFIXES = frozenset(
    [
        ".bmp",
        ".gif",
        ".jfif",
        ".jpe",
        ".jpeg",
        ".jpg",
        ".jp2",
        ".pgm",
        ".png",
        ".ppm",
        ".tif",
        ".tiff",
        ".webp",
    ]
)


def photos_under(root: Path) -> list[Path]:
    """Every photo below ``root``, by its file name's ending, in sorted order.

    Raises:
        FacetpuError: ``root`` is no folder or holds no photo.
    """
    root = as_path(root)
    check_folder(root)
    photos = [file for file in files_under(root) if file.suffix.lower() in PHOTO_SUFFIXES]
    if not photos:
        raise FacetpuError(f"{root}: holds no photo ({', '.join(sorted(PHOTO_SUFFIXES))})")
    return photos


def people_under(root: Path) -> dict[str, list[Path]]:
    """The photos of each person, by name in sorted order; a person is a direct sub-folder of ``root``.

    Raises:
        FacetpuError: ``root`` is no folder, has no sub-folder with a photo, or a name is unfit or double.
    """
    root = as_path(root)
    people: dict[str, list[Path]] = {}
    for photo in photos_under(root):
        parts = photo.relative_to(root).parts
        if len(parts) > 1:
            people.setdefault(parts[0], []).append(photo)
    if not people:
        raise FacetpuError(f"{root}: has photos but no folder for each person; make one sub-folder a person")
    check_distinct(people, str(root))
    return {check_name(name, str(root / name)): people[name] for name in sorted(people)}


def check_folder(root: Path) -> None:
    """Refuse what is not a folder.

    Raises:
        FacetpuError: ``root`` does not exist or is a file.
    """
    root = as_path(root)
    with named_errors(root):
        there, is_folder = root.exists(), root.is_dir()
    if not there:
        raise FacetpuError(f"{root}: no such folder")
    if not is_folder:
        raise FacetpuError(f"{root}: is a file, and a folder is needed")
