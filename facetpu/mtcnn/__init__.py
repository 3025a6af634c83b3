"""The face detector: MTCNN's three networks on a TFLite interpreter."""
