"""TensorFlow and tf-slim, imported once and quietly: ``from facetpu.nets.tensorflow import slim, tf, v1``.

tf-slim's layers train in TF2 style only with the Keras of TensorFlow 1 and 2 (the package
tf-keras), which an environment variable chooses before TensorFlow is imported.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from typing import Any

os.environ["TF_USE_LEGACY_KERAS"] = "1"
# What C++ has to say when one of several workers is gone, Python says in one line.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if "TF_CONFIG" in os.environ else "2")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back what C++ writes to stderr past every log level; an exception lets it through."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


with quiet():
    import tensorflow as tf
    import tf_slim as slim
    from tensorflow.lite.python.convert_phase import ConverterError
    from tf_slim.ops import arg_scope as slim_scopes

    tf.config.list_physical_devices()


class _Scopes(threading.local):
    """slim's argument scopes of one thread, the innermost last."""

    def __init__(self) -> None:
        self.stack: list[dict[Any, Any]] = [{}]


# slim keeps them in one list. Replicas on several devices are threads that take turns within a network:
# one's scopes would still be open where another has left its own.
_scopes = _Scopes()
slim_scopes._get_arg_stack = lambda: _scopes.stack

v1 = tf.compat.v1
tf.get_logger().setLevel("ERROR")
logging.getLogger("absl").setLevel("ERROR")
# tf-slim calls Keras in the ways of TensorFlow 1.
warnings.filterwarnings("ignore", message=r"`layer\.(apply|updates)`")

__all__ = ["ConverterError", "quiet", "slim", "tf", "v1"]
