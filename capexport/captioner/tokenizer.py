"""Text to token ids as in the tutorial: lower case, no punctuation, [START] before and [END] after."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

import tensorflow as tf
import tf_keras

from ..vocabulary import END, START


def standardize(text: tf.Tensor) -> tf.Tensor:
    """Captions as people wrote them -> words and special tokens separated by spaces."""
    words = tf.strings.regex_replace(tf.strings.lower(text), f"[{re.escape(string.punctuation)}]", "")
    return tf.strings.join([START, words, END], separator=" ")


def build_tokenizer(vocabulary: Sequence[str]) -> tf_keras.layers.TextVectorization:
    """A tokenizer with a known vocabulary, special tokens included: strings (B,) -> ragged ids (B, T)."""
    return tf_keras.layers.TextVectorization(
        standardize=standardize, ragged=True, vocabulary=list(vocabulary[2:]), max_tokens=len(vocabulary)
    )


def learn_vocabulary(captions: Sequence[str], size: int) -> list[str]:
    """The most frequent words of the captions, special tokens included, `size` at most."""
    tokenizer = tf_keras.layers.TextVectorization(max_tokens=size, standardize=standardize, ragged=True)
    tokenizer.adapt(tf.data.Dataset.from_tensor_slices(list(captions)).batch(1024))
    return tokenizer.get_vocabulary()
