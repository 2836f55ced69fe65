"""What a decoder learns from: every caption of every photo, with the photo's cached features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from ..datasets import CaptionedPhoto
from .features import FeatureCache
from .model import Captioner

SHUFFLE_BUFFER = 1000  # pairs


class Pairs:
    """Every caption of every photo as token ids, beside the index of its photo."""

    def __init__(self, captioner: Captioner, photos: Sequence[CaptionedPhoto], work: Path) -> None:
        texts = [text for photo in photos for text in photo.captions]
        self.tokens = captioner.tokenizer(tf.constant(texts))[:, : captioner.max_length + 1]  # ragged (pairs, T + 1)
        counts = [len(photo.captions) for photo in photos]
        self.photos = np.repeat(np.arange(len(photos)), counts)
        self.starts = np.concatenate([[0], np.cumsum(counts)])  # of each photo's pairs
        self.features = FeatureCache(
            work / "features", captioner.feature_extractor, captioner.config.resize, [photo.path for photo in photos]
        )

    def labels(self, size: int) -> tf.data.Dataset:
        """The next tokens of every pair once, in order: batches of ids (B, T), zero-padded."""
        return tf.data.Dataset.from_tensor_slices(self.tokens[:, 1:]).batch(size).map(lambda batch: batch.to_tensor())

    def batches(self, size: int, seed: int) -> tf.data.Dataset:
        """Shuffled, once over all: ((features (B, h, w, C), tokens (B, T)), next tokens (B, T)), zero-padded.

        As in the tutorial the photos are shuffled, their captions follow one another, and the pairs are shuffled
        again within a buffer; its epochs are short, and its losses can only be met with its order.
        """
        photos = tf.data.Dataset.range(len(self.starts) - 1).shuffle(len(self.starts) - 1, seed=seed)
        starts = tf.constant(self.starts)
        pairs = photos.flat_map(lambda photo: tf.data.Dataset.range(starts[photo], starts[photo + 1]))
        return self._batched(pairs.shuffle(SHUFFLE_BUFFER, seed=seed + 1), size)

    def sample(self, count: int, size: int, seed: int) -> tf.data.Dataset:
        """Batches of the same `count` pairs each time, spread over as many photos as there are."""
        order = np.random.default_rng(seed).permutation(len(self.starts) - 1)
        counts = np.diff(self.starts)[order]
        rounds = range(int(counts.max()))
        spread = [self.starts[order[k < counts]] + (k + order[k < counts]) % counts[k < counts] for k in rounds]
        return self._batched(tf.data.Dataset.from_tensor_slices(np.concatenate(spread)[:count]), size)

    def _batched(self, pairs: tf.data.Dataset, size: int) -> tf.data.Dataset:
        return pairs.batch(size).map(self._with_features, tf.data.AUTOTUNE).prefetch(4)

    def _with_features(self, pairs: tf.Tensor):
        tokens = tf.gather(self.tokens, pairs).to_tensor()
        features = tf.numpy_function(self.features.take, [tf.gather(self.photos, pairs)], tf.float32)
        features = tf.ensure_shape(features, [None, *self.features.shape])
        return (features, tokens[:, :-1]), tokens[:, 1:]
