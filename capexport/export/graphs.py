"""The split: the captioner's weights as two functions, an encoder and a single-step decoder with a cache.

What cross-attention needs of the image the encoder computes once, see cross_attention.py; what self-attention needs of
the words so far the decoder keeps, see self_attention.py. The two biases of the logits are folded into one.

B batch, L layers, H heads, D key dim, N image positions, C channels, U units, V vocabulary, P past length.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from ..captioner.measures import measure, multiplications
from ..captioner.weights import OUTPUT_KERNEL, TOKENS, decoder_arrays, feed_forward, output_bias, tied
from ..errors import SourceError
from ..manifest import CAPTIONER, Graph, Tensor
from ..recipes import Precision
from .cross_attention import CrossAttention
from .products import product
from .self_attention import SelfAttention

INT8 = 127  # the largest level
LEAST_SCALE = 0.05  # of a norm's channel beside its largest, by which words' vectors are divided


@dataclass(frozen=True)
class Dialect:
    """What a format wants said differently.

    growing_cache  the cache grows by one position a step; otherwise words are put into places that it has
    tied_later     embeddings that are the logits' weights, too, stay in float until those have their precision
    """

    growing_cache: bool
    tied_later: bool


ONNX = Dialect(growing_cache=True, tied_later=True)
TFLITE = Dialect(growing_cache=False, tied_later=False)


def describe(graph: EncoderGraph | DecoderGraph, file: str) -> Graph:
    """A graph's inputs, outputs and work as a manifest states them."""
    inputs = [(spec.name, spec) for spec in graph.function.structured_input_signature[0]]
    outputs = sorted(graph.function.structured_outputs.items())
    given, made = (tuple(_tensor(name, spec, graph.places) for name, spec in side) for side in (inputs, outputs))
    return Graph(file, given, made, graph.multiplications)


def describe_fused(encoder: Graph, decoder: Graph, max_length: int, dialect: Dialect) -> Graph:
    """What a manifest states of the graph for whole captions that is made of these two, see layers.Format.fuse.

    Where shapes can grow it takes B photos, and T, its steps, is as many as the longest caption has; else it takes one
    photo for max_length steps. Its work is that of the longest caption that there can be.
    """
    batch, steps = ("B", "T") if dialect.growing_cache else (1, max_length)
    [image] = encoder.inputs
    [attention] = [tensor for tensor in decoder.outputs if tensor.name == "attention"]
    layers, _, *maps = attention.shape
    given = Tensor(image.name, image.dtype, (batch, *image.shape[1:]))
    made = (
        Tensor("attention", "float32", (steps, layers, batch, *maps)),
        Tensor("log_probabilities", "float32", (batch, steps)),
        Tensor("tokens", "int32", (batch, steps)),
    )
    return Graph(CAPTIONER, (given,), made, encoder.multiplications + max_length * decoder.multiplications)


def _tensor(name: str, spec: Any, places: int | None) -> Tensor:
    shape = enumerate(spec.shape.as_list())
    dimensions = tuple(symbol(name, axis, places is None) if length is None else length for axis, length in shape)
    return Tensor(name, spec.dtype.name, dimensions)


def symbol(name: str, axis: int, grows: bool = True) -> str:
    """What an axis that varies is called: B batch, P past length or places, P_next past length after the step."""
    if axis == (1 if name == "attention" else 0):
        return "B"
    return "P_next" if grows and name.startswith("next_") else "P"


