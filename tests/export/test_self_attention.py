"""Self-attention in its two forms: Keras' numbers word by word, and the cheaper form chosen."""

import numpy as np
import pytest

import capexport
from capexport.manifest import Shape
from capexport.shipped import shipped_bundle
from tests.export.attention import kerass, made

ROWS, WORDS, UNITS = 3, 5, 12


def attention(heads, key_dim, folded=None, grows=True):
    from capexport.export.self_attention import SelfAttention

    shape = Shape(2, heads, key_dim, UNITS, vocabulary=9, max_length=WORDS, feature_map=(1, 1))
    weights = made(shape, UNITS, heads, "self_attention")
    return shape, weights, SelfAttention(weights, shape, grows, folded)


@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize("grows", [True, False])
@pytest.mark.parametrize(("heads", "key_dim"), [(2, 12), (3, 5), (1, 40)])
def test_word_by_word_both_forms_are_kerass_attention(folded, grows, heads, key_dim):
    import tensorflow as tf

    shape, weights, ours = attention(heads, key_dim, folded, grows)
    x = np.random.default_rng(0).normal(0, 1, (ROWS, WORDS, UNITS)).astype(np.float32)
    places = 0 if grows else WORDS + 2
    lengths = {name: [places if n is None else n for n in stated] for name, stated in ours.cache.items()}
    caches = {name: tf.zeros([ROWS, *each]) for name, each in lengths.items()}
    theirs = [kerass(weights, shape, f"decoder_layers.{i}.self_attention.mha", x, x) for i in range(2)]
    expected = [layer(x, x, use_causal_mask=True) for layer in theirs]
    for position in range(WORDS):
        for i in range(2):
            added, grown = ours.attend(tf.constant(x[:, position]), caches, tf.constant(position), i)
            np.testing.assert_allclose(added, expected[i][:, position], rtol=1e-4, atol=1e-5)
            caches |= {name.replace("next_", "self_"): values for name, values in grown.items()}
    assert {name: values.shape[2] for name, values in caches.items()} == dict.fromkeys(ours.cache, places or WORDS)


@pytest.mark.parametrize("key_dim", [1, 4, 6, 7, 8, 9, 10, 12, 24, 100])
def test_the_form_with_less_work_is_chosen(key_dim):
    from capexport.export.projections import WORDS as SAID

    def work(folded):
        form = attention(2, key_dim, folded)[2]
        attending = 2 * 2 * 2 * SAID / 2 * (UNITS if folded else key_dim)  # layers, heads, keys and values
        return form.token_multiplications + attending

    assert attention(2, key_dim)[2].folded == (work(True) < work(False))


@pytest.mark.parametrize("to", ["onnx", "tflite"])
def test_the_captioner_that_ships_keeps_states_alone(to):
    decoder = capexport.read_bundle(shipped_bundle(to, "dynamic-int8")).manifest.graphs["decoder"]
    kept = [(tensor.name, tensor.shape) for tensor in decoder.inputs if tensor.name.startswith("self_")]
    assert kept == [(f"self_states_{i}", ("B", 1, "P", 256)) for i in range(2)]
