"""Attention's projections as weights, and keys' and values' folded into queries' and outputs'.

Keys and values are projections of vectors f, be they a photo's features or what earlier words brought to a layer:

    query . (W_key f + b_key)                    = (W_key^T query) . f + what is the same for all f
    W_output sum_n share_n (W_value f_n + b_value) = W_output W_value (sum_n share_n f_n) + W_output b_value

Softmax takes no notice of what is the same for all f. So the weights of queries and outputs can have these projections
in them, and the vectors themselves are the keys and values of all heads (as the latent vectors are in DeepSeek-AI,
2024, "DeepSeek-V2").

B batch, H heads, D key dim, C channels of the vectors, U units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from .products import product

WORDS = 10  # of a caption, as people write them

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Projection:
    """Of vectors to heads, kernel (in, H, out) and bias (H, out), or back, kernel (H, in, out) and bias (out,)."""

    kernel: Floats
    bias: Floats

    @classmethod
    def read(cls, weights: Mapping[str, Floats], name: str) -> Projection:
        """Out of a decoder's weights."""
        return cls(weights[f"{name}.kernel"], weights[f"{name}.bias"])


@dataclass(frozen=True)
class Attention:
    """A layer's projections; those of queries have the scores' 1/sqrt(D) in them."""

    query: Projection  # (U, H, D), (H, D)
    key: Projection  # (C, H, D), (H, D)
    value: Projection  # (C, H, D), (H, D)
    output: Projection  # (H, D, U), (U,)

    @classmethod
    def read(cls, weights: Mapping[str, Floats], name: str) -> Attention:
        """Out of a decoder's weights."""
        query, key, value = (Projection.read(weights, f"{name}.{kind}") for kind in ("query", "key", "value"))
        scale = np.float32(1 / np.sqrt(query.kernel.shape[-1]))
        scaled = Projection(query.kernel * scale, query.bias * scale)
        return cls(scaled, key, value, Projection.read(weights, f"{name}.attention_output"))

    @property
    def folded(self) -> tuple[Projection, Projection]:
        """The query (U, H, C), (H, C) and the output (H, C, U), (U,) with the others in them."""
        return _with_key(self.query, self.key), _with_value(self.output, self.value)


def flat(projection: Projection) -> tuple[Floats, Floats]:
    """A projection to heads as one matrix (in, H * out) and its bias (H * out,)."""
    return projection.kernel.reshape(len(projection.kernel), -1), projection.bias.reshape(-1)


def by_heads(projected: tf.Tensor, projection: Projection) -> tf.Tensor:
    """What a projection to heads gives (B, H * out), apart (B, H, 1, out)."""
    heads, out = projection.bias.shape
    return tf.reshape(projected, [-1, heads, 1, out])


def asked(x: tf.Tensor, query: Projection, layer: str) -> tf.Tensor:
    """The queries (B, H, 1, X) of x (B, U)."""
    return by_heads(product(x, *flat(query), f"{layer}/query"), query)


def answered(shares: tf.Tensor, values: tf.Tensor, output: Projection, layer: str) -> tf.Tensor:
    """What shares (B, H, 1, N) of values (B, H or 1, N, X) come to, projected to (B, U)."""
    kernel, bias = output.kernel.reshape(-1, len(output.bias)), output.bias
    attended = tf.reshape(tf.matmul(shares, values), [-1, len(kernel)])  # (B, H * X)
    return product(attended, kernel, bias, f"{layer}/output")


def size(projections: Sequence[Projection]) -> int:
    """The multiplications for one vector."""
    return sum(projection.kernel.size for projection in projections)


def _with_key(query: Projection, key: Projection) -> Projection:
    keys = np.moveaxis(key.kernel, 0, -1).astype(np.float64)  # (H, D, C)
    kernel, bias = np.swapaxes(query.kernel, 0, 1) @ keys, query.bias[:, np.newaxis] @ keys  # (H, U, C), (H, 1, C)
    return Projection(np.swapaxes(kernel, 0, 1).astype(np.float32), bias[:, 0].astype(np.float32))


def _with_value(output: Projection, value: Projection) -> Projection:
    outputs = output.kernel.astype(np.float64)  # (H, D, U)
    kernel, bias = np.swapaxes(value.kernel, 0, 1) @ outputs, output.bias + np.tensordot(value.bias, outputs)
    return Projection(kernel.astype(np.float32), bias.astype(np.float32))
