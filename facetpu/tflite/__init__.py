"""TFLite files, read, cut, joined and built as flatbuffers; no TensorFlow."""
