"""What a live Keras captioner says of photos, step by step: the truth that exports are held against.

B photos, T tokens, L layers, H heads, N image positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import einops
import numpy as np
import tensorflow as tf

from ..parity_vectors import ParityVector
from ..vocabulary import END, START
from .weights import layer_indices, part

BATCH = 25


def references(captioner: Any, pixels: Sequence[np.ndarray]) -> Iterator[ParityVector]:
    """Caption uint8 photos (height, width, 3) greedily, the whole prefixes through the model at every step."""
    for start in range(0, len(pixels), BATCH):
        yield from _references(captioner, np.stack(pixels[start : start + BATCH]))


def _references(captioner: Any, pixels: np.ndarray) -> list[ParityVector]:
    """The photos of one batch; what is said after a caption's [END] has no bearing on it, and is dropped."""
    words = captioner.tokenizer.get_vocabulary()
    end, max_length = words.index(END), captioner.seq_embedding.pos_embedding.input_dim
    features = captioner.feature_extractor(tf.cast(pixels, tf.float32), training=False)  # (B, h, w, C)
    tokens = np.full((len(pixels), 1), words.index(START))
    while not (tokens == end).any(axis=1).all():
        logits = captioner((features, tf.constant(tokens, tf.int64)), training=False).numpy()  # (B, T, V)
        following = logits[:, -1].argmax(axis=-1) if tokens.shape[1] < max_length else np.full(len(pixels), end)
        tokens = np.concatenate([tokens, following[:, np.newaxis]], axis=1)
    scores = np.stack([part(captioner, f"decoder_layers.{i}.last_attention_scores") for i in layer_indices(captioner)])
    height, width = features.shape[1:3]
    attention = einops.reduce(scores, "l b heads t (h w) -> b t h w", "mean", h=height, w=width)
    said = tokens[:, 1:].astype(np.int32)  # (B, T)
    lengths = (said == end).argmax(axis=1) + 1
    return [
        ParityVector(
            pixels=pixels[k],
            tokens=said[k, :length],
            logits=logits[k, :length],
            log_probabilities=_log_softmax(logits[k, :length])[np.arange(length), said[k, :length]],
            attention=attention[k, :length],
        )
        for k, length in enumerate(lengths)
    ]


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    return tf.nn.log_softmax(tf.cast(logits, tf.float64)).numpy()
