"""What Keras says of photos, whatever was guessed of it before."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from capexport import load_image
from capexport.captioner.reference import BATCH, references
from tests.conftest import tiny_captioner

LONGEST = 9  # words of a tiny captioner


@pytest.fixture(scope="module")
def pixels(photos):
    whole = [load_image(photo, (64, 64)) for photo in photos]
    return [*whole, *(image[:, ::-1] for image in whole), *(image[::-1] for image in whole)]


@pytest.fixture(scope="module")
def brief(lively_encoder):
    """A tiny captioner some of whose captions end before they have to."""
    captioner = tiny_captioner(lively_encoder)
    captioner.output_layer.bias[captioner.tokenizer.get_vocabulary().index("[END]")] += 0.4
    return captioner


@pytest.fixture(scope="module")
def found(brief, pixels):
    return list(references(brief, pixels))


def word_by_word(captioner, image):
    """The tutorial's loop, a photo alone: every prefix through the whole model."""
    vocabulary = captioner.tokenizer.get_vocabulary()
    features = captioner.feature_extractor(tf.cast(image[np.newaxis], tf.float32))
    tokens, steps = [vocabulary.index("[START]")], []
    while len(tokens) <= LONGEST and vocabulary.index("[END]") not in tokens:
        steps.append(captioner((features, tf.constant([tokens], tf.int64))).numpy()[0, -1])
        tokens.append(int(steps[-1].argmax()) if len(tokens) < LONGEST else vocabulary.index("[END]"))
    return tokens[1:], np.stack(steps)


def test_it_is_what_the_tutorials_loop_says(brief, pixels, found):
    assert len({len(vector.tokens) for vector in found}) > 3
    for image, vector in zip(pixels, found, strict=True):
        tokens, logits = word_by_word(brief, image)
        assert vector.tokens.tolist() == tokens
        np.testing.assert_allclose(vector.logits, logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("guess", ["their own", "nothing", "one word is another", "noise", "too many", "no end", "end"])
def test_guesses_change_nothing(guess, brief, pixels, found):
    end = brief.tokenizer.get_vocabulary().index("[END]")
    rng = np.random.default_rng(3)
    own = [vector.tokens.tolist() for vector in found]
    other = [[*caption[:1], 7 + (caption[1] == 7), *caption[2:]] for caption in own]
    guesses = {
        "their own": own,
        "nothing": [[] for _ in own],
        "one word is another": other,
        "noise": [rng.integers(0, 30, rng.integers(1, LONGEST + 3)).tolist() for _ in own],
        "too many": [[*caption, *range(6, 26)] for caption in own],
        "no end": [[7] * 40 for _ in own],
        "end": [[end] for _ in own],
    }[guess]
    for ours, theirs in zip(references(brief, pixels, guesses=guesses), found, strict=True):
        for field in dataclasses.fields(ours):
            np.testing.assert_equal(getattr(ours, field.name), getattr(theirs, field.name))


def test_right_guesses_are_confirmed_at_once(brief, pixels, found, monkeypatch):
    passes = []
    call = type(brief).call
    monkeypatch.setattr(type(brief), "call", lambda *args, **more: passes.append(1) or call(*args, **more))
    assert len(pixels) <= BATCH
    for guesses, count in (
        ([vector.tokens.tolist() for vector in found], 1),
        ([vector.tokens.tolist()[:-1] for vector in found], 1),
        (None, max(len(vector.tokens) for vector in found)),
    ):
        passes.clear()
        list(references(brief, pixels, guesses=guesses))
        assert len(passes) == count
