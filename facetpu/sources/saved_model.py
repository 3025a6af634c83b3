"""TensorFlow SavedModels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import FacetpuError
from ..nets.tensorflow import quiet, tf
from .graph import reading_of
from .reading import Reading, Settings

SIGNATURE = "serving_default"


def read(path: Path, settings: Settings) -> Reading:
    """The embedder in the SavedModel folder ``path``: what its signature serves.

    Raises:
        FacetpuError: it cannot be loaded, has no such signature, or serves no embedder.
    """
    try:
        with quiet():
            loaded = tf.saved_model.load(str(path))
    except (OSError, ValueError, KeyError, tf.errors.OpError, FileNotFoundError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise FacetpuError(
            f"{path}: is no SavedModel that TensorFlow {tf.__version__} loads: {reason}"
        ) from None
    signatures = dict(loaded.signatures)
    function = signatures.get(SIGNATURE) or next(iter(signatures.values()), None)
    if len(signatures) > 1 and SIGNATURE not in signatures:
        names = ", ".join(sorted(signatures))
        raise FacetpuError(f"{path}: has the signatures {names} and no {SIGNATURE}; save it with one")
    if function is None:
        raise FacetpuError(f"{path}: has no signature; save it with one, as Keras' model.export does")
    return reading_of(frozen_function(function), str(path), settings)


def frozen_function(function: Any) -> Any:
    """A concrete function as a GraphDef without variables and without calls of other functions."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    with quiet():
        frozen = convert_variables_to_constants_v2(function)
    return frozen.graph.as_graph_def()
