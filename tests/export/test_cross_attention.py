"""Cross-attention in its two forms: the same numbers, other tensors between the graphs, and the cheaper one chosen."""

import math

import numpy as np
import pytest

import capexport
from capexport.manifest import FEATURES, Shape
from capexport.parity.comparison import compare
from capexport.parity.vectors import unpack
from capexport.shipped import shipped_bundle
from tests.conftest import CALIBRATION, TINY_WORDS, Bundles
from tests.export.attention import kerass, made

KEY_DIM = 64  # long enough beside the tiny captioner's four positions of 576 channels
FOLDED = [("onnx", "fp32"), ("ort", "fp32"), ("tflite", "fp32")]  # the captioner that ships is, too, in every recipe


@pytest.fixture(scope="module")
def bundles(lively_encoder, photos, shared):
    """Of a captioner like the tiny one, with keys that are long enough to be folded away."""
    import tensorflow as tf

    from capexport.captioner.config import CaptionerConfig
    from capexport.captioner.model import build_captioner
    from capexport.captioner.storage import build_weights
    from capexport.captioner.weights import decoder_variables

    tf.keras.utils.set_random_seed(7)
    words = {"max_length": 9, "vocabulary_size": len(TINY_WORDS)}
    config = CaptionerConfig(image_size=(64, 64), units=16, key_dim=KEY_DIM, **words)
    captioner = build_captioner(config, TINY_WORDS, lively_encoder)
    captioner.output_layer.adapt([np.arange(2, len(TINY_WORDS))])
    build_weights(captioner)
    rng = np.random.default_rng(1)
    for name, variable in decoder_variables(captioner).items():  # the encoder is others', too
        if name.endswith("bias"):  # Keras' are 0, and would hide a bias that is forgotten
            variable.assign_add(rng.normal(0, 0.1, variable.shape))
    return Bundles(captioner, photos[:CALIBRATION], shared / "folded")


@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize(("heads", "key_dim", "feature_map"), [(2, 16, (2, 3)), (3, 5, (1, 4)), (1, 40, (3, 3))])
def test_both_forms_are_kerass_attention(folded, heads, key_dim, feature_map):
    import tensorflow as tf

    from capexport.export.cross_attention import CrossAttention

    shape = Shape(2, heads, key_dim, units=12, vocabulary=9, max_length=5, feature_map=feature_map)
    weights, rng = made(shape, 20, heads, "cross_attention"), np.random.default_rng(0)
    features = rng.normal(0, 1, (3, math.prod(feature_map), 20)).astype(np.float32)
    x = rng.normal(0, 1, (3, 12)).astype(np.float32)
    ours = CrossAttention(weights, shape, folded)
    memory = ours.remember(tf.constant(features))
    assert {name: tuple(values.shape[1:]) for name, values in memory.items()} == ours.memory
    for i in range(2):
        theirs = kerass(weights, shape, f"decoder_layers.{i}.cross_attention.mha", x[:, np.newaxis], features)
        expected, scores = theirs(x[:, np.newaxis], features, return_attention_scores=True)
        attended, attention = ours.attend(tf.constant(x), memory, i)
        np.testing.assert_allclose(attended, expected[:, 0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(attention, scores, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("key_dim", [1, 8, 32, 40, 64, 256, 1000])
@pytest.mark.parametrize("feature_map", [(1, 1), (7, 7), (14, 14)])
def test_the_form_with_less_work_is_chosen(key_dim, feature_map):
    from capexport.export.cross_attention import WORDS, CrossAttention

    shape = Shape(2, 2, key_dim, units=64, vocabulary=9, max_length=5, feature_map=feature_map)
    weights, positions = made(shape, 96, 0, "cross_attention"), math.prod(feature_map)

    def work(folded):
        form = CrossAttention(weights, shape, folded=folded)
        attending = 2 * 2 * 2 * positions * (96 if folded else key_dim)  # layers, heads, keys and values
        return form.photo_multiplications + WORDS * (form.token_multiplications + attending)

    assert CrossAttention(weights, shape).folded == (work(True) < work(False))


def test_the_captioner_that_ships_is_folded():
    encoder = capexport.read_bundle(shipped_bundle("onnx", "dynamic-int8")).manifest.graphs["encoder"]
    assert [(tensor.name, tensor.shape) for tensor in encoder.outputs] == [(FEATURES, ("B", 49, 576))]


@pytest.mark.parametrize("variant", FOLDED)
def test_features_alone_go_from_the_encoder_to_the_decoder(variant, bundles):
    graphs = bundles[variant].manifest.graphs
    [features] = graphs["encoder"].outputs
    assert (features.name, features.shape[1:]) == (FEATURES, (4, 576))
    assert [tensor for tensor in graphs["decoder"].inputs if tensor.name.startswith("cross_")] == [features]


@pytest.mark.parametrize("variant", FOLDED)
def test_it_says_what_keras_says(variant, bundles):
    bundle = bundles[variant]
    captioner = capexport.load(bundle)
    for vector in unpack(bundle.files["parity.npz"], bundle.manifest):
        assert [*vector.memory] == [FEATURES]
        found = compare(captioner, vector)
        assert found.identical or found.near_tie
        assert found.features_error < 1e-5
        assert found.logits_error < 1e-4
        assert found.attention_error < 1e-5


@pytest.mark.parametrize("to", ["onnx", "tflite"])
def test_whole_captions_by_one_graph(to, bundles, photos):
    whole, steps = (capexport.load(bundles[(to, "fp32", *fused)]) for fused in (["fused"], []))
    assert whole.greedy is not None
    for photo in photos:
        one, other = whole.caption(photo), steps.caption(photo)
        assert one.tokens == other.tokens
        np.testing.assert_allclose(one.cross_attention, other.cross_attention, atol=1e-5)
