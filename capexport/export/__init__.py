"""From the Keras captioner to bundles: the split, ONNX, TFLite, recipes. Importing it imports TensorFlow."""

from ..tensorflow_setup import import_tensorflow

import_tensorflow()
