"""Self-attention over the words so far, in the form that takes less work: a cache of keys and values, or of states.

A step projects its word to a key and a value, which are kept for later words (as in Pope et al., 2022, "Efficiently
Scaling Transformer Inference"). Or, with the projections folded (see projections.py), it keeps the state, which is what
the word brings to the layer: one vector that is the key and the value of all heads. Where keys are as long as states,
as the tutorial has them, a step then has half the weights to multiply by, and caches 2 H times smaller.

B batch, H heads, D key dim, U units, P past length.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla

from ..manifest import STATES, Shape
from .products import product
from .projections import WORDS, Attention, Floats, answered, asked, by_heads, flat, size

MASKED = -1e9


class Attended(NamedTuple):
    """What a layer adds to x (B, U), and its grown caches under the names that a decoder gives them."""

    added: tf.Tensor
    caches: dict[str, tf.Tensor]


class SelfAttention:
    """All layers' self-attention, out of a decoder's weights.

    grows   growing_cache of a Dialect
    folded  None: if that takes fewer multiplications for a token
    """

    def __init__(self, weights: Mapping[str, Floats], shape: Shape, grows: bool, folded: bool | None = None) -> None:
        self._shape, self._grows = shape, grows
        self._layers = [Attention.read(weights, f"decoder_layers.{i}.self_attention.mha") for i in range(shape.layers)]
        self.folded = _folding_pays(shape) if folded is None else folded
        self._folded = [layer.folded for layer in self._layers] if self.folded else []

    @property
    def cache(self) -> dict[str, tuple[int | None, ...]]:
        """What goes from step to step: shapes by name, B left out and None for P."""
        if self.folded:
            return {f"{STATES}{i}": (1, None, self._shape.units) for i in range(self._shape.layers)}
        names = [f"self_{kind}_{i}" for i in range(self._shape.layers) for kind in ("keys", "values")]
        return dict.fromkeys(names, (self._shape.heads, None, self._shape.key_dim))

    def attend(self, x: tf.Tensor, caches: Mapping[str, tf.Tensor], position: tf.Tensor, i: int) -> Attended:
        """What layer i adds to x (B, U) of the word at this position."""
        return (self._attend_states if self.folded else self._attend_keys)(x, caches, position, i)

    @property
    def token_multiplications(self) -> int:
        """By weights, for one token."""
        if self.folded:
            return sum(map(size, self._folded))
        return sum(size([layer.query, layer.key, layer.value, layer.output]) for layer in self._layers)

    def _attend_states(self, x: tf.Tensor, caches: Mapping[str, tf.Tensor], position: tf.Tensor, i: int) -> Attended:
        layer, (query, output) = f"layer_{i}/self_attention", self._folded[i]
        state = tf.reshape(x, [-1, 1, 1, self._shape.units])
        states = self._appended(caches[f"{STATES}{i}"], state, position)  # (B, 1, P, U)
        shares = self._shares(asked(x, query, layer), states, position)
        return Attended(answered(shares, states, output, layer), {f"next_states_{i}": states})

    def _attend_keys(self, x: tf.Tensor, caches: Mapping[str, tf.Tensor], position: tf.Tensor, i: int) -> Attended:
        layer, own = f"layer_{i}/self_attention", self._layers[i]
        projections = (own.query, own.key, own.value)
        kernel, bias = (np.concatenate(parts, axis=-1) for parts in zip(*map(flat, projections), strict=True))
        joined = product(x, kernel, bias, f"{layer}/query_key_value")  # (B, 3 * H * D)
        query, key, value = map(by_heads, tf.split(joined, 3, axis=1), projections)  # (B, H, 1, D)
        keys = self._appended(caches[f"self_keys_{i}"], key, position)  # (B, H, P, D)
        values = self._appended(caches[f"self_values_{i}"], value, position)
        added = answered(self._shares(query, keys, position), values, own.output, layer)
        return Attended(added, {f"next_keys_{i}": keys, f"next_values_{i}": values})

    def _appended(self, cache: tf.Tensor, new: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
        """A cache (B, H or 1, P, X) with a word's (B, H or 1, 1, X)."""
        if self._grows:
            return tf.concat([cache, new], axis=2)
        zero = tf.constant(0)
        return xla.dynamic_update_slice(cache, new, tf.stack([zero, zero, position, zero]))

    def _shares(self, query: tf.Tensor, keys: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
        """How much queries (B, H, 1, X) attend to keys: (B, H, 1, P)."""
        scores = tf.matmul(query, keys, transpose_b=True)
        if not self._grows:
            future = tf.range(tf.shape(keys)[-2]) > position  # (P,)
            scores += tf.cast(future, tf.float32) * MASKED
        return tf.nn.softmax(scores)


def _folding_pays(shape: Shape) -> bool:
    """Whether a token takes fewer multiplications so, with those by half a caption's words.

    What there is once for each head, and for keys as for values, is left out.
    """
    words = WORDS // 2
    return shape.units * (shape.units + words) < shape.key_dim * (2 * shape.units + words)
