"""What a live Keras captioner says of photos, step by step: the truth that exports are held against.

B photos, T tokens, C channels, H heads, n image positions on the diagonal, D key dim, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, takewhile
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
    captioner: Any,
    pixels: Sequence[np.ndarray],
    names: Sequence[str] | None = None,
    guesses: Sequence[Iterable[int]] | None = None,
) -> Iterator[ParityVector]:
    """Caption uint8 photos (height, width, 3) greedily, the whole prefixes through the model at every step.

    names    of the photos, if they are sample photos
    guesses  tokens that the photos' captions may have. The captions are the model's own all the same: it says at once
             what comes after each prefix of a guess, and goes on from the first word that is another
    """
    names = names or [""] * len(pixels)
    guesses = guesses or [()] * len(pixels)
    for start in range(0, len(pixels), BATCH):
        batch = slice(start, start + BATCH)
        yield from _references(captioner, np.stack(pixels[batch]), names[batch], guesses[batch])


def _references(
    captioner: Any, pixels: np.ndarray, names: Sequence[str], guesses: Iterable[Iterable[int]]
) -> list[ParityVector]:
    """The photos of one batch; what is said after a caption's [END] has no bearing on it, and is dropped."""
    words = captioner.tokenizer.get_vocabulary()
    end, max_length = words.index(END), captioner.seq_embedding.pos_embedding.input_dim
    never = [words.index(word) for word in BANNED]
    features = captioner.feature_extractor(tf.cast(pixels, tf.float32), training=False)  # (B, h, w, C)
    guessed = _ended(guesses, max_length, end)
    while True:  # each time, what is right of a caption is a word longer at least
        tokens = np.insert(guessed[:, :-1], 0, words.index(START), axis=1)
        logits = captioner((features, tf.constant(tokens, tf.int64)), training=False).numpy()  # (B, T, V)
        scores = logits.copy()
        scores[..., never] = -np.inf  # as the runtime's; the tutorial's output layer bans them, too
        said = _ended(scores.argmax(axis=-1), max_length, end)
        if np.array_equal(said, guessed):
            break
        guessed = said
    scores = np.stack([part(captioner, f"decoder_layers.{i}.last_attention_scores") for i in layer_indices(captioner)])
    height, width = features.shape[1:3]
    attention = einops.reduce(scores, "l b heads t (h w) -> b t h w", "mean", h=height, w=width)
    memory = _memory(captioner, features.numpy())
    return [
        ParityVector(
            pixels=pixels[k],
            memory={name: values[k] for name, values in memory.items()},
            tokens=said[k, :length].astype(np.int32),
            logits=logits[k, :length],
            log_probabilities=_log_softmax(logits[k, :length])[np.arange(length), said[k, :length]],
            attention=attention[k, :length],
            photo=names[k],
        )
        for k, length in enumerate((said == end).argmax(axis=1) + 1)
    ]


def _ended(captions: Iterable[Iterable[int]], max_length: int, end: int) -> np.ndarray:
    """Captions as rows (B, T), each with an [END], and nothing else after it."""
    words = [list(takewhile(lambda token: token != end, islice(caption, max_length - 1))) for caption in captions]
    rows = np.full((len(words), max(map(len, words)) + 1), end)
    for row, said in zip(rows, words, strict=True):
        row[: len(said)] = said
    return rows


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
