"""Write the folder of a phone or a Raspberry Pi: the model in one file, and a file of code that uses it."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path
from typing import NamedTuple

from .. import artefacts
from ..board.embed import Embedder
from ..board.folder import BASE, COHORT, DETECTOR, LABELS, ModelFolder
from ..board.recogniser import OWNERS_ONLY, base_digest
from ..board.threshold import Cohort, read_cohort
from ..errors import FacetpuError
from ..labels import read_labels
from ..tflite.concat import join_models
from ..tflite.metadata import with_metadata

CODE = {
    target: Path(__file__).parent / target / file
    for target, file in (("android", "Faces.kt"), ("ios", "Faces.swift"), ("pi", "faces.py"))
}
HEAD = "head.tflite"
RECOGNISER, STRANGERS = "recogniser.tflite", "strangers.tsv"


class DeviceBundle(NamedTuple):
    """What was written.

    Attributes:
        folder: to copy to the device, or into its app.
        code: the file in it that a program calls.
        bytes: in all of it.
    """

    folder: Path
    code: str
    bytes: int

    def __str__(self) -> str:
        return f"{self.folder}: {self.bytes / 1e6:.1f} MB; {self.code} says how to use it"


def write_device_bundle(model: Path, target: str, out: Path, overwrite: bool = False) -> DeviceBundle:
    """Write what ``target`` needs to recognise people with ``model``.

    Args:
        model: an export folder.
        target: one of ``CODE``.
        out: the new folder.
        overwrite: replace ``out``.

    Raises:
        FacetpuError: the folder lacks a part, or its faces are not aligned by five points, as the code does.
    """
    folder, code = ModelFolder.find(model), CODE[target]
    names = (BASE, HEAD, LABELS, COHORT, DETECTOR)
    parts = {name: folder.needed(name, "facetpu export") for name in names}
    embedder = Embedder(parts[BASE])
    if embedder.alignment.template != "arcface":
        raise FacetpuError(
            f"{folder.root}: is for faces cut out by their box, and {code.name} aligns them by five points; "
            "train on crops of facetpu align --template arcface"
        )
    inputs = {"model": artefacts.digest(folder.root / BASE), "code": artefacts.digest(code)}
    inputs.update((name, artefacts.digest(path)) for name, path in parts.items())
    if artefacts.finished(out, "ondevice", {"target": target}, inputs) is None:
        with artefacts.new_folder(out, overwrite) as new:
            labels = read_labels(parts[LABELS])
            joined = join_models(
                parts[BASE].read_bytes(), parts[HEAD].read_bytes(), True, str(parts[BASE]), str(parts[HEAD])
            )
            description = f"Face recogniser of {len(labels)} people, int8, made by facetpu"
            (new / RECOGNISER).write_bytes(with_metadata(joined, description, embedder.size, labels))
            cohort = read_cohort(parts[COHORT], embedder.dim)
            header = f"{base_digest(folder)} {folder.manifest()['threshold']:.6f}"
            artefacts.write_text(new / STRANGERS, _table(header, cohort, labels), mode=OWNERS_ONLY)
            artefacts.write_text(new / LABELS, "".join(f"{name}\n" for name in labels))
            shutil.copytree(str(parts[DETECTOR]), str(new / DETECTOR))
            shutil.copyfile(str(code), str(new / code.name))
            artefacts.write_manifest(new, "ondevice", {"target": target}, inputs)
    size = sum(file.stat().st_size for file in artefacts.files_under(out))
    return DeviceBundle(Path(out), code.name, size)


def _table(header: str, cohort: Cohort, labels: list[str]) -> str:
    """A line for the model, then one for each face: a name, a tab, and the embedding in base64.

    Those who are not among the labels have numbers for names, which set them apart from one another.
    """
    lines = [header]
    for person, embedding in zip(cohort.people, cohort.embeddings, strict=True):
        name = labels[person] if person < len(labels) else str(person)
        lines.append(f"{name}\t{base64.b64encode(embedding.astype('<f4').tobytes()).decode('ascii')}")
    return "\n".join(lines) + "\n"
