"""Holding a bundle against what Keras made of the same photos; needs no TensorFlow."""
