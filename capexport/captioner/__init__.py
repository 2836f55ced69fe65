"""The Keras captioner: layers, model, data, training. Importing it imports TensorFlow."""

from ..tensorflow_setup import import_tensorflow

import_tensorflow()
