"""The decoder that training and sampling use, held against the layers."""

import numpy as np
import pytest
import tensorflow as tf

from capexport.captioner.decoder import Decoder, Dropout
from capexport.captioner.objectives import cross_entropy
from capexport.captioner.training import masked_loss

PHOTOS, CAPTIONS = 3, 4


@pytest.fixture(scope="module")
def features(tiny):
    rng = np.random.default_rng(0)
    return tf.constant(rng.normal(size=(PHOTOS, *tiny.feature_extractor.output_shape[1:])), tf.float32)


@pytest.fixture(scope="module")
def tokens(tiny):
    """Captions of several lengths, one photo having fewer of them."""
    rng, words = np.random.default_rng(1), tiny.tokenizer.get_vocabulary()
    tokens = np.zeros((PHOTOS, CAPTIONS, 9), np.int32)
    for place in np.ndindex(PHOTOS, CAPTIONS):
        if place != (2, 3):
            length = rng.integers(3, 10)
            tokens[place][:length] = [
                words.index("[START]"),
                *rng.integers(5, len(words), length - 2),
                words.index("[END]"),
            ]
    return tf.constant(tokens)


def plain(captioner, features, tokens):
    """Logits of the layers, every caption with a copy of its photo's features: (P * C, T, V)."""
    flat = tf.reshape(tokens, [-1, tokens.shape[-1]])
    return captioner((tf.repeat(features, CAPTIONS, axis=0), tf.cast(flat, tf.int64)), training=False)


def test_shared_keys_and_values_give_the_logits_and_the_loss_of_the_plain_batch(tiny, features, tokens):
    decoder = Decoder(tiny)
    inputs, labels = tokens[..., :-1], tokens[..., 1:]
    expected = plain(tiny, features, inputs)
    logits = decoder.logits(decoder.cross(features), inputs, labels != 0)
    real = tf.reshape(labels != 0, [-1, labels.shape[-1]])
    np.testing.assert_allclose(logits, tf.boolean_mask(expected, real), rtol=1e-4, atol=1e-4)
    loss = cross_entropy(decoder, smoothing=0.0)(decoder.cross(features), tokens)
    assert float(loss) == pytest.approx(float(masked_loss(tf.reshape(labels, real.shape), expected)), rel=1e-5)


def test_gradients_are_those_of_the_plain_batch(tiny, features, tokens):
    decoder = Decoder(tiny)
    variables = list(decoder.variables.values())
    with tf.GradientTape() as tape:
        loss = cross_entropy(decoder, smoothing=0.0)(decoder.cross(features), tokens)
    ours = tape.gradient(loss, variables)
    labels = tf.reshape(tokens[..., 1:], [-1, tokens.shape[-1] - 1])
    with tf.GradientTape() as tape:
        loss = masked_loss(labels, plain(tiny, features, tokens[..., :-1]))
    for our, their in zip(ours, tape.gradient(loss, variables), strict=True):
        np.testing.assert_allclose(tf.convert_to_tensor(our), tf.convert_to_tensor(their), rtol=1e-3, atol=1e-5)


def test_smoothing_leaves_banned_words_alone(tiny, features, tokens):
    decoder = Decoder(tiny)
    cross = decoder.cross(features)
    sharp, smooth = (float(cross_entropy(decoder, smoothing)(cross, tokens)) for smoothing in (0.0, 0.1))
    logits = decoder.logits(cross, tokens[..., :-1], tokens[..., 1:] != 0)
    allowed = decoder.bias > -1e8
    spread = -tf.reduce_mean(tf.boolean_mask(tf.nn.log_softmax(logits), allowed, axis=1))
    assert smooth == pytest.approx(0.9 * sharp + 0.1 * float(spread), rel=1e-4)


def test_half_the_bits_give_nearly_the_same(tiny, features, tokens):
    losses = []
    for dtype in (tf.float32, tf.bfloat16):
        decoder = Decoder(tiny, dtype)
        losses.append(float(cross_entropy(decoder, 0.0)(decoder.cross(features), tokens)))
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.01)


def test_dropout_follows_its_seed(tiny, features, tokens):
    decoder = Decoder(tiny)
    loss, cross = cross_entropy(decoder, 0.0), decoder.cross(features)
    first, again, other = (float(loss(cross, tokens, Dropout(0.5, tf.constant([0, k])))) for k in (1, 1, 2))
    assert first == again != other
    assert float(loss(cross, tokens, Dropout(0.0, tf.constant([0, 1])))) == float(loss(cross, tokens))


def test_the_likeliest_caption_is_that_of_the_layers(tiny, photos):
    from capexport.image import load_image

    pixels = [load_image(photo, (64, 64)) for photo in photos]
    decoder = Decoder(tiny)
    maps = tiny.feature_extractor(tf.cast(np.stack(pixels), tf.float32))
    said = decoder.sample(decoder.cross(maps), captions=2, length=tiny.max_length - 1).numpy()
    for photo, rows in zip(pixels, said, strict=True):
        expected = tiny.simple_gen_tokens(photo, temperature=0)
        for row in rows:
            assert [token for token in row[1:] if token not in (0, decoder.end)] == expected


def test_samples_follow_the_probabilities_of_the_layers(tiny, features):
    decoder = Decoder(tiny)
    sample = tf.function(lambda seed: decoder.sample(decoder.cross(features[:1]), 4000, 2, seed), autograph=False)
    said = sample(tf.constant([0, 5])).numpy()[0]  # (C, 3)
    assert (said[:, 0] == decoder.start).all()
    for prefix in ([], [int(np.bincount(said[:, 1]).argmax())]):
        matching = said[(said[:, 1 : len(prefix) + 1] == prefix).all(axis=1)]
        tokens = tf.constant([[decoder.start, *prefix]], tf.int64)
        expected = tf.nn.softmax(tiny((features[:1], tokens), training=False)[0, -1]).numpy()
        found = np.bincount(matching[:, len(prefix) + 1], minlength=len(expected)) / len(matching)
        assert np.abs(found - expected).sum() < 3 * np.sqrt(len(expected) / len(matching))
    np.testing.assert_array_equal(said, sample(tf.constant([0, 5])).numpy()[0])
    assert (said != sample(tf.constant([0, 6])).numpy()[0]).any()


def test_nothing_follows_the_end(tiny, features):
    decoder = Decoder(tiny)
    said = decoder.sample(decoder.cross(features), 50, 8, tf.constant([1, 1])).numpy().reshape(-1, 9)
    ended = [row.tolist() for row in said if decoder.end in row]
    assert ended
    for row in ended:
        at = row.index(decoder.end)
        assert 0 not in row[:at]
        assert not any(row[at + 1 :])
