"""A model, its labels and its gallery, which know the same people: read, checked and written together.

The rows of the model are trained, through Coral's engine, on what the model's own quantised L2 norm
gives for each photo: stock pycoral, fed the same crops, writes the same rows. The gallery keeps that
beside the float embedding, and every row is made from it anew each time.
"""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path
from typing import Any

import numpy as np

from ..artefacts import write_bytes
from ..errors import FacetpuError
from ..labels import read_labels, write_labels
from ..runtime import refused
from ..tflite.cut import split_model
from .embed import Embedder, base_model
from .folder import (
    BASE,
    BASE_EDGETPU,
    COHORT,
    GALLERY,
    LABELS,
    LABELS_SOFTMAX,
    LITERT,
    MODEL,
    MODEL_EDGETPU,
    MODEL_SOFTMAX,
    MODEL_SOFTMAX_EDGETPU,
    PHOTOS,
    WEB,
    ModelFolder,
)
from .gallery import Gallery, read_gallery, write_gallery
from .imprint import ImprintingEngine, UnfitModel
from .runner import open_model, read_tflite
from .softmax import STRANGER, join_softmax, train_softmax
from .threshold import Cohort, write_cohort

_SOFTMAX_OF = {BASE: MODEL_SOFTMAX, BASE_EDGETPU: MODEL_SOFTMAX_EDGETPU}
REWRITTEN = (MODEL, MODEL_EDGETPU, *_SOFTMAX_OF.values(), LABELS, LABELS_SOFTMAX, GALLERY, COHORT, PHOTOS)
OWNERS_ONLY = 0o600  # rows, embeddings and names are personal


def read_known(folder: ModelFolder) -> Gallery:
    """The gallery of an imprinted folder, once it is seen to fit the model and the labels beside it.

    Raises:
        FacetpuError: there is none, it is damaged, or the three do not belong together.
    """
    gallery = read_gallery(folder.needed(GALLERY, "facetpu imprint"))
    if gallery.base != base_digest(folder):
        raise FacetpuError(
            f"{folder.root / GALLERY}: was made with another base model; enrol the people again with this one"
        )
    if gallery.alignment != folder.manifest().get("alignment", gallery.alignment):
        raise FacetpuError(
            f"{folder.root / GALLERY}: was made from crops aligned otherwise; enrol the people again"
        )
    labels = read_labels(folder.root / LABELS)
    if labels != gallery.people:
        raise FacetpuError(
            f"{folder.root / LABELS}: names {_short(labels)}, and the gallery {_short(gallery.people)}; "
            "enrol the people again"
        )
    classes = ImprintingEngine(folder.needed(MODEL, "facetpu imprint"), keep_classes=True).num_classes
    if classes != max(len(labels), 1):  # nobody is a class too, see ``imprinted``
        raise FacetpuError(
            f"{folder.root / MODEL}: has {classes} classes, and {LABELS} {len(labels)} names; "
            "enrol the people again"
        )
    return gallery


def write_known(
    target: Path, source: ModelFolder, gallery: Gallery, cohort: Cohort | None, engine: Any = ImprintingEngine
) -> None:
    """Write into ``target`` what tells of people, for their owner only: models, labels, gallery, cohort.

    Args:
        target: a new folder.
        source: whose models are imprinted.
        gallery: whom they are to know.
        cohort: the strangers that its threshold was set by, where there were any.
        engine: the class that writes the rows.

    Raises:
        FacetpuError: the model cannot be imprinted.
    """
    for name in (MODEL, MODEL_EDGETPU):
        if (source.root / name).is_file():
            write_bytes(target / name, imprinted(source.root / name, gallery, engine), mode=OWNERS_ONLY)
    write_labels(target / LABELS, gallery.people)
    (target / LABELS).chmod(OWNERS_ONLY)
    write_gallery(target / GALLERY, gallery)
    if cohort is not None:
        write_cohort(target / COHORT, cohort)


