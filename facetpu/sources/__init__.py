"""Face embedders of any maker, read into one form: a TensorFlow graph from an image to its embedding."""
