"""The captioner through plain converters, as their documentation has it: no split but by hand, no cache."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf2onnx

from capexport.export.onnx import WRITTEN
from capexport.quiet import silenced_stderr

WHOLE, ENCODER, DECODER = "whole", "encoder", "decoder"


def function(captioner: Any, part: str) -> Any:
    """A part of the captioner as a tf.function, for one photo and a prefix of any length.

    whole    image float32 (1, height, width, 3), tokens int64 (1, T) -> logits (1, T, V)
    encoder  image -> features (1, h, w, C)
    decoder  features, tokens -> logits
    """
    extractor = captioner.feature_extractor
    image = tf.TensorSpec([1, *extractor.input_shape[1:]], tf.float32, name="image")
    features = tf.TensorSpec([1, *extractor.output_shape[1:]], tf.float32, name="features")
    tokens = tf.TensorSpec([1, None], tf.int64, name="tokens")
    if part == ENCODER:
        return tf.function(lambda image: {"features": extractor(image, training=False)}, [image], autograph=False)

    def logits(seen: tf.Tensor, tokens: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"logits": captioner((seen, tokens), training=False)}

    if part == WHOLE:
        return tf.function(lambda image, tokens: logits(image, tokens), [image, tokens], autograph=False)
    return tf.function(lambda features, tokens: logits(features, tokens), [features, tokens], autograph=False)


def to_onnx(captioner: Any, path: Path) -> None:
    """Write the part that the path is named for, through tf2onnx."""
    made = function(captioner, path.stem)
    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
    tf2onnx.convert.from_function(made, made.input_signature, opset=WRITTEN, output_path=str(path))


def to_tflite(captioner: Any, path: Path) -> None:
    """Write the part that the path is named for, through TFLiteConverter."""
    concrete = function(captioner, path.stem).get_concrete_function()
    variables = tf.Module()
    variables.kept = concrete.graph.variables  # the captioner itself would be saved with each of its layers first
    with silenced_stderr():
        converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], variables)
        path.write_bytes(converter.convert())
