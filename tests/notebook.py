"""A live captioner as a notebook leaves it: the tutorial's attributes on classes that the package does not know.

It has what real ones have and this package's own captioner has not: methods that are set on the class afterwards,
a call without `training`, an Add layer over token and position embeddings that carries the padding mask, a bias that
is a float64 numpy array (None before adapt), a vocabulary that was learnt from captions, look-up layers, and a
simple_gen that cuts the last word off, be it [END] or not.
"""

from __future__ import annotations

import einops
import numpy as np
import tensorflow as tf
import tf_keras

from capexport.captioner.backbone import build_backbone
from capexport.captioner.distillation import estimate_statistics
from capexport.image import load_image
from capexport.shipped import sample_photos

GAIN = 4
ODD_WORDS = ["a\u00a0b", "\U0001f469\u200d\U0001f680", "\u0301x", "\ufeffy"]


class Positions(tf_keras.layers.Layer):
    def __init__(self, count, length, units):
        super().__init__()
        self.token_embedding = tf_keras.layers.Embedding(count, units, mask_zero=True)
        self.pos_embedding = tf_keras.layers.Embedding(length, units)
        self.sum = tf_keras.layers.Add()

    def call(self, ids):
        places = tf.range(tf.shape(ids)[1])[tf.newaxis]
        return self.sum([self.token_embedding(ids), self.pos_embedding(places)])


class Looking(tf_keras.layers.Layer):
    """Attention to the words so far or, given an image, to the image."""

    def __init__(self, **options):
        super().__init__()
        self.mha = tf_keras.layers.MultiHeadAttention(**options)
        self.sum = tf_keras.layers.Add()
        self.layernorm = tf_keras.layers.LayerNormalization()

    def call(self, words, image=None):
        if image is None:
            return self.layernorm(self.sum([words, self.mha(words, words, use_causal_mask=True)]))
        seen, self.last_attention_scores = self.mha(words, image, return_attention_scores=True)
        return self.layernorm(self.sum([words, seen]))


class Thinking(tf_keras.layers.Layer):
    def __init__(self, units, width, dropout, activation):
        super().__init__()
        dense = tf_keras.layers.Dense
        self.seq = tf_keras.Sequential(
            [dense(width, activation=activation), dense(units), tf_keras.layers.Dropout(dropout)]
        )
        self.layernorm = tf_keras.layers.LayerNormalization()

    def call(self, words):
        return self.layernorm(words + self.seq(words))


class Block(tf_keras.layers.Layer):
    def __init__(self, units, dropout, width, activation, **attention):
        super().__init__()
        self.self_attention = Looking(dropout=dropout, **attention)
        self.cross_attention = Looking(dropout=dropout, **attention)
        self.ff = Thinking(units, width, dropout, activation)

    def call(self, inputs, training=False):
        image, words = inputs
        words = self.cross_attention(self.self_attention(words), image)
        self.last_attention_scores = self.cross_attention.last_attention_scores
        return self.ff(words)


class Words(tf_keras.layers.Layer):
    def __init__(self, tokenizer):
        super().__init__()
        self.tokenizer = tokenizer
        self.dense = tf_keras.layers.Dense(tokenizer.vocabulary_size())
        self.bias = None

    def adapt(self, counts):
        counts = np.array(counts, np.float64)
        counts[[self.tokenizer.get_vocabulary().index(word) for word in ("", "[UNK]", "[START]")]] = 0
        with np.errstate(divide="ignore"):
            self.bias = np.maximum(np.log(counts / counts.sum()), -1e9)

    def call(self, x):
        return self.dense(x) + self.bias