class EncoderGraph(tf.Module):
    """image uint8 (B, height, width, 3) -> the memory of cross-attention.

    folded  as of CrossAttention: cross_features (B, N, C), or else cross_keys_i, cross_values_i (B, H, N, D) of layer i
    """

    places = None

    def __init__(self, captioner: Any, folded: bool | None = None) -> None:
        super().__init__()
        self._extract = captioner.feature_extractor
        self._shape = measure(captioner)
        weights = decoder_arrays(captioner)
        self._cross = CrossAttention(weights, self._shape, folded)

    @cached_property
    def function(self) -> Any:
        """The graph as a concrete function with the contract's names."""
        size = self._extract.input_shape[1:3]
        image = tf.TensorSpec([None, *size, 3], tf.uint8, name="image")
        return tf.function(self._encode, autograph=False).get_concrete_function(image)

    @property
    def multiplications(self) -> int:
        """By weights, for one photo."""
        return multiplications(self._extract) + self._cross.photo_multiplications

    def _encode(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        features = self._extract(tf.cast(image, tf.float32), training=False)  # (B, h, w, C)
        features = tf.reshape(features, [-1, math.prod(self._shape.feature_map), features.shape[-1]])  # (B, N, C)
        return self._cross.remember(features)


class DecoderGraph(tf.Module):
    """One step: tokens (B,), position, memory and caches -> logits (B, V), grown caches, attention (L, B, H, N).

    precision  of the embeddings; the layers are treated in the exported graph
    folded     as of the encoder
    """

    def __init__(
        self,
        captioner: Any,
        dialect: Dialect,
        precision: Precision = Precision.FLOAT,
        folded: bool | None = None,
    ) -> None:
        super().__init__()
        self._shape = measure(captioner)
        self._dialect = dialect
        self._precision = precision
        self._weights = decoder_arrays(captioner)
        self._cross = CrossAttention(self._weights, self._shape, folded)
        self._self = SelfAttention(self._weights, self._shape, dialect.growing_cache)
        self._tied = tied(captioner)
        self.places = None if dialect.growing_cache else self._shape.max_length  # of a cache, unless others are wanted
        self._output_bias = self._weights["output_layer.dense.bias"] + output_bias(captioner)
        self._epsilons = _epsilons(captioner)
        self._divisor: np.ndarray | None = None  # of the words' vectors (U,)
        if self._tied and not dialect.tied_later:
            self._fold_last_norm()

    @cached_property
    def function(self) -> Any:
        """The graph as a concrete function with the contract's names."""
        specs = {"tokens": tf.TensorSpec([None], tf.int32), "position": tf.TensorSpec([], tf.int32)}
        specs |= {name: tf.TensorSpec([None, *lengths]) for name, lengths in self._cross.memory.items()}
        specs |= {name: tf.TensorSpec([None, *lengths]) for name, lengths in self._self.cache.items()}
        named = [tf.TensorSpec(spec.shape, spec.dtype, name=name) for name, spec in specs.items()]

        def step(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
            return self._step(dict(zip(specs, tensors, strict=True)))

        return tf.function(step, autograph=False).get_concrete_function(*named)

    @property
    def multiplications(self) -> int:
        """By weights, for one token."""
        kernels = {name: array.size for name, array in self._weights.items() if name.endswith(".kernel")}
        others = sum(size for name, size in kernels.items() if "_attention." not in name)
        return others + self._self.token_multiplications + self._cross.token_multiplications

    def _step(self, given: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        weights = self._weights
        of_words = Precision.FLOAT if self._tied and self._dialect.tied_later else self._precision
        x = self._embedded(given["tokens"], of_words)  # (B, U)
        if self._divisor is not None:
            x /= self._divisor
        x += tf.gather(weights["seq_embedding.pos_embedding.embeddings"], given["position"])  # (U,)
        outputs: dict[str, tf.Tensor] = {}
        attention: list[tf.Tensor] = []
        for i in range(self._shape.layers):
            name = f"decoder_layers.{i}"
            attended, caches = self._self.attend(x, given, given["position"], i)
            outputs |= caches
            x = self._norm(x + attended, f"{name}.self_attention.norm")
            attended, scores = self._cross.attend(x, given, i)
            attention.append(scores)
            x = self._norm(x + attended, f"{name}.cross_attention.norm")
            x = self._norm(x + self._feed_forward(x, i), f"{name}.ff.norm")
        outputs["logits"] = product(x, weights[OUTPUT_KERNEL], self._output_bias, "output")  # (B, V)
        outputs["attention"] = tf.transpose(tf.concat(attention, axis=2), [2, 0, 1, 3])  # (L, B, H, N)
        return outputs

    def _fold_last_norm(self) -> None:
        """Put the last norm's scale and offset into the logits, where TensorFlow's converter would put them, too.

        The words' vectors are then those that these weights are, to be stored once, and are divided again.
        """
        norm = f"decoder_layers.{self._shape.layers - 1}.ff.norm"
        gamma, beta = (self._weights[f"{norm}.{vector}"] for vector in ("gamma", "beta"))
        if np.abs(gamma).min() < LEAST_SCALE * np.abs(gamma).max():
            return  # what would be divided by next to nothing is stored twice
        del self._weights[f"{norm}.gamma"], self._weights[f"{norm}.beta"]
        self._output_bias = self._output_bias + beta @ self._weights[OUTPUT_KERNEL]
        table = self._weights[TOKENS] * gamma  # (V, U)
        self._weights |= {TOKENS: table, OUTPUT_KERNEL: table.T}
        self._divisor = gamma

    def _embedded(self, tokens: tf.Tensor, precision: Precision) -> tf.Tensor:
        """Rows of the words' embedding (V, U), out of int8 levels with a scale a row where the layers are not in float.

        Half precision is two such levels, since TFLite looks up no 16-bit numbers: the second divides the first's step.
        """
        rows = self._weights[TOKENS]  # (V, U)
        if precision is Precision.FLOAT:
            return tf.gather(rows, tokens)
        scales = np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-12) / INT8  # (V, 1)
        levels = np.round(rows / scales)
        x = tf.cast(tf.gather(levels.astype(np.int8), tokens), tf.float32)
        if precision is Precision.HALF:
            rest = np.round((rows / scales - levels) * 2 * INT8)
            x += tf.cast(tf.gather(rest.astype(np.int8), tokens), tf.float32) * np.float32(1 / (2 * INT8))
        return x * tf.gather(scales.astype(np.float32), tokens)

    def _feed_forward(self, x: tf.Tensor, i: int) -> tf.Tensor:
        for place in ("first", "second"):
            kernel, bias = (self._weights[f"decoder_layers.{i}.ff.{place}.{part}"] for part in ("kernel", "bias"))
            x = product(x, kernel, bias, f"layer_{i}/feed_forward/{place}")
            x = tf.nn.relu(x) if place == "first" else x
        return x

    def _norm(self, x: tf.Tensor, name: str) -> tf.Tensor:
        centred = x - tf.reduce_mean(x, axis=-1, keepdims=True)
        variance = tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True)
        deviation = tf.sqrt(variance + self._epsilons[name])
        normed = centred / deviation
        if f"{name}.gamma" not in self._weights:
            return normed
        return normed * self._weights[f"{name}.gamma"] + self._weights[f"{name}.beta"]


def _epsilons(captioner: Any) -> dict[str, float]:
    epsilons = {}
    for i, layer in enumerate(captioner.decoder_layers):
        for block in ("self_attention", "cross_attention", "ff"):
            epsilons[f"decoder_layers.{i}.{block}.norm"] = float(getattr(layer, block).layernorm.epsilon)
        activation = feed_forward(captioner, i)[0].activation
        if activation is not tf_keras.activations.relu:
            name = getattr(activation, "__name__", activation)
            raise SourceError(f"The feed-forward block of decoder layer {i} uses {name}; only relu is known.")
    return epsilons
