"""The layers of the tutorial "Image captioning with visual attention" (TensorFlow), under its names.

B batch, T text positions, N image positions, D units, H heads, V vocabulary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from operator import length_hint

import numpy as np
import tensorflow as tf
import tf_keras

from ..errors import SourceError
from ..progress import track
from ..vocabulary import BANNED

BANNED_LOGIT = -1e9


class SeqEmbedding(tf_keras.layers.Layer):
    """Token embedding plus learned position embedding: ids (B, T) -> (B, T, D)."""

    def __init__(self, vocab_size: int, max_length: int, depth: int) -> None:
        super().__init__()
        self.pos_embedding = tf_keras.layers.Embedding(max_length, depth)
        self.token_embedding = tf_keras.layers.Embedding(vocab_size, depth, mask_zero=True)
        self.add = tf_keras.layers.Add()

    def call(self, seq: tf.Tensor) -> tf.Tensor:
        tokens = self.token_embedding(seq)  # (B, T, D)
        positions = self.pos_embedding(tf.range(tf.shape(seq)[1]))  # (T, D)
        return self.add([tokens, tf.broadcast_to(positions, tf.shape(tokens))])


class CausalSelfAttention(tf_keras.layers.Layer):
    """Self-attention in which no position sees a later one, residual, layer norm: (B, T, D) -> (B, T, D)."""

    def __init__(self, **kwargs) -> None:
        super().__init__()
        self.mha = tf_keras.layers.MultiHeadAttention(**kwargs)
        self.add = tf_keras.layers.Add()
        self.layernorm = tf_keras.layers.LayerNormalization()

    def call(self, x: tf.Tensor) -> tf.Tensor:
        attended = self.mha(query=x, value=x, use_causal_mask=True)
        return self.layernorm(self.add([x, attended]))


class CrossAttention(tf_keras.layers.Layer):
    """Attention of the text (B, T, D) to the image (B, N, C), residual, layer norm.

    The latest call's scores stay in `last_attention_scores` (B, H, T, N).
    """

    def __init__(self, **kwargs) -> None:
        super().__init__()
        self.mha = tf_keras.layers.MultiHeadAttention(**kwargs)
        self.add = tf_keras.layers.Add()
        self.layernorm = tf_keras.layers.LayerNormalization()

    def call(self, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        attended, self.last_attention_scores = self.mha(query=x, value=y, return_attention_scores=True)
        return self.layernorm(self.add([x, attended]))


class FeedForward(tf_keras.layers.Layer):
    """Two dense layers, dropout, residual, layer norm: (B, T, D) -> (B, T, D)."""

    def __init__(self, units: int, dropout_rate: float = 0.1) -> None:
        super().__init__()
        self.seq = tf_keras.Sequential(
            [
                tf_keras.layers.Dense(2 * units, activation="relu"),
                tf_keras.layers.Dense(units),
                tf_keras.layers.Dropout(dropout_rate),
            ]
        )
        self.layernorm = tf_keras.layers.LayerNormalization()

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.layernorm(x + self.seq(x))


class DecoderLayer(tf_keras.layers.Layer):
    """Self-attention, cross-attention, feed-forward: (image (B, N, C), text (B, T, D)) -> text (B, T, D)."""

    def __init__(self, units: int, num_heads: int = 1, dropout_rate: float = 0.1, key_dim: int | None = None) -> None:
        super().__init__()
        attention = {"num_heads": num_heads, "key_dim": key_dim or units, "dropout": dropout_rate}
        self.self_attention = CausalSelfAttention(**attention)
        self.cross_attention = CrossAttention(**attention)
        self.ff = FeedForward(units, dropout_rate)

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        in_seq, out_seq = inputs
        out_seq = self.self_attention(out_seq)
        out_seq = self.cross_attention(out_seq, in_seq)
        self.last_attention_scores = self.cross_attention.last_attention_scores
        return self.ff(out_seq)


class TiedDense(tf_keras.layers.Layer):
    """Logits by the vectors that embed the words, (B, T, D) -> (B, T, V), and a bias that is learnt.

    (Press and Wolf, 2017, "Using the Output Embedding to Improve Language Models")
    """

    def __init__(self, embedding: tf_keras.layers.Embedding) -> None:
        super().__init__()
        self._table = lambda: embedding.embeddings  # (V, D); as an attribute it would be a weight of both layers

    def build(self, input_shape: tf.TensorShape) -> None:
        self.bias = self.add_weight("bias", [self._table().shape[0]], initializer="zeros")
        super().build(input_shape)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.matmul(x, self._table(), transpose_b=True) + self.bias


class TokenOutput(tf_keras.layers.Layer):
    """Logits of the next token: (B, T, D) -> (B, T, V), with a bias per token that bans some of them."""

    def __init__(
        self, tokenizer: tf_keras.layers.TextVectorization, banned_tokens: Sequence[str] = BANNED, **kwargs
    ) -> None:
        super().__init__()
        self.dense = tf_keras.layers.Dense(tokenizer.vocabulary_size(), **kwargs)
        self.tokenizer = tokenizer
        self.banned_tokens = tuple(banned_tokens)
        self.bias: np.ndarray | None = None  # (V,) float32

    def adapt(self, labels: Iterable[tf.Tensor | np.ndarray]) -> tuple[float, float]:
        """Set the bias to each token's log-probability among batches of labels; tokens not seen are banned, too.

        Returns the entropy (nats a token) of a uniform and of this marginal distribution: what a model that
        knows nothing, and one that knows only how frequent words are, would have as its loss.
        """
        counter: Counter[int] = Counter()
        for batch in track(labels, length_hint(labels) or None, "counting words"):
            counter.update(np.asarray(batch).reshape(-1).tolist())
        vocabulary = self.tokenizer.get_vocabulary()
        counts = np.zeros(len(vocabulary))
        counts[list(counter)] = list(counter.values())
        for token in self.banned_tokens:
            counts[vocabulary.index(token)] = 0
        seen = counts > 0
        log_p = np.log(counts[seen] / counts.sum())
        bias = np.full(len(counts), BANNED_LOGIT, np.float32)
        bias[seen] = log_p
        self.bias = bias
        return float(np.log(len(counts))), float(-(np.exp(log_p) * log_p).sum())

    def call(self, x: tf.Tensor) -> tf.Tensor:
        if self.bias is None:
            raise SourceError("TokenOutput has no bias yet: call adapt() before the model.")
        return self.dense(x) + self.bias
