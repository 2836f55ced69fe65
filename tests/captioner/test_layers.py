"""The tutorial's layers against what they are defined to do."""

import numpy as np
import pytest
import tensorflow as tf

from capexport import SourceError
from capexport.captioner.layers import CausalSelfAttention, CrossAttention, SeqEmbedding, TokenOutput
from capexport.captioner.tokenizer import build_tokenizer, learn_vocabulary
from capexport.captioner.training import masked_acc, masked_loss

VOCABULARY = ("", "[UNK]", "a", "[START]", "[END]", "dog")


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_embeddings_add_token_and_position():
    layer = SeqEmbedding(6, max_length=5, depth=4)
    ids = tf.constant([[2, 5, 1], [3, 3, 2]])
    tokens, positions = layer(ids), None
    tokens_table, positions = layer.token_embedding.embeddings.numpy(), layer.pos_embedding.embeddings.numpy()
    np.testing.assert_allclose(tokens, tokens_table[ids.numpy()] + positions[:3], atol=1e-6)


def test_no_position_sees_a_later_one():
    layer = CausalSelfAttention(num_heads=2, key_dim=8)
    x = tf.random.normal([1, 6, 8], seed=1)
    changed = tf.concat([x[:, :4], x[:, 4:] + 1], axis=1)
    np.testing.assert_allclose(layer(x)[:, :4], layer(changed)[:, :4], atol=1e-6)
    assert np.abs(layer(x)[:, 4:] - layer(changed)[:, 4:]).max() > 1e-3


def test_cross_attention_keeps_its_scores():
    layer = CrossAttention(num_heads=2, key_dim=8)
    text, image = tf.random.normal([3, 4, 8]), tf.random.normal([3, 9, 5])
    layer(text, image)
    scores = layer.last_attention_scores.numpy()
    assert scores.shape == (3, 2, 4, 9)
    np.testing.assert_allclose(scores.sum(-1), 1, atol=1e-6)
    query, key = (
        np.einsum("btc,chd->bhtd", x, dense.kernel) + dense.bias.numpy()[:, None]
        for x, dense in ((text, layer.mha._query_dense), (image, layer.mha._key_dense))
    )
    np.testing.assert_allclose(scores, softmax(query @ key.transpose(0, 1, 3, 2) / np.sqrt(8)), atol=1e-5)


def test_adapt_sets_log_probabilities_and_bans_tokens():
    output = TokenOutput(build_tokenizer(VOCABULARY))
    uniform, marginal = output.adapt([np.array([[2, 2, 4, 0], [5, 4, 0, 0]]), np.array([[2, 1, 3, 4]])])
    p = np.array([3, 3, 1]) / 7  # a, [END], dog
    assert uniform == pytest.approx(np.log(6))
    assert marginal == pytest.approx(-(p * np.log(p)).sum())
    np.testing.assert_allclose(output.bias[[2, 4, 5]], np.log(p), rtol=1e-6)
    assert (output.bias[[0, 1, 3]] == -1e9).all()
    logits = output(tf.zeros([1, 1, 8])).numpy()[0, 0]
    np.testing.assert_allclose(softmax(logits), [0, 0, 3 / 7, 0, 3 / 7, 1 / 7], atol=1e-6)


def test_output_before_adapt():
    with pytest.raises(SourceError, match="adapt"):
        TokenOutput(build_tokenizer(VOCABULARY))(tf.zeros([1, 1, 8]))


def test_masked_loss_and_accuracy_by_hand():
    labels = np.array([[2, 4, 0], [5, 1, 0]])
    logits = np.random.default_rng(0).normal(size=(2, 3, 6)).astype(np.float32)
    logits[..., :2] = -1e9  # banned: the loss of the label 1 is astronomic and must not count
    counted = [(0, 0), (0, 1), (1, 0)]
    losses = [-np.log(softmax(logits[b, t])[labels[b, t]]) for b, t in counted]
    assert float(masked_loss(tf.constant(labels), tf.constant(logits))) == pytest.approx(np.mean(losses), rel=1e-5)
    hits = [logits[b, t].argmax() == labels[b, t] for b, t in [*counted, (1, 1)]]
    assert float(masked_acc(tf.constant(labels), tf.constant(logits))) == pytest.approx(np.mean(hits))


def test_tokenizer_standardises_as_the_tutorial():
    words = learn_vocabulary(["A dog -- runs!", "a Dog; it's a dog."], size=7)
    assert words[:2] == ["", "[UNK]"]
    assert {"a", "dog"} <= set(words)
    assert {"[START]", "[END]"} <= set(words)
    ids = build_tokenizer(words)(["The dog."]).to_list()[0]
    assert [words[i] for i in ids] == ["[START]", "[UNK]", "dog", "[END]"]


def test_captioner_takes_images_or_features_and_strings_or_ids(tiny, photos):
    from capexport import load_image

    pixels = load_image(photos[0], (64, 64))[np.newaxis].astype(np.float32)
    features = tiny.feature_extractor(pixels)
    ids = tiny.tokenizer(["word1 word2"]).to_tensor()
    expected = tiny((features, ids))
    assert expected.shape == (1, 4, 30)
    for image in (pixels, features):
        for text in (tf.constant(["Word1, word2!"]), ids):
            np.testing.assert_allclose(tiny((image, text)), expected, atol=1e-5)


def test_simple_gen_at_temperature_zero_takes_the_likeliest_word(tiny, photos):
    from capexport import load_image
    from capexport.captioner.reference import references

    pixels = load_image(photos[0], (64, 64))
    text = tiny.simple_gen(pixels, temperature=0)
    [generation] = references(tiny, [pixels])
    words = [tiny.tokenizer.get_vocabulary()[token] for token in generation.tokens]
    assert text == " ".join(word for word in words if word != "[END]")
    assert words[-1] == "[END]"
    np.testing.assert_array_equal(generation.logits.argmax(-1)[:-1], generation.tokens[:-1])
    tf.random.set_seed(1)
    assert len({tiny.simple_gen(pixels, temperature=1.5) for _ in range(5)}) > 1
