"""TFLite metadata: what a model's tensors mean, and its labels, inside the .tflite file itself.

Phones' libraries read it (MediaPipe tasks, the TFLite support library, Android Studio). It is a
flatbuffer of its own, ``M001``, in the model's metadata, and a ZIP of the files it names behind the model.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence

import numpy as np

from .flatbuffer import Record, Schema, decode, encode
from .model import read_model, write_model
from .schema import new as new_in_model

NAME = "TFLITE_METADATA"  # of the entry in the model
LABELS = "labels.txt"  # one name a line
_IDENTIFIER = b"M001"
_RGB, _AXIS_LABELS = 1, 2
_PARSER = "1.0.0"  # the oldest version that knows all fields used here

# https://github.com/tensorflow/tflite-support, metadata_schema.fbs 1.1.0
SCHEMA = Schema(
    """
ModelMetadata name:string description:string version:string subgraph_metadata:[SubGraphMetadata]
    author:string license:string associated_files:[AssociatedFile] min_parser_version:string
SubGraphMetadata name:string description:string input_tensor_metadata:[TensorMetadata]
    output_tensor_metadata:[TensorMetadata] associated_files:[AssociatedFile]
    input_process_units:[ProcessUnit] output_process_units:[ProcessUnit]
TensorMetadata name:string description:string dimension_names:[string] content:Content
    process_units:[ProcessUnit] stats:Stats associated_files:[AssociatedFile]
Content content_properties:ContentProperties range:ValueRange
ValueRange min:int32 max:int32
FeatureProperties
ImageProperties color_space:int8 default_size:ImageSize
BoundingBoxProperties index:[uint32] type:int8 coordinate_type:int8
ImageSize width:uint32 height:uint32
ProcessUnit options:ProcessUnitOptions
NormalizationOptions mean:[float32] std:[float32]
ScoreCalibrationOptions score_transformation:int8 default_score:float32
ScoreThresholdingOptions global_score_threshold:float32
BertTokenizerOptions vocab_file:[AssociatedFile]
SentencePieceTokenizerOptions sentencePiece_model:[AssociatedFile] vocab_file:[AssociatedFile]
Stats max:[float32] min:[float32]
AssociatedFile name:string description:string type:int8 locale:string
""",
    {
        "ContentProperties": "FeatureProperties ImageProperties BoundingBoxProperties",
        "ProcessUnitOptions": """
            NormalizationOptions ScoreCalibrationOptions ScoreThresholdingOptions BertTokenizerOptions
            SentencePieceTokenizerOptions
        """,
    },
)
_new = SCHEMA.new


def with_metadata(model: bytes, description: str, side: int, people: Sequence[str]) -> bytes:
    """``model`` with its metadata and its labels in it.

    Args:
        model: a .tflite file from an image of ``side`` pixels to two outputs: the probability of each of
            ``people``, and the embedding.
        description: what it is.
        side: of the image, in pixels.
        people: the labels.
    """
    whole = read_model(model)
    whole.buffers.append(new_in_model("Buffer", data=np.frombuffer(_metadata(description, side), np.uint8)))
    whole.metadata.append(new_in_model("Metadata", name=NAME, buffer=len(whole.buffers) - 1))
    file = io.BytesIO(write_model(whole))
    with zipfile.ZipFile(file, "a") as packed:
        # A fixed time: equal models are equal files.
        packed.writestr(zipfile.ZipInfo(LABELS), "".join(f"{name}\n" for name in people))
    return file.getvalue()


def read_metadata(model: bytes) -> Record | None:
    """The ``ModelMetadata`` in a .tflite file; None where it has none."""
    whole = read_model(model)
    for entry in whole.metadata:
        if entry.name == NAME:
            return decode(
                SCHEMA, "ModelMetadata", whole.buffers[entry.buffer].data, "its metadata", _IDENTIFIER
            )
    return None


def _metadata(description: str, side: int) -> bytes:
    """The metadata of a face recogniser that takes the pixels as they are."""
    size = _new("ImageSize", width=side, height=side)
    as_they_are = _new("NormalizationOptions", mean=np.zeros(1, np.float32), std=np.ones(1, np.float32))
    image = _new(
        "TensorMetadata",
        name="image",
        description="An aligned face, RGB, pixels of 0 to 255 as they are",
        content=_content("ImageProperties", color_space=_RGB, default_size=size),
        process_units=[_new("ProcessUnit", options=as_they_are)],
        stats=_stats(0, 255),
    )
    labels = _new("AssociatedFile", name=LABELS, description="The people", type=_AXIS_LABELS)
    probability = _new(
        "TensorMetadata",
        name="probability",
        description="How likely it is each of the people, strangers left out of account",
        content=_content("FeatureProperties"),
        stats=_stats(0, 1),
        associated_files=[labels],
    )
    embedding = _new(
        "TensorMetadata",
        name="embedding",
        description="The face as a vector: the cosine between two of them tells whether it is one person",
        content=_content("FeatureProperties"),
    )
    graph = _new(
        "SubGraphMetadata", input_tensor_metadata=[image], output_tensor_metadata=[probability, embedding]
    )
    model = _new(
        "ModelMetadata",
        name="face recogniser",
        description=description,
        version="1",
        subgraph_metadata=[graph],
        min_parser_version=_PARSER,
    )
    return encode(SCHEMA, model, "the metadata", _IDENTIFIER)


def _content(kind: str, **properties: object) -> Record:
    return _new("Content", content_properties=_new(kind, **properties))


def _stats(low: float, high: float) -> Record:
    return _new("Stats", max=np.array([high], np.float32), min=np.array([low], np.float32))
