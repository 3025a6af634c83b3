"""A model, its labels and its gallery, which know the same people: read, checked and written together."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np

from ..artefacts import write_bytes
from ..errors import FacetpuError
from ..labels import read_labels, write_labels
from .embed import base_model
from .folder import GALLERY, LABELS, MODEL, MODEL_EDGETPU, ModelFolder
from .gallery import Gallery, read_gallery, write_gallery
from .imprint import ImprintingEngine
from .interpreter import read_tflite

REWRITTEN = (MODEL, MODEL_EDGETPU, LABELS, GALLERY)


def read_known(folder: ModelFolder) -> Gallery:
    """The gallery of an imprinted folder, once it is seen to fit the model and the labels beside it.

    Raises:
        FacetpuError: there is none, it is damaged, or the three do not belong together.
    """
    gallery = read_gallery(folder.root / GALLERY)
    if gallery.base != base_digest(folder):
        raise FacetpuError(
            f"{folder.root / GALLERY}: was made with another base model; enrol the people again with this one"
        )
    labels = read_labels(folder.root / LABELS)
    if labels != gallery.people:
        raise FacetpuError(
            f"{folder.root / LABELS}: names {_short(labels)}, and the gallery {_short(gallery.people)}; "
            "enrol the people again"
        )
    classes = ImprintingEngine(folder.needed(MODEL, "facetpu imprint"), keep_classes=True).num_classes
    if classes != len(labels):
        raise FacetpuError(
            f"{folder.root / MODEL}: has {classes} classes, and {LABELS} {len(labels)} names; "
            "enrol the people again"
        )
    return gallery


def write_known(target: Path, source: ModelFolder, gallery: Gallery) -> None:
    """Write into ``target`` the models of ``source`` that know the people of ``gallery``, and both lists.

    Raises:
        FacetpuError: the model cannot be imprinted.
    """
    for name in (MODEL, MODEL_EDGETPU):
        if (source.root / name).is_file():
            write_bytes(target / name, imprinted(read_tflite(source.root / name), gallery), overwrite=True)
    write_labels(target / LABELS, gallery.people, overwrite=True)
    write_gallery(target / GALLERY, gallery)


def imprinted(model: bytes, gallery: Gallery) -> bytes:
    """``model`` with one class a person of ``gallery``, in its order, and no others.

    Every row is the normalised sum of the person's imprints, whatever rows the model had.
    """
    engine = ImprintingEngine(model)
    for class_id in range(len(gallery.people)):
        for imprint in gallery.imprints[np.flatnonzero(gallery.person == class_id)]:
            engine.train(imprint, class_id)
    return engine.serialize_model()


def copy_rest(source: Path, target: Path) -> None:
    """Copy what stands in ``source`` beside model, labels and gallery; the hidden files stay behind."""
    for entry in sorted(source.iterdir()):
        if entry.name in REWRITTEN or entry.name.startswith("."):
            continue
        if entry.is_dir():
            shutil.copytree(str(entry), str(target / entry.name))
        else:
            shutil.copy2(str(entry), str(target / entry.name))


def base_digest(folder: ModelFolder) -> str:
    """SHA-256 of the base, in the form that runs on the CPU."""
    return hashlib.sha256(base_model(folder)).hexdigest()


def _short(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") or "nobody"
