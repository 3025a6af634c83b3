"""Keras models: .keras of Keras 3, .h5 of Keras 2 and 3."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..errors import FacetpuError
from ..nets.tensorflow import quiet, tf
from .graph import reading_of
from .reading import Reading, Settings
from .saved_model import frozen_function


def read(path: Path, settings: Settings) -> Reading:
    """The embedder in the Keras file ``path``, layers and weights.

    A layer that runs Python code stored in the file (Lambda) is not loaded: a model file may not run code.

    Raises:
        FacetpuError: Keras cannot load it, or it is no embedder.
    """
    model = _load(path)
    inputs = model.inputs or []
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        raise FacetpuError(
            f"{path}: has {len(inputs)} inputs; a face embedder has one, the image [1, S, S, 3]"
        )
    side = inputs[0].shape[1] or settings.size
    if side is None:
        raise FacetpuError(f"{path}: its image has no fixed size; give the side of a crop with --size")

    @tf.function
    def embed(images: Any) -> Any:
        return model(images, training=False)

    image = tf.TensorSpec([1, side, side, inputs[0].shape[3]], tf.float32, name="image")
    return reading_of(frozen_function(embed.get_concrete_function(image)), str(path), settings)


def _load(path: Path) -> Any:
    """The model by Keras 3, or by the Keras 2 that TensorFlow still has beside it."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    import keras

    errors = []
    for loader in (keras.saving.load_model, tf.keras.models.load_model):
        try:
            with quiet():
                return loader(str(path), compile=False)
        except (ValueError, TypeError, KeyError, AttributeError, OSError, NotImplementedError) as error:
            errors.append((str(error).strip().splitlines() or [type(error).__name__])[0])
    raise FacetpuError(
        f"{path}: Keras {keras.__version__} cannot load it: {errors[0]} Where the code of its layers is at "
        "hand, load it there, save it with model.export('saved_model'), and export that folder"
    )
