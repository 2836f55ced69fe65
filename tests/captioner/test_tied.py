"""Tied embeddings: the words' vectors are the weights of their logits, too."""

import json

import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf

import capexport
from capexport import SourceError
from capexport.captioner.decoder import Decoder
from capexport.captioner.weights import decoder_arrays, decoder_variables

KERNEL, TABLE = "output_layer.dense.kernel", "seq_embedding.token_embedding.embeddings"


def test_logits_are_products_with_the_words_vectors(tied):
    x = np.random.default_rng(0).normal(size=(2, 3, 16)).astype(np.float32)
    table, bias = tied.seq_embedding.token_embedding.embeddings.numpy(), tied.output_layer.dense.bias.numpy()
    expected = np.einsum("btu,vu->btv", x, table) + bias + tied.output_layer.bias
    np.testing.assert_allclose(tied.output_layer(x), expected, rtol=1e-5, atol=1e-5)
    assert KERNEL not in decoder_variables(tied)
    np.testing.assert_array_equal(decoder_arrays(tied)[KERNEL], table.T)
    assert sum(variable is tied.seq_embedding.token_embedding.embeddings for variable in tied.trainable_variables) == 1


def test_training_knows_both_uses_of_them(tied):
    """The same logits and gradients as the layers'."""
    features = tf.random.stateless_normal((2, *tied.feature_extractor.output_shape[1:]), (1, 1))
    tokens = tf.constant([[2, 7, 9, 12], [2, 6, 8, 11]])
    decoder = Decoder(tied)
    variables = list(decoder.variables.values())
    with tf.GradientTape(persistent=True) as tape:
        ours = decoder.logits(decoder.cross(features), tokens[:, tf.newaxis], tf.ones((2, 1, 4), tf.bool))
        theirs = tf.reshape(tied((features, tf.cast(tokens, tf.int64)), training=False), ours.shape)
        losses = [tf.reduce_mean(tf.nn.log_softmax(logits)[:, 5]) for logits in (ours, theirs)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    for our, their in zip(*(tape.gradient(loss, variables) for loss in losses), strict=True):
        np.testing.assert_allclose(tf.convert_to_tensor(our), tf.convert_to_tensor(their), rtol=1e-3, atol=1e-5)


def test_on_disk_they_are_once(tied, tmp_path):
    capexport.save_captioner(tied, tmp_path / "tied")
    assert KERNEL not in safetensors.numpy.load_file(tmp_path / "tied/weights.safetensors")
    loaded = capexport.load_captioner(tmp_path / "tied")
    inputs = tf.ones([1, *tied.feature_extractor.output_shape[1:]]), tf.constant([[3, 2, 9]])
    np.testing.assert_allclose(loaded(inputs), tied(inputs), atol=1e-6)
    capexport.save_captioner(loaded, tmp_path / "again")
    path = tmp_path / "again/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tied_embeddings": "yes"}))
    with pytest.raises(SourceError, match="tied_embeddings is true or false"):
        capexport.load_captioner(tmp_path / "again")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tied_embeddings": False}))
    with pytest.raises(SourceError, match=f"{KERNEL} is in only one"):
        capexport.load_captioner(tmp_path / "again")
