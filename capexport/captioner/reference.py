"""What a live Keras captioner says of a photo, step by step: the truth that exports are held against."""

from __future__ import annotations

from typing import Any

import einops
import numpy as np
import tensorflow as tf

from ..parity_vectors import ParityVector
from ..vocabulary import END, START
from .weights import layer_indices, part


def reference(captioner: Any, pixels: np.ndarray) -> ParityVector:
    """Caption uint8 pixels (height, width, 3) greedily, the whole prefix through the model at every step."""
    words = captioner.tokenizer.get_vocabulary()
    features = captioner.feature_extractor(tf.cast(pixels, tf.float32)[tf.newaxis], training=False)  # (1, h, w, C)
    tokens = [words.index(START)]
    end, max_length = words.index(END), captioner.seq_embedding.pos_embedding.input_dim
    while tokens[-1] != end:
        logits = captioner((features, tf.constant([tokens], tf.int64)), training=False)[0]  # (T, V)
        tokens.append(int(tf.argmax(logits[-1])) if len(tokens) < max_length else end)
    scores = tf.stack(
        [part(captioner, f"decoder_layers.{i}.last_attention_scores") for i in layer_indices(captioner)]
    )  # (L, 1, H, T, N)
    height, width = features.shape[1:3]
    log_probabilities = tf.nn.log_softmax(tf.cast(logits, tf.float64))
    return ParityVector(
        pixels=pixels,
        tokens=np.array(tokens[1:], np.int32),
        logits=logits.numpy(),
        log_probabilities=tf.gather(log_probabilities, tokens[1:], axis=1, batch_dims=1).numpy(),
        attention=einops.reduce(scores.numpy(), "l b heads t (h w) -> t h w", "mean", h=height, w=width),
    )
