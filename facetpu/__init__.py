"""facetpu: from a folder of photos to a face recogniser on a Coral Edge TPU.

One command line, each stage a function from files to files::

    HOST   photos -> align -> crops -> pack -> TFRecords -> train -> checkpoint
           checkpoint -> freeze -> quantize -> base.tflite + head.tflite -> compile, join
    BOARD  photos of a person -> imprint -> a model that knows them -> identify

``facetpu.stages`` holds the host's stages, ``facetpu.board`` what runs on the board: Python 3.7,
NumPy and a TFLite runtime, never TensorFlow. This module imports nothing, so that ``--help`` is
instant.
"""

__version__ = "0.1.0"
