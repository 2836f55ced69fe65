"""What a stage of the best recipe minimises: the cross-entropy of people's words or of teachers' probabilities, or less
CIDEr than a photo's other samples.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from .cider import Cider
from .decoder import BANNED, Cross, Decoder, Dropout
from .groups import Group


def cross_entropy(decoder: Decoder, smoothing: float) -> Callable[[Cross, tf.Tensor, Dropout | None], tf.Tensor]:
    """The mean over words (nats) of tokens (P, C, T + 1), their labels smoothed over the words that are not banned.

    Label smoothing as of Szegedy et al., 2016. Words that are banned, [UNK] for one, are read but not learnt.
    """
    allowed = (decoder.bias > BANNED).astype(np.float32)
    spread = tf.constant(smoothing * allowed / allowed.sum())  # (V,)

    def loss(cross: Cross, tokens: tf.Tensor, dropout: Dropout | None = None) -> tf.Tensor:
        labels = tokens[..., 1:]
        real = labels != 0
        logits = decoder.logits(cross, tokens[..., :-1], real, dropout)  # (R, V)
        labels = tf.boolean_mask(labels, real)
        targets = tf.one_hot(labels, len(allowed), 1.0 - smoothing, 0.0) + spread
        losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits)  # (R,)
        weights = tf.gather(allowed, labels)
        return tf.reduce_sum(tf.where(weights > 0, losses, 0.0)) / tf.maximum(tf.reduce_sum(weights), 1.0)

    return loss


def taught(decoder: Decoder, share: float) -> Callable[..., tf.Tensor]:
    """The mean over words (nats) of the cross-entropy with the teachers' probabilities, and a share of people's words.

    The function takes cross, tokens (P, C, T + 1), of which the first `people` captions of each photo are people's, the
    teachers' probabilities (R, V) and dropout.
    """
    allowed = tf.constant((decoder.bias > BANNED).astype(np.float32))  # (V,)

    def loss(
        cross: Cross, tokens: tf.Tensor, people: tf.Tensor, chances: tf.Tensor, dropout: Dropout | None = None
    ) -> tf.Tensor:
        labels = tokens[..., 1:]
        real = labels != 0
        logits = decoder.logits(cross, tokens[..., :-1], real, dropout)  # (R, V)
        by_people = tf.range(tf.shape(labels)[1])[:, tf.newaxis] < people  # (C, 1)
        by_people = tf.boolean_mask(tf.broadcast_to(by_people, tf.shape(labels)), real)  # (R,)
        labels = tf.boolean_mask(labels, real)
        chances *= allowed  # a teacher may say words that this one's captions lack
        chances = tf.math.divide_no_nan(chances, tf.reduce_sum(chances, axis=-1, keepdims=True))
        losses = tf.nn.softmax_cross_entropy_with_logits(chances, logits)
        weights = tf.gather(allowed, labels) * tf.cast(by_people, tf.float32)
        words = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        words = tf.reduce_sum(tf.where(weights > 0, words, 0.0)) / tf.maximum(tf.reduce_sum(weights), 1.0)
        return (1.0 - share) * tf.reduce_mean(losses) + share * words

    return loss


def policy_loss(decoder: Decoder, cross: Cross, tokens: tf.Tensor, advantages: tf.Tensor) -> tf.Tensor:
    """REINFORCE, a word's mean: samples (P, C, T + 1) become likelier where their advantage (P, C) is positive."""
    labels = tokens[..., 1:]
    real = labels != 0
    logits = decoder.logits(cross, tokens[..., :-1], real)  # (R, V)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.boolean_mask(labels, real), logits)
    weights = tf.boolean_mask(tf.broadcast_to(advantages[..., tf.newaxis], tf.shape(labels)), real)
    return tf.reduce_mean(losses * weights)


class SelfCritic:
    """Rewards of sampled captions: CIDEr-D against the photos' own captions, [END] being a word like any other.

    Self-critical training (Rennie et al., 2017) with the mean reward of a photo's other samples as the baseline (Luo,
    2020, "A Better Variant of Self-Critical Sequence Training").

    captions  of each photo, as ids
    """

    def __init__(self, captions: list[list[list[int]]]) -> None:
        self._cider = Cider(captions)

    def rewards(self, group: Group, sampled: np.ndarray) -> np.ndarray:
        """CIDEr-D (P, C) of samples (P, C, T + 1) as of Decoder.sample."""
        said = [[_said(row) for row in rows] for rows in sampled]
        photos = group.photos.tolist()
        return np.array([[self._cider.score(p, words) for words in rows] for p, rows in zip(photos, said, strict=True)])


def advantages(rewards: np.ndarray) -> np.ndarray:
    """How much better than the mean of the photo's other samples each is: (P, C) -> float32 (P, C)."""
    count = rewards.shape[1]
    return ((rewards - rewards.mean(axis=1, keepdims=True)) * count / (count - 1)).astype(np.float32)


def _said(row: np.ndarray) -> list[int]:
    return row[1 : np.count_nonzero(row)].tolist()
