"""capexport's graphs, but for cross-attention: its keys and values are the decoder's work, at every step.

B batch, L layers, H heads, D key dim, N image positions, C channels, P past length.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import tensorflow as tf

from capexport.export import onnx
from capexport.export.graphs import DecoderGraph


class Features(tf.Module):
    """image uint8 (B, height, width, 3) -> features (B, N, C)."""

    def __init__(self, captioner: Any) -> None:
        super().__init__()
        self._extract = captioner.feature_extractor

    @cached_property
    def function(self) -> Any:
        """The graph as a concrete function."""
        image = tf.TensorSpec([None, *self._extract.input_shape[1:]], tf.uint8, name="image")
        return tf.function(self._encode, autograph=False).get_concrete_function(image)

    def _encode(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        features = self._extract(tf.cast(image, tf.float32), training=False)  # (B, h, w, C)
        height, width, channels = features.shape[1:]
        return {"features": tf.reshape(features, [-1, height * width, channels])}


class CrossAnewDecoder(DecoderGraph):
    """One step, as DecoderGraph's, with features (B, N, C) where that has cross keys and values."""

    def __init__(self, captioner: Any) -> None:
        super().__init__(captioner, onnx.DIALECT)

    @cached_property
    def function(self) -> Any:
        """The graph as a concrete function."""
        shape, channels = self._shape, self._weights["decoder_layers.0.cross_attention.mha.key.kernel"].shape[0]
        positions = shape.feature_map[0] * shape.feature_map[1]
        specs = {
            "tokens": tf.TensorSpec([None], tf.int32),
            "position": tf.TensorSpec([], tf.int32),
            "features": tf.TensorSpec([None, positions, channels]),
        }
        for i in range(shape.layers):
            for kind in ("keys", "values"):
                specs[f"self_{kind}_{i}"] = tf.TensorSpec([None, shape.heads, None, shape.key_dim])
        named = [tf.TensorSpec(spec.shape, spec.dtype, name=name) for name, spec in specs.items()]

        def step(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
            given = dict(zip(specs, tensors, strict=True))
            return self._step(given | self._cross(given["features"]))

        return tf.function(step, autograph=False).get_concrete_function(*named)

    def _cross(self, features: tf.Tensor) -> dict[str, tf.Tensor]:
        shape = self._shape
        rows = tf.reshape(features, [-1, features.shape[-1]])  # (B * N, C)
        found = {}
        for i in range(shape.layers):
            for kind in ("key", "value"):
                name = f"decoder_layers.{i}.cross_attention.mha.{kind}"
                kernel, bias = self._weights[f"{name}.kernel"], self._weights[f"{name}.bias"].reshape(-1)
                projected = tf.matmul(rows, kernel.reshape(len(kernel), -1)) + bias  # (B * N, H * D)
                heads = tf.reshape(projected, [-1, features.shape[1], shape.heads, shape.key_dim])
                found[f"cross_{kind}s_{i}"] = tf.transpose(heads, [0, 2, 1, 3])  # (B, H, N, D)
        return found


def export_encoder(captioner: Any, path: Path) -> None:
    """Write the encoder that gives features, as ONNX."""
    path.write_bytes(onnx.finish(onnx.export(Features(captioner))))


def export_decoder(captioner: Any, path: Path) -> None:
    """Write the decoder that takes features, as ONNX."""
    path.write_bytes(onnx.finish(onnx.export(CrossAnewDecoder(captioner))))