class Notebook(tf_keras.Model):
    @classmethod
    def add_method(cls, function):
        setattr(cls, function.__name__, function)
        return function

    def __init__(self, tokenizer, feature_extractor, num_layers, units, max_length, **block):
        super().__init__()
        words = tokenizer.get_vocabulary()
        self.tokenizer = tokenizer
        self.feature_extractor = feature_extractor
        self.word_to_index = tf_keras.layers.StringLookup(mask_token="", vocabulary=words)
        self.index_to_word = tf_keras.layers.StringLookup(mask_token="", vocabulary=words, invert=True)
        self.seq_embedding = Positions(len(words), max_length, units)
        self.decoder_layers = [Block(units, **block) for _ in range(num_layers)]
        self.output_layer = Words(tokenizer)


@Notebook.add_method
def call(self, inputs):
    image, words = inputs
    if image.shape[-1] == 3:
        image = self.feature_extractor(image)
    image = einops.rearrange(image, "b h w c -> b (h w) c")
    words = self.seq_embedding(self.tokenizer(words) if words.dtype == tf.string else words)
    for block in self.decoder_layers:
        words = block(inputs=(image, words))
    return self.output_layer(words)


@Notebook.add_method
def simple_gen(self, image, temperature=1):
    assert temperature == 0
    features = self.feature_extractor(image[tf.newaxis])
    tokens = self.word_to_index([["[START]"]])
    for _ in range(self.seq_embedding.pos_embedding.input_dim):
        likeliest = tf.argmax(self((features, tokens)).numpy()[:, -1], axis=-1)
        tokens = tf.concat([tokens, likeliest[tf.newaxis]], axis=1)
        if likeliest == self.word_to_index("[END]"):
            break
    return tf.strings.reduce_join(self.index_to_word(tokens[0, 1:-1]), separator=" ").numpy().decode()


def standardize(text):
    return tf.strings.join(["[START]", tf.strings.lower(text), "[END]"], separator=" ")


def lively_backbone(name, size, photos, include_preprocessing=True):
    """A backbone of random weights whose features vary with the photo: its batch norms know the photos."""
    tf_keras.utils.set_random_seed(7)
    encoder = build_backbone(name, (size, size), None, include_preprocessing)
    encoder.trainable = True
    estimate_statistics(encoder, [load_image(photo, (size, size)) for photo in photos], batch=len(photos))
    encoder.trainable = False
    return encoder


def build_notebook(
    encoder, vocabulary=50, num_layers=2, num_heads=2, units=16, key_dim=None, max_length=9, ready=True, **changes
):
    """A notebook's captioner of random weights; not ready: neither adapted nor called.

    changes  other than the tutorial's: width and activation of the feed-forward block, value_dim, use_bias
    """
    tf_keras.utils.set_random_seed(7)
    tokenizer = tf_keras.layers.TextVectorization(max_tokens=vocabulary, standardize=standardize, ragged=True)
    tokenizer.adapt([" ".join(3 * ODD_WORDS), *(f"word{i} a word{i // 2}" for i in range(vocabulary))])
    block = {"width": 2 * units, "activation": "relu", "dropout": 0.3, "key_dim": key_dim or units} | changes
    captioner = Notebook(tokenizer, encoder, num_layers, units, max_length, num_heads=num_heads, **block)
    if not ready:
        return captioner
    counts = np.random.default_rng(7).dirichlet(np.ones(vocabulary))
    counts[tokenizer.get_vocabulary().index("[END]")] = 0.2
    captioner.output_layer.adapt(counts)
    size = encoder.input_shape[1:3]
    features = encoder(np.stack([load_image(photo, size) for photo in sample_photos()]).astype(np.float32))
    captioner((features[:1], tf.constant([[2]], tf.int64)))
    for variable in (*captioner.seq_embedding.weights, captioner.output_layer.dense.kernel):
        variable.assign(tf.random.normal(variable.shape))
    for block in captioner.decoder_layers:  # what the photos have in common must not drown what they have not
        value = block.cross_attention.mha._value_dense
        value.kernel.assign(GAIN * value.kernel)
        if "use_bias" not in changes:
            value.bias.assign(-tf.einsum("c,chd->hd", tf.reduce_mean(features, axis=(0, 1, 2)), value.kernel))
    return captioner
