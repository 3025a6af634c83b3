"""The networks, in tf-slim; the one place that imports TensorFlow and tf-slim for them."""
