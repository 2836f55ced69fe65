"""The thin runtime: numpy, Pillow, simplejpeg and one engine; no TensorFlow."""
