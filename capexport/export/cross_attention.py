"""Cross-attention in the form that takes less work: with keys and values, or with their projections folded away.

Keys and values depend on the photo alone, so an encoder can project them for each layer once. Or it need not at all:
with the projections folded (see projections.py) features are the keys and values of all heads and layers. A photo then
costs less and a token more; it pays where keys are not much shorter than features.

B batch, L layers, H heads, D key dim, N image positions, C channels, U units.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import tensorflow as tf

from ..manifest import FEATURES, Shape
from .products import product
from .projections import WORDS, Attention, Floats, answered, asked, flat, size


class CrossAttention:
    """All layers' cross-attention, out of a decoder's weights.

    folded  None: if that takes fewer multiplications for a caption
    """

    def __init__(self, weights: Mapping[str, Floats], shape: Shape, folded: bool | None = None) -> None:
        self._shape, self._positions = shape, math.prod(shape.feature_map)
        layers = [Attention.read(weights, f"decoder_layers.{i}.cross_attention.mha") for i in range(shape.layers)]
        self._keys, self._values = [layer.key for layer in layers], [layer.value for layer in layers]
        self._channels = len(self._keys[0].kernel)
        self.folded = _folding_pays(shape, self._channels) if folded is None else folded
        pairs = [layer.folded if self.folded else (layer.query, layer.output) for layer in layers]
        self._queries, self._outputs = ([pair[k] for pair in pairs] for k in (0, 1))

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
            for i, projection in enumerate(projections):
                name = f"cross_{kind}_{i}"
                projected = product(rows, *flat(projection), name)  # (B * N, H * D)
                projected = tf.reshape(projected, [-1, self._positions, *projection.bias.shape])
                made[name] = tf.transpose(projected, [0, 2, 1, 3])  # (B, H, N, D)
        return made

    def attend(self, x: tf.Tensor, memory: Mapping[str, tf.Tensor], i: int) -> tuple[tf.Tensor, tf.Tensor]:
        """What layer i adds to x (B, U), and its attention (B, H, 1, N)."""
        layer = f"layer_{i}/cross_attention"
        query = asked(x, self._queries[i], layer)  # (B, H, 1, X)
        if self.folded:
            keys = values = tf.expand_dims(memory[FEATURES], 1)  # (B, 1, N, C)
        else:
            keys, values = (memory[f"cross_{kind}_{i}"] for kind in ("keys", "values"))  # (B, H, N, D)
        shares = tf.nn.softmax(tf.matmul(query, keys, transpose_b=True))  # (B, H, 1, N)
        return answered(shares, values, self._outputs[i], layer), shares

    @property
    def photo_multiplications(self) -> int:
        """By weights, for one photo."""
        return 0 if self.folded else self._positions * size([*self._keys, *self._values])

    @property
    def token_multiplications(self) -> int:
        """By weights, for one token."""
        return size([*self._queries, *self._outputs])


def _folding_pays(shape: Shape, channels: int) -> bool:
    """Whether a caption takes fewer multiplications so, those of a token with the positions counted in.

    What there is once for each head, layer, and for keys as for values, is left out.
    """
    positions = math.prod(shape.feature_map)
    words = WORDS * (shape.units + positions)
    return words * channels < words * shape.key_dim + positions * channels * shape.key_dim
