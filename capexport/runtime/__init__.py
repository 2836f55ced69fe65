"""The thin runtime: numpy, Pillow and one engine; no TensorFlow."""
