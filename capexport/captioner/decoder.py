"""The captioner's decoder as functions of its variables, for training and sampling several captions of each photo.

The keys and values of cross-attention depend on the photo alone and are computed once for all of its captions; the
products with weights are taken over real tokens only, never over padding; sampling keeps the keys and values of the
words so far. What is computed is what layers.py computes.

P photos, C captions each, T text positions, R of them real (not padding), N image positions, H heads, D key dim,
U units, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from ..vocabulary import END, START
from .measures import measure
from .weights import OUTPUT_KERNEL, TOKENS, decoder_variables, layer_indices, output_bias

MASKED = -1e9
BANNED = -1e8  # a logit's bias below this bans the token

Cross = list[tuple[tf.Tensor, tf.Tensor]]  # keys and values (P, H, N, D) of each layer


@dataclass(frozen=True)
class Dropout:
    """What training drops: a share of attention's weights and of the feed-forward blocks' outputs, as in layers.py.

    seed  int32 (2,); the same seed drops the same, so that a resumed run is the undisturbed one
    """

    rate: float
    seed: tf.Tensor

    def __call__(self, x: tf.Tensor, place: int) -> tf.Tensor:
        seed = tf.random.experimental.stateless_fold_in(self.seed, place)
        return tf.nn.experimental.stateless_dropout(x, self.rate, seed) if self.rate else x


class Decoder:
    """The decoder of a captioner, whose variables it reads at every call.

    dtype  of the products with weights: tf.bfloat16 where the hardware is quick at it; all else is float32
    """

    def __init__(self, captioner: Any, dtype: tf.DType = tf.float32) -> None:
        self.variables = decoder_variables(captioner)
        self.bias = output_bias(captioner)
        self._shape = measure(captioner)
        words = captioner.tokenizer.get_vocabulary()
        self.start, self.end = words.index(START), words.index(END)
        self._dtype = dtype
        self._epsilons = {
            f"decoder_layers.{i}.{block}": getattr(captioner.decoder_layers[i], block).layernorm.epsilon
            for i in layer_indices(captioner)
            for block in ("self_attention", "cross_attention", "ff")
        }

    def cross(self, features: tf.Tensor) -> Cross:
        """Features (P, h, w, C) as keys and values, by one product for all layers."""
        heads, size = self._shape.heads, self._shape.key_dim
        names = [f"{self._block(i, 'cross_attention')}.{kind}" for i in self._layers() for kind in ("key", "value")]
        kernel, bias = self._joined(names)
        flat = tf.reshape(features, [-1, features.shape[-1]])  # (P * N, channels)
        positions = features.shape[1] * features.shape[2]
        product = tf.reshape(self._product(flat, kernel) + bias, [-1, positions, len(names), heads, size])
        made = tf.unstack(tf.transpose(product, [2, 0, 3, 1, 4]), len(names))  # each (P, H, N, D)
        return list(zip(made[0::2], made[1::2], strict=True))

    def logits(self, cross: Cross, tokens: tf.Tensor, real: tf.Tensor, dropout: Dropout | None = None) -> tf.Tensor:
        """The logits (R, V) of the tokens that follow those of (P, C, T) at the real places.

        real  bool (P, C, T); in every caption all places up to the last real one are real
        """
        count, captions, length = (tf.shape(tokens)[axis] for axis in range(3))
        rows = tf.where(tf.reshape(real, [-1]))  # (R, 1)
        table, places = (self.variables[f"seq_embedding.{name}_embedding.embeddings"] for name in ("token", "pos"))
        x = tf.gather(table, tf.gather_nd(tf.reshape(tokens, [-1]), rows))  # (R, U)
        x += tf.gather(places, tf.cast(rows[:, 0], tf.int32) % length)
        drop = dropout or Dropout(0.0, tf.constant([0, 0]))
        for i in self._layers():
            name = self._block(i, "self_attention")
            spread = self._spread(self._query_key_value(x, name), rows, count * captions * length)
            split = tf.reshape(spread, [-1, length, 3, self._shape.heads, self._shape.key_dim])
            query, keys, values = tf.unstack(tf.transpose(split, [2, 0, 3, 1, 4]), 3)  # (P * C, H, T, D)
            attended = self._attend(query, keys, values, lambda s, i=i: drop(s, 3 * i), causal=True)
            x = self._normed(x + self._output(self._rows(attended, rows), name), f"decoder_layers.{i}.self_attention")
            name = self._block(i, "cross_attention")
            query = self._spread(self._query(x, name), rows, count * captions * length)
            query = tf.reshape(query, [-1, captions * length, self._shape.heads, self._shape.key_dim])
            query = tf.transpose(query, [0, 2, 1, 3])  # (P, H, C * T, D)
            attended = self._attend(query, *cross[i], lambda s, i=i: drop(s, 3 * i + 1))
            x = self._normed(x + self._output(self._rows(attended, rows), name), f"decoder_layers.{i}.cross_attention")
            x = self._normed(x + drop(self._feed_forward(x, i), 3 * i + 2), f"decoder_layers.{i}.ff")
        return self._logits(x)

    def sample(self, cross: Cross, captions: int, length: int, seed: tf.Tensor | None = None) -> tf.Tensor:
        """So many captions of each photo: ids (P, C, T + 1) from [START] up to [END], zeros after it.

        length  the most tokens after [START]; captions that are not over then have no [END]
        seed    int32 (2,) of the draws; None takes the likeliest token each time, so that all captions are the same
        """
        photos, heads, size = tf.shape(cross[0][0])[0], self._shape.heads, self._shape.key_dim
        rows = photos * captions
        empty = tf.zeros([rows, heads, 0, size])
        caches = [(empty, empty) for _ in self._layers()]

        def unfinished(said: tf.Tensor, over: tf.Tensor, _) -> tf.Tensor:
            return (tf.shape(said)[1] <= length) & ~tf.reduce_all(over)

        def say(said: tf.Tensor, over: tf.Tensor, caches: Any):
            logits, caches = self._step(said[:, -1], tf.shape(said)[1] - 1, cross, captions, caches)
            if seed is None:
                following = tf.argmax(logits, axis=-1, output_type=tf.int32)
            else:
                draw = tf.random.experimental.stateless_fold_in(seed, tf.shape(said)[1])
                following = tf.random.stateless_categorical(logits, 1, draw, tf.int32)[:, 0]
                # Of logits that are not numbers it is no token, which no table has; the loss then says what is wrong.
                following = tf.minimum(following, logits.shape[-1] - 1)
            following = tf.where(over, 0, following)
            return tf.concat([said, following[:, tf.newaxis]], axis=1), over | (following == self.end), caches

        grown = tf.TensorShape([None, heads, None, size])
        shapes = (tf.TensorShape([None, None]), tf.TensorShape([None]), [(grown, grown)] * self._shape.layers)
        begun = (tf.fill([rows, 1], self.start), tf.zeros([rows], tf.bool), caches)
        said, _, _ = tf.while_loop(unfinished, say, begun, shape_invariants=shapes)
        return tf.reshape(said, [photos, captions, -1])

    def _step(self, tokens: tf.Tensor, position: tf.Tensor, cross: Cross, captions: int, caches: Any):
        """Logits (P * C, V) of what follows tokens (P * C,), and the grown caches."""
        heads, size = self._shape.heads, self._shape.key_dim
        table, places = (self.variables[f"seq_embedding.{name}_embedding.embeddings"] for name in ("token", "pos"))
        x = tf.gather(table, tokens) + tf.gather(places, position)  # (P * C, U)
        grown = []
        for i in self._layers():
            name = self._block(i, "self_attention")
            split = tf.reshape(self._query_key_value(x, name), [-1, 3, heads, 1, size])
            query, key, value = tf.unstack(split, axis=1)
            keys, values = (tf.concat(pair, axis=2) for pair in zip(caches[i], (key, value), strict=True))
            grown.append((keys, values))
            attended = tf.reshape(self._attend(query, keys, values), [-1, heads * size])
            x = self._normed(x + self._output(attended, name), f"decoder_layers.{i}.self_attention")
            name = self._block(i, "cross_attention")
            query = tf.transpose(tf.reshape(self._query(x, name), [-1, captions, heads, size]), [0, 2, 1, 3])
            attended = tf.transpose(self._attend(query, *cross[i]), [0, 2, 1, 3])  # (P, C, H, D)
            x = self._normed(
                x + self._output(tf.reshape(attended, [-1, heads * size]), name), f"decoder_layers.{i}.cross_attention"
            )
            x = self._normed(x + self._feed_forward(x, i), f"decoder_layers.{i}.ff")
        return self._logits(x), grown

    def _layers(self) -> range:
        return range(self._shape.layers)

    def _block(self, i: int, block: str) -> str:
        return f"decoder_layers.{i}.{block}.mha"

    def _spread(self, x: tf.Tensor, rows: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        """Real rows (R, X) put at their places among all (P * C * T, X), zeros elsewhere."""
        return tf.scatter_nd(rows, x, tf.cast(tf.stack([count, x.shape[-1]]), tf.int64))

    def _rows(self, attended: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        """The real rows (R, H * D) of what heads attended to, (..., H, T, D)."""
        flat = tf.reshape(tf.transpose(attended, [0, 2, 1, 3]), [-1, self._shape.heads * self._shape.key_dim])
        return tf.gather_nd(flat, rows)

    def _attend(self, query: tf.Tensor, keys: tf.Tensor, values: tf.Tensor, drop=None, causal: bool = False):
        scores = tf.matmul(query, keys, transpose_b=True)  # (B, H, T, N)
        if causal:
            seen = tf.linalg.band_part(tf.ones(tf.shape(scores)[2:]), -1, 0)
            scores += (1.0 - seen) * MASKED
        scores = tf.nn.softmax(scores)
        return tf.matmul(drop(scores) if drop else scores, values)

    def _query_key_value(self, x: tf.Tensor, name: str) -> tf.Tensor:
        """Queries, scaled, keys and values: (R, 3 * H * D)."""
        kernel, bias = self._joined([f"{name}.{part}" for part in ("query", "key", "value")])
        product = self._product(x, kernel) + bias
        width = self._shape.heads * self._shape.key_dim
        return tf.concat([product[:, :width] * self._scale(), product[:, width:]], axis=1)

    def _query(self, x: tf.Tensor, name: str) -> tf.Tensor:
        kernel, bias = self._joined([f"{name}.query"])
        return (self._product(x, kernel) + bias) * self._scale()

    def _scale(self) -> float:
        return float(self._shape.key_dim) ** -0.5

    def _joined(self, names: list[str]) -> tuple[tf.Tensor, tf.Tensor]:
        """Projections into heads side by side as one matrix (in, X) and its bias (X,)."""
        kernels = [tf.reshape(k, [k.shape[0], -1]) for k in (self.variables[f"{name}.kernel"] for name in names)]
        biases = [tf.reshape(self.variables[f"{name}.bias"], [-1]) for name in names]
        return tf.concat(kernels, axis=1), tf.concat(biases, axis=0)

    def _output(self, attended: tf.Tensor, name: str) -> tf.Tensor:
        kernel, bias = (self.variables[f"{name}.attention_output.{part}"] for part in ("kernel", "bias"))
        return self._product(attended, tf.reshape(kernel, [-1, kernel.shape[-1]])) + bias

    def _feed_forward(self, x: tf.Tensor, i: int) -> tf.Tensor:
        for place in ("first", "second"):
            kernel, bias = (self.variables[f"decoder_layers.{i}.ff.{place}.{part}"] for part in ("kernel", "bias"))
            x = self._product(x, kernel) + bias
            x = tf.nn.relu(x) if place == "first" else x
        return x

    def _normed(self, x: tf.Tensor, block: str) -> tf.Tensor:
        mean, variance = tf.nn.moments(x, axes=[-1], keepdims=True)
        gamma, beta = (self.variables[f"{block}.norm.{part}"] for part in ("gamma", "beta"))
        return (x - mean) * tf.math.rsqrt(variance + self._epsilons[block]) * gamma + beta

    def _logits(self, x: tf.Tensor) -> tf.Tensor:
        own = self.variables.get(OUTPUT_KERNEL)
        kernel = tf.transpose(self.variables[TOKENS]) if own is None else own  # (U, V)
        return self._product(x, kernel) + (self.variables["output_layer.dense.bias"] + self.bias)

    def _product(self, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.matmul(tf.cast(x, self._dtype), tf.cast(kernel, self._dtype)), tf.float32)
