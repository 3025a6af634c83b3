"""What runs on the board: Python 3.7, NumPy and a TFLite runtime, never TensorFlow."""
