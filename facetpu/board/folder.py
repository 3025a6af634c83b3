"""What stands in a model's folder, as ``export`` and ``imprint`` write it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from ..artefacts import read_manifest
from ..errors import FacetpuError

MODEL, MODEL_EDGETPU = "model.tflite", "model_edgetpu.tflite"
BASE, BASE_EDGETPU = "base.tflite", "base_edgetpu.tflite"
GALLERY, LABELS, COHORT, DETECTOR = "gallery.npz", "labels.txt", "cohort.npz", "detector"
LITERT, WEB = "litert", "web"  # what export writes for other machines than the board
MODEL_SOFTMAX, MODEL_SOFTMAX_EDGETPU = "model_softmax.tflite", "model_softmax_edgetpu.tflite"
LABELS_SOFTMAX = "labels_softmax.txt"
PHOTOS = "photos"

_BASE_OF = {MODEL: BASE, MODEL_EDGETPU: BASE_EDGETPU}


class ModelFolder(NamedTuple):
    """A folder and, where the user named one, the model file inside it."""

    root: Path
    file: Path | None

    @classmethod
    def find(cls, model: Path) -> ModelFolder:
        """The folder ``model`` is, or the one it stands in.

        Raises:
            FacetpuError: there is no such file or folder, or the file is no .tflite.
        """
        model = Path(model)
        if model.is_dir():
            return cls(model, None)
        if not model.is_file():
            raise FacetpuError(f"{model}: no such model; give a .tflite file or the folder it stands in")
        if model.suffix != ".tflite":
            raise FacetpuError(f"{model}: is no .tflite model; give one, or the folder it stands in")
        return cls(model.parent, model)

    def embedding_model(self) -> Path:
        """The file whose output is the embedding, a compiled one before its CPU twin.

        A ``model.tflite`` stands for the ``base.tflite`` beside it; any other file for itself.

        Raises:
            FacetpuError: the folder has none of the files that give embeddings.
        """
        if self.file is not None:
            base = self.root / _BASE_OF.get(self.file.name, self.file.name)
            return base if base.is_file() else self.file
        for name in (BASE_EDGETPU, BASE, MODEL_EDGETPU, MODEL):
            if (self.root / name).is_file():
                return self.root / name
        raise FacetpuError(f"{self.root}: holds no {MODEL} or {BASE}; make one with facetpu export")

    def needed(self, name: str, maker: str) -> Path:
        """The path of ``name``, which must be there.

        Raises:
            FacetpuError: it is not; the message names the command that makes it.
        """
        path = self.root / name
        if not path.exists():
            if self.file is not None and not self.manifest():
                raise FacetpuError(
                    f"{self.file}: is a model by itself, with no {name} beside it; "
                    f"run facetpu export {self.file.name} OUT, and give OUT"
                )
            raise FacetpuError(f"{path}: is missing; make the folder with {maker}")
        return path

    def manifest(self) -> dict[str, Any]:
        """What the stage that made the folder wrote about it; empty where it wrote nothing."""
        return read_manifest(self.root)
