"""What a live Keras captioner says of photos, step by step: the truth that exports are held against.

B photos, T tokens, C channels, H heads, n image positions on the diagonal, D key dim, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import einops
import numpy as np
import tensorflow as tf

from ..manifest import FEATURES
from ..parity.vectors import ParityVector, diagonal
from ..vocabulary import BANNED, END, START
from .weights import decoder_variables, layer_indices, part

BATCH = 25


def references(
    captioner: Any, pixels: Sequence[np.ndarray], names: Sequence[str] | None = None
) -> Iterator[ParityVector]:
    """Caption uint8 photos (height, width, 3) greedily, the whole prefixes through the model at every step.

    names  of the photos, if they are sample photos
    """
    names = names or [""] * len(pixels)
    for start in range(0, len(pixels), BATCH):
        batch = slice(start, start + BATCH)
        yield from _references(captioner, np.stack(pixels[batch]), names[batch])


def _references(captioner: Any, pixels: np.ndarray, names: Sequence[str]) -> list[ParityVector]:
    """The photos of one batch; what is said after a caption's [END] has no bearing on it, and is dropped."""
    words = captioner.tokenizer.get_vocabulary()
    end, max_length = words.index(END), captioner.seq_embedding.pos_embedding.input_dim
    never = [words.index(word) for word in BANNED]
    features = captioner.feature_extractor(tf.cast(pixels, tf.float32), training=False)  # (B, h, w, C)
    tokens = np.full((len(pixels), 1), words.index(START))
    while not (tokens == end).any(axis=1).all():
        logits = captioner((features, tf.constant(tokens, tf.int64)), training=False).numpy()  # (B, T, V)
        scores = np.array(logits[:, -1])
        scores[:, never] = -np.inf  # as the runtime's; the tutorial's output layer bans them, too
        following = scores.argmax(axis=-1) if tokens.shape[1] < max_length else np.full(len(pixels), end)
        tokens = np.concatenate([tokens, following[:, np.newaxis]], axis=1)
    scores = np.stack([part(captioner, f"decoder_layers.{i}.last_attention_scores") for i in layer_indices(captioner)])
    height, width = features.shape[1:3]
    attention = einops.reduce(scores, "l b heads t (h w) -> b t h w", "mean", h=height, w=width)
    memory = _memory(captioner, features.numpy())
    said = tokens[:, 1:].astype(np.int32)  # (B, T)
    lengths = (said == end).argmax(axis=1) + 1
    return [
        ParityVector(
            pixels=pixels[k],
            memory={name: values[k] for name, values in memory.items()},
            tokens=said[k, :length],
            logits=logits[k, :length],
            log_probabilities=_log_softmax(logits[k, :length])[np.arange(length), said[k, :length]],
            attention=attention[k, :length],
            photo=names[k],
        )
        for k, length in enumerate(lengths)
    ]


def _memory(captioner: Any, features: np.ndarray) -> dict[str, np.ndarray]:
    """All that an encoder may give of features (B, h, w, C), on the diagonal: them, and what layers make of them."""
    positions = einops.rearrange(features, "b h w c -> b (h w) c")[:, diagonal(features.shape[1:3])]
    variables, found = decoder_variables(captioner), {FEATURES: positions}  # (B, n, C)
    for i in layer_indices(captioner):
        for kind in ("key", "value"):
            name = f"decoder_layers.{i}.cross_attention.mha.{kind}"
            kernel, bias = (variables[f"{name}.{array}"].numpy() for array in ("kernel", "bias"))
            projected = einops.einsum(positions, kernel, "b n c, c h d -> b h n d")
            found[f"cross_{kind}s_{i}"] = projected + bias[:, np.newaxis]  # (B, H, n, D)
    return found


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    return tf.nn.log_softmax(tf.cast(logits, tf.float64)).numpy()