def write_softmax(target: Path, gallery: Gallery, cohort: Cohort | None) -> None:
    """Write into ``target`` the softmax models that know the people of ``gallery``, and strangers as such.

    Raises:
        FacetpuError: there are too few strangers.
    """
    layer = train_softmax(gallery, cohort)
    for name, model in _SOFTMAX_OF.items():
        if (target / name).is_file():
            write_bytes(target / model, join_softmax(read_tflite(target / name), layer), mode=OWNERS_ONLY)
    if (target / MODEL_SOFTMAX).is_file():
        open_model(read_tflite(target / MODEL_SOFTMAX), target / MODEL_SOFTMAX)  # what was written must open
    write_labels(target / LABELS_SOFTMAX, [*gallery.people, STRANGER])
    (target / LABELS_SOFTMAX).chmod(OWNERS_ONLY)


def imprinted(model: Path | bytes, gallery: Gallery, engine: Any = ImprintingEngine) -> bytes:
    """``model`` with one class a person of ``gallery``, in its order, and no others.

    Every row is the normalised sum of the person's imprints, whatever rows the model had. A model needs
    a row: where there is nobody it is of zeros, which no face is near to.

    Args:
        model: a .tflite file, or the bytes of one where the engine takes them.
        gallery: whom it is to know.
        engine: facetpu's engine or Coral's.
    """
    learner = engine(model if isinstance(model, bytes) else str(model))
    order = np.argsort(gallery.person, kind="stable")
    for imprint, class_id in zip(gallery.imprints[order], gallery.person[order]):
        learner.train(imprint, int(class_id))
    if not gallery.people:
        learner.train(np.zeros(gallery.imprints.shape[1], np.float32), 0)
    return bytes(learner.serialize_model())


class L2Norm:
    """The quantised L2 norm of an imprinting model, run by itself on the rows that its base writes."""

    def __init__(self, model: Path) -> None:
        """Cut the L2 norm out of ``model``.

        Raises:
            UnfitModel: the model cannot be imprinted.
        """
        self.model = model
        data = read_tflite(model)
        try:
            ImprintingEngine(data)
        except UnfitModel as error:
            raise UnfitModel(f"{model}: {error}") from None
        layer = ImprintingEngine(split_model(data, where=str(model))[1]).serialize_extractor_model()
        self._interpreter = open_model(layer, model)
        self._input = self._interpreter.get_input_details()[0]
        self._output = self._interpreter.get_output_details()[0]

    def check_fits(self, embedder: Embedder) -> None:
        """Refuse an embedder that is not the base of this model.

        Raises:
            FacetpuError: it writes another length or quantisation than this layer reads.
        """
        scale, zero_point = self._input["quantization"]
        expected = (int(self._input["shape"][-1]), float(scale), int(zero_point))
        if (embedder.dim, embedder.scale, embedder.zero_point) != expected:
            raise FacetpuError(f"{embedder.path}: is not the base of {self.model}; export the model again")

    def __call__(self, row: np.ndarray) -> np.ndarray:
        """The embedding that Coral's engine is trained with: float32 [D], dequantised.

        Args:
            row: [D], as the base writes it.
        """
        try:
            self._interpreter.set_tensor(self._input["index"], row.reshape(self._input["shape"]))
            self._interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise refused(str(self.model), error) from None
        stored = self._interpreter.get_tensor(self._output["index"]).ravel()
        scale, zero_point = self._output["quantization"]
        return (stored.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)


def copy_rest(source: Path, target: Path) -> None:
    """Copy what stands in ``source`` beside what tells of people.

    Hidden files stay behind, and what is for phones and browsers.
    """
    for entry in sorted(source.iterdir()):
        if entry.name not in (*REWRITTEN, LITERT, WEB) and not entry.name.startswith("."):
            copy_whole(entry, target / entry.name)


def copy_whole(source: Path, target: Path) -> None:
    """Copy a file or a folder so that it survives a power cut once its folder is renamed into its place."""
    if source.is_dir():
        target.mkdir()
        for entry in sorted(source.iterdir()):
            copy_whole(entry, target / entry.name)
    else:
        write_bytes(target, source.read_bytes(), mode=stat.S_IMODE(source.stat().st_mode))


def base_digest(folder: ModelFolder) -> str:
    """SHA-256 of the base, in the form that runs on the CPU."""
    return hashlib.sha256(base_model(folder)).hexdigest()


def _short(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") or "nobody"
