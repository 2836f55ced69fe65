"""Captioners that teach another one: what they say together, and training by it."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import tensorflow as tf

import capexport
from capexport.captioner.best import train_best
from capexport.captioner.decoder import Decoder
from capexport.captioner.objectives import cross_entropy, taught
from capexport.captioner.teachers import Teachers
from capexport.captioner.weights import decoder_variables
from capexport.errors import SourceError
from tests.captioner.test_best import CONFIG, OPTIONS, backbone, data, encoder, initial, records, tf_clone, weights  # noqa: F401


@pytest.fixture
def teachers(initial, tmp_path):  # noqa: F811
    """Two captioners who prefer different words."""
    directories = tuple(str(tmp_path / f"teacher-{k}") for k in range(2))
    for k, directory in enumerate(directories):
        captioner = capexport.load_captioner(initial)
        for variable in decoder_variables(captioner).values():
            variable.assign_add(tf.random.stateless_normal(variable.shape, (k, 0), stddev=0.3))
        capexport.save_captioner(captioner, directory)
    return directories


def test_what_they_say_together(teachers, initial):  # noqa: F811
    """The mean of each one's probabilities by the plain layers; captions drawn by one after the other."""
    student = capexport.load_captioner(initial)
    together = Teachers(teachers, student)
    images = tf.random.stateless_uniform([2, 64, 64, 3], (1, 2), 0, 255)
    crosses = together.look(images)
    tokens = tf.constant([[[3, 5, 6, 4], [3, 7, 4, 0]], [[3, 6, 6, 4], [3, 4, 0, 0]]])
    real = tokens[..., 1:] != 0
    found = together.chances(crosses, tokens[..., :-1], real)
    expected = []
    for directory in teachers:
        captioner = capexport.load_captioner(directory)
        rows = [[captioner((images[p : p + 1], tokens[p, c : c + 1, :-1])) for c in range(2)] for p in range(2)]
        expected.append(tf.nn.softmax(tf.stack([tf.concat(row, axis=0) for row in rows])))
    np.testing.assert_allclose(found, tf.boolean_mask((expected[0] + expected[1]) / 2, real), atol=1e-5)

    seed = tf.constant([4, 2])
    for turn, directory in enumerate(itertools.islice(itertools.cycle(teachers), 4)):
        captioner = capexport.load_captioner(directory)
        decoder = Decoder(captioner)
        own = decoder.sample(decoder.cross(captioner.feature_extractor(images)), 3, 6, seed)
        np.testing.assert_array_equal(together.draw(crosses, tf.constant(turn, tf.int64), 3, 6, seed), own)


def test_the_objective_is_the_teachers_cross_entropy_and_a_share_of_peoples(initial):  # noqa: F811
    student = capexport.load_captioner(initial)
    decoder = Decoder(student)
    features = student.feature_extractor(tf.random.stateless_uniform([2, 64, 64, 3], (1, 2), 0, 255))
    cross = decoder.cross(features)
    tokens = tf.constant([[[3, 5, 6, 4], [3, 7, 4, 0]], [[3, 6, 6, 4], [3, 4, 0, 0]]])
    real = tokens[..., 1:] != 0
    logits = decoder.logits(cross, tokens[..., :-1], real)
    chances = tf.nn.softmax(tf.random.stateless_normal(logits.shape, (5, 6)))
    mine = -np.mean(np.sum(chances.numpy() * tf.nn.log_softmax(logits).numpy(), axis=-1))
    people = float(cross_entropy(decoder, 0.0)(cross, tokens[:, :1]))  # the first caption of each photo
    for share in (0.0, 0.3, 1.0):
        found = float(taught(decoder, share)(cross, tokens, tf.constant(1), chances))
        assert found == pytest.approx((1 - share) * mine + share * people, rel=1e-5)


def test_a_student_learns_from_them_and_goes_on_where_it_was_cut_off(backbone, data, initial, teachers, tmp_path):  # noqa: F811
    options = dataclasses.replace(OPTIONS, teachers=teachers, taught_epochs=6, taught_rate=1e-2, cider_epochs=0)
    whole = train_best(CONFIG, tf_clone(backbone), *data, tmp_path / "whole", options, initial, lambda _: None)
    epochs = records(tmp_path / "whole")
    assert [epoch["stage"] for epoch in epochs] == ["taught"] * 6
    assert epochs[5]["loss"] < epochs[0]["loss"] - 0.2

    def interrupt(line):
        if line.startswith("taught epoch 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_best(CONFIG, tf_clone(backbone), *data, tmp_path / "cut", options, initial, interrupt)
    resumed = train_best(CONFIG, tf_clone(backbone), *data, tmp_path / "cut", options, initial, lambda _: None)
    for name, value in weights(resumed).items():
        np.testing.assert_allclose(value, weights(whole)[name], rtol=1e-2, atol=1e-3, err_msg=name)


def test_teachers_of_other_words_or_photos_are_refused(teachers, initial, tmp_path):  # noqa: F811
    student = capexport.load_captioner(initial)
    with pytest.raises(SourceError, match="There is no captioner at"):
        Teachers([str(tmp_path / "nobody")], student)
    config = tmp_path / "teacher-0/config.json"
    other = json.loads(config.read_text())
    config.write_text(json.dumps(other | {"resize": "bilinear"}))
    with pytest.raises(SourceError, match="resized otherwise"):
        Teachers(teachers, student)
    config.write_text(json.dumps(other))
    vocabulary = tmp_path / "teacher-1/vocabulary.txt"
    words = vocabulary.read_text().split("\n")
    vocabulary.write_text("\n".join([*words[:6], "zebra", *words[7:]]))
    with pytest.raises(SourceError, match="teacher-1 knows other words"):
        Teachers(teachers, student)
