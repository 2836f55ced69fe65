"""Cross-attention in the form that takes less work: with keys and values, or with their projections folded away.

Keys and values depend on the photo alone, so an encoder can project them for each layer once. Or it need not at all:

    query . (W_key f + b_key)                    = (W_key^T query) . f + what is the same for all positions
    W_output sum_n share_n (W_value f_n + b_value) = W_output W_value (sum_n share_n f_n) + W_output b_value

Softmax takes no notice of what is the same for all positions. So the weights of queries and outputs can have these
projections in them, and the features f themselves are the keys and values of all heads and layers (as the latent
vectors are in DeepSeek-AI, 2024, "DeepSeek-V2"). A photo then costs less and a token more; it pays where keys are not
much shorter than features.

B batch, L layers, H heads, D key dim, N image positions, C channels, U units.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ..manifest import FEATURES, Shape
from .products import product

WORDS = 10  # of a caption, as people write them

Floats = NDArray[np.float32]
Projection = tuple[Floats, Floats]  # kernel and bias


class CrossAttention:
    """All layers' cross-attention, out of a decoder's weights.

    folded  None: if that takes fewer multiplications for a caption
    """

    def __init__(self, weights: Mapping[str, Floats], shape: Shape, folded: bool | None = None) -> None:
        self._shape, self._positions = shape, math.prod(shape.feature_map)
        names = [f"decoder_layers.{i}.cross_attention.mha" for i in range(shape.layers)]
        self._keys, self._values = (
            [_projection(weights, f"{name}.{kind}") for name in names] for kind in ("key", "value")
        )  # (C, H, D), (H, D)
        self._queries = [_scaled(*_projection(weights, f"{name}.query")) for name in names]  # (U, H, X), (H, X)
        self._outputs = [_projection(weights, f"{name}.attention_output") for name in names]  # (H, X, U), (U,)
        self._channels = len(self._keys[0][0])
        self.folded = _folding_pays(shape, self._channels) if folded is None else folded
        if self.folded:
            self._queries = list(map(_with_key, self._queries, self._keys))
            self._outputs = list(map(_with_value, self._outputs, self._values))

    @property
    def memory(self) -> dict[str, tuple[int, ...]]:
        """What an encoder gives and every step of a decoder takes: shapes by name, B left out."""
        if self.folded:
            return {FEATURES: (self._positions, self._channels)}
        names = [f"cross_{kind}_{i}" for i in range(self._shape.layers) for kind in ("keys", "values")]
        return dict.fromkeys(names, (self._shape.heads, self._positions, self._shape.key_dim))

    def remember(self, features: tf.Tensor) -> dict[str, tf.Tensor]:
        """The memory of features (B, N, C)."""
        if self.folded:
            return {FEATURES: tf.identity(features)}
        rows, made = tf.reshape(features, [-1, self._channels]), {}  # (B * N, C)
        for kind, projections in (("keys", self._keys), ("values", self._values)):
            for i, (kernel, bias) in enumerate(projections):
                name = f"cross_{kind}_{i}"
                projected = product(rows, kernel.reshape(self._channels, -1), bias.reshape(-1), name)  # (B * N, H * D)
                projected = tf.reshape(projected, [-1, self._positions, *bias.shape])
                made[name] = tf.transpose(projected, [0, 2, 1, 3])  # (B, H, N, D)
        return made

    def attend(self, x: tf.Tensor, memory: Mapping[str, tf.Tensor], i: int) -> tuple[tf.Tensor, tf.Tensor]:
        """What layer i adds to x (B, U), and its attention (B, H, N)."""
        (kernel, bias), heads = self._queries[i], self._shape.heads
        query = product(x, kernel.reshape(len(kernel), -1), bias.reshape(-1), f"layer_{i}/cross_attention/query")
        if self.folded:
            keys = values = memory[FEATURES]  # (B, N, C)
            query = tf.reshape(query, [-1, heads, self._channels])
        else:
            keys, values = (memory[f"cross_{kind}_{i}"] for kind in ("keys", "values"))  # (B, H, N, D)
            query = tf.reshape(query, [-1, heads, 1, self._shape.key_dim])
        scores = tf.nn.softmax(tf.matmul(query, keys, transpose_b=True))  # (B, H, N) or (B, H, 1, N)
        kernel, bias = self._outputs[i]
        kernel = kernel.reshape(-1, len(bias))  # (H * X, U)
        attended = tf.reshape(tf.matmul(scores, values), [-1, len(kernel)])
        attended = product(attended, kernel, bias, f"layer_{i}/cross_attention/output")  # (B, U)
        return attended, scores if self.folded else tf.squeeze(scores, axis=2)

    @property
    def photo_multiplications(self) -> int:
        """By weights, for one photo."""
        return 0 if self.folded else self._positions * _size([*self._keys, *self._values])

    @property
    def token_multiplications(self) -> int:
        """By weights, for one token."""
        return _size([*self._queries, *self._outputs])


def _projection(weights: Mapping[str, Floats], name: str) -> Projection:
    return weights[f"{name}.kernel"], weights[f"{name}.bias"]


def _scaled(kernel: Floats, bias: Floats) -> Projection:
    """A query's projection with 1/sqrt(D) of the scores in it."""
    scale = np.float32(1 / np.sqrt(kernel.shape[-1]))
    return kernel * scale, bias * scale


def _with_key(query: Projection, key: Projection) -> Projection:
    """Queries to features: (U, H, C), (H, C)."""
    kernel, bias = (np.einsum("...hd,chd->...hc", part, key[0], dtype=np.float64) for part in query)
    return kernel.astype(np.float32), bias.astype(np.float32)


def _with_value(output: Projection, value: Projection) -> Projection:
    """Outputs of features: (H, C, U), (U,)."""
    kernel = np.einsum("chd,hdu->hcu", value[0], output[0], dtype=np.float64)
    bias = output[1] + np.einsum("hd,hdu->u", value[1], output[0], dtype=np.float64)
    return kernel.astype(np.float32), bias.astype(np.float32)


def _size(projections: Sequence[Projection]) -> int:
    return sum(kernel.size for kernel, _ in projections)


def _folding_pays(shape: Shape, channels: int) -> bool:
    """Whether a caption takes fewer multiplications so, those of a token with the positions counted in.

    What there is once for each head, layer, and for keys as for values, is left out.
    """
    positions = math.prod(shape.feature_map)
    words = WORDS * (shape.units + positions)
    return words * channels < words * shape.key_dim + positions * channels * shape.key_dim
