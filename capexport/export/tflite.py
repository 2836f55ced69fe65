"""To TFLite, through TensorFlow's converter; int8 through ai-edge-quantizer, which can be selective."""

from __future__ import annotations

import contextlib
import io

import tensorflow as tf
from ai_edge_quantizer import qtyping, quantizer

from ..quiet import silenced_stderr


def export_tflite(module: tf.Module) -> bytes:
    """A module's `function` (concrete, with named inputs and a dict of outputs) as a TFLite model."""
    function, variables = module.function, tf.Module()
    variables.kept = function.graph.variables  # the module itself would be saved with each of its Keras layers
    with silenced_stderr():
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function], variables)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        return bytes(converter.convert())


def quantize_tflite(model: bytes, _name: str) -> bytes:
    """Matrix products with constant weights in int8, a scale per channel; activations quantised as they come."""
    with silenced_stderr(), contextlib.redirect_stdout(io.StringIO()):
        quant = quantizer.Quantizer(model)
        quant.add_dynamic_config(regex=".*", operation_name=qtyping.TFLOperationName.FULLY_CONNECTED, num_bits=8)
        return bytes(quant.quantize().quantized_model)
