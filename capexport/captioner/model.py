"""The captioner of the tutorial: a frozen image encoder and a Transformer decoder that attends to its map."""

from __future__ import annotations

from collections.abc import Sequence

import einops
import tensorflow as tf
import tf_keras

from ..errors import SourceError
from ..vocabulary import END, START
from .config import CaptionerConfig
from .layers import DecoderLayer, SeqEmbedding, TiedDense, TokenOutput
from .tokenizer import build_tokenizer


class Captioner(tf_keras.Model):
    """(image or features, text or ids) -> logits of each next token (B, T, V)."""

    config: CaptionerConfig  # set by build_captioner; a notebook's own captioner has none

    def __init__(
        self,
        tokenizer: tf_keras.layers.TextVectorization,
        feature_extractor: tf_keras.Model,
        output_layer: TokenOutput,
        num_layers: int = 1,
        units: int = 256,
        max_length: int = 50,
        num_heads: int = 1,
        dropout_rate: float = 0.1,
        key_dim: int | None = None,
    ) -> None:
        super().__init__()
        words = tokenizer.get_vocabulary()
        self.feature_extractor = feature_extractor
        self.tokenizer = tokenizer
        self.word_to_index = tf_keras.layers.StringLookup(mask_token="", vocabulary=words)
        self.index_to_word = tf_keras.layers.StringLookup(mask_token="", vocabulary=words, invert=True)
        self.seq_embedding = SeqEmbedding(len(words), max_length, units)
        self.decoder_layers = [DecoderLayer(units, num_heads, dropout_rate, key_dim) for _ in range(num_layers)]
        self.output_layer = output_layer
        self.max_length = max_length

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        image, text = inputs
        if image.shape[-1] == 3:
            image = self.feature_extractor(image)
        image = einops.rearrange(image, "b h w c -> b (h w) c")
        if text.dtype == tf.string:
            text = self.tokenizer(text)
        if isinstance(text, tf.RaggedTensor):
            text = text.to_tensor()
        text = self.seq_embedding(text)
        for layer in self.decoder_layers:
            text = layer((image, text))
        return self.output_layer(text)

    def simple_gen(self, image: tf.Tensor, temperature: float = 1.0) -> str:
        """Caption one image (height, width, 3): the likeliest word each time at temperature 0, else sampled.

        The whole prefix goes through the decoder again at every step, as in the tutorial, and a caption that does
        not end by itself has one word less than the maximal length, the last token being [END]'s.
        """
        tokens = self.simple_gen_tokens(image, temperature)
        words = self.index_to_word(tokens)
        return tf.strings.reduce_join(words, separator=" ").numpy().decode()

    def simple_gen_tokens(self, image: tf.Tensor, temperature: float = 1.0) -> list[int]:
        """simple_gen's caption as ids, without [START] and [END]."""
        features = self.feature_extractor(tf.cast(image, tf.float32)[tf.newaxis])
        tokens = self.word_to_index([[START]])  # (1, T)
        end = int(self.word_to_index(END))
        for _ in range(self.max_length - 1):
            logits = self((features, tokens))[:, -1]  # (1, V)
            if temperature == 0:
                following = tf.argmax(logits, axis=-1)[:, tf.newaxis]
            else:
                following = tf.random.categorical(logits / temperature, num_samples=1)
            if int(following[0, 0]) == end:
                break
            tokens = tf.concat([tokens, following], axis=1)
        return tokens[0, 1:].numpy().tolist()


def build_captioner(config: CaptionerConfig, vocabulary: Sequence[str], encoder: tf_keras.Model) -> Captioner:
    """A captioner with a new decoder on top of a feature extractor, as of build_backbone."""
    tokenizer = build_tokenizer(vocabulary)
    captioner = Captioner(
        tokenizer=tokenizer,
        feature_extractor=encoder,
        output_layer=TokenOutput(tokenizer),
        num_layers=config.num_layers,
        units=config.units,
        max_length=config.max_length,
        num_heads=config.num_heads,
        dropout_rate=config.dropout_rate,
        key_dim=config.key_dim,
    )
    if config.tied_embeddings:
        captioner.output_layer.dense = TiedDense(captioner.seq_embedding.token_embedding)
    captioner.config = config
    return captioner


def build_weights(captioner: Captioner) -> None:
    """Have Keras make the decoder's variables, which it does on the first call; the bias must be there."""
    size = captioner.config.vocabulary_size
    if captioner.output_layer.bias is None or len(captioner.output_layer.bias) != size:
        raise SourceError(f"The captioner's output_layer.bias is missing or not of {size} words.")
    features = tf.zeros([1, *captioner.feature_extractor.output_shape[1:]])
    captioner((features, tf.zeros([1, 1], tf.int64)))
