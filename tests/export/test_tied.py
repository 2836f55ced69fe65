"""Tied embeddings in the graphs: stored once, whatever precision they have, and what Keras computes."""

import numpy as np
import onnx
import pytest
import tensorflow as tf
from ai_edge_litert.tools import flatbuffer_utils

import capexport
from capexport.export.compensation import Correlations
from capexport.export.exporter import Exporter, format_module
from capexport.export.graphs import DecoderGraph
from capexport.export.layers import Observation
from capexport.image import load_image
from capexport.recipes import Precision

FLOAT, HALF, STORED, DYNAMIC, _ = Precision
WORDS, UNITS = 30, 16


@pytest.fixture(scope="module")
def exporter(tied, photos):
    return Exporter(tied, photos[:2])


def constants(to, model):
    """The bytes of each constant, once, in TFLite of those in the shape of the words' vectors."""
    if to == "onnx":
        return [
            onnx.numpy_helper.to_array(tensor).tobytes() for tensor in onnx.load_from_string(model).graph.initializer
        ]
    content = flatbuffer_utils.read_model_from_bytearray(bytearray(model))
    kept = {tensor.buffer for tensor in content.subgraphs[0].tensors if list(tensor.shape) == [WORDS, UNITS]}
    return {bytes(content.buffers[k].data) for k in kept if content.buffers[k].data is not None}


def log_probabilities(captioner, photo, tokens):
    """Keras' own of a caption, word for word."""
    start = captioner.tokenizer.get_vocabulary().index("[START]")
    image = load_image(photo, (64, 64)).astype(np.float32)[np.newaxis]
    said = captioner((captioner.feature_extractor(image), tf.constant([[start, *tokens[:-1]]], tf.int64)))[0]
    return tf.nn.log_softmax(said).numpy()[np.arange(len(tokens)), tokens]


@pytest.mark.parametrize("to", ["onnx", "tflite"])
@pytest.mark.parametrize("recipe", ["fp32", "dynamic-int8"])
def test_what_keras_computes(to, recipe, exporter, tied, photos, tmp_path):
    captioner = capexport.load(exporter.export(to, recipe).write(tmp_path / "bundle", gate=False))
    for photo in photos:
        caption = captioner.caption(photo)
        expected = log_probabilities(tied, photo, caption.tokens)
        np.testing.assert_allclose(caption.log_probabilities, expected, atol=1e-4 if recipe == "fp32" else 0.4)


@pytest.mark.parametrize("to", ["onnx", "tflite"])
@pytest.mark.parametrize("precision", [FLOAT, HALF, STORED, DYNAMIC])
def test_they_are_stored_once(to, precision, tied):
    """But for TFLite in half precision, where they are two tables of int8, since it looks up no 16-bit numbers."""
    module = format_module(to)
    model = module.export(DecoderGraph(tied, module.DIALECT, STORED if precision is DYNAMIC else precision))
    nodes = [layer.node for layer in module.layers(model)]  # the last one gives the logits
    inputs = np.random.default_rng(0).normal(size=(100, UNITS))
    known = Observation(correlations=Correlations({nodes[-1]: inputs.T @ inputs}))  # other levels than the nearest
    finished = module.finish(module.lower(model, dict.fromkeys(nodes, precision), known))
    copies = 3 if (to, precision) == ("tflite", HALF) else 1
    assert len([each for each in constants(to, finished) if len(each) % (WORDS * UNITS) == 0]) == copies
