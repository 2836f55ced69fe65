"""A product by weights in a graph."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def product(x: tf.Tensor, kernel: np.ndarray, bias: np.ndarray, layer: str) -> tf.Tensor:
    """x (R, in) times kernel (in, out) plus bias (out,), under a name by which the layer is found in the graphs."""
    return tf.matmul(x, kernel, name=f"{layer}/MatMul") + bias
