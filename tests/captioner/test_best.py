"""The best recipe on a data set of three colours: it learns, goes on where it was cut off, and keeps the best."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

import capexport
from capexport.captioner import best
from capexport.captioner.best import BestOptions, train_best
from capexport.captioner.config import CaptionerConfig
from capexport.captioner.dev import Dev
from capexport.captioner.groups import Groups
from capexport.captioner.pairs import Pairs
from capexport.captioner.storage import build_weights
from capexport.captioner.weights import decoder_variables, encoder_variables
from capexport.datasets import load_dataset
from capexport.errors import OptionError, OutputError
from tests.notebook import lively_backbone

CONFIG = CaptionerConfig(
    backbone="MobileNet",
    image_size=(64, 64),
    num_layers=1,
    units=16,
    vocabulary_size=40,
    max_length=12,
    dropout_rate=0.1,
)
OPTIONS = BestOptions(
    word_epochs=10,
    word_rate=2e-2,
    joint_epochs=0,
    joint_rate=1e-3,
    cider_epochs=3,
    cider_rate=3e-3,
    photos=5,
    samples=3,
    views=2,
    average=0.5,
)


@pytest.fixture
def data(small_flickr8k):
    return load_dataset("flickr8k", small_flickr8k, "train"), load_dataset("flickr8k", small_flickr8k, "dev")


@pytest.fixture(scope="module")
def backbone(photos):
    """One of few layers: none of these tests is about the encoder's own."""
    return lively_backbone(CONFIG.backbone, 64, photos)


@pytest.fixture
def encoder(backbone):
    """Its own, since the recipe trains it."""
    encoder = tf_clone(backbone)
    encoder.trainable = False
    return encoder


def tf_clone(model):
    from capexport.captioner.backbone import build_backbone

    clone = build_backbone(CONFIG.backbone, (64, 64), None)
    clone.set_weights(model.get_weights())
    return clone


@pytest.fixture
def initial(encoder, data, tmp_path):
    """A decoder of random weights, so that two runs begin alike."""
    from capexport.captioner.model import build_captioner
    from capexport.captioner.tokenizer import learn_vocabulary

    tf.keras.utils.set_random_seed(3)
    vocabulary = learn_vocabulary([text for photo in data[0] for text in photo.captions], CONFIG.vocabulary_size)
    captioner = build_captioner(dataclasses.replace(CONFIG, vocabulary_size=len(vocabulary)), vocabulary, encoder)
    captioner.output_layer.bias = np.zeros(len(vocabulary), np.float32)
    build_weights(captioner)
    capexport.save_captioner(captioner, tmp_path / "initial")
    return tmp_path / "initial"


def records(out):
    return json.loads((out / "training/history.json").read_text())


def weights(captioner):
    named = encoder_variables(captioner.feature_extractor) | decoder_variables(captioner)
    return {name: variable.numpy() for name, variable in named.items()}


def test_every_stage_learns_and_a_cut_off_run_ends_as_the_undisturbed_one(backbone, data, initial, tmp_path):
    lines = []
    whole = train_best(CONFIG, tf_clone(backbone), *data, tmp_path / "whole", OPTIONS, initial, lines.append)
    epochs = records(tmp_path / "whole")
    assert [epoch["stage"] for epoch in epochs] == ["word"] * 10 + ["cider"] * 3
    assert [line.split(":")[0] for line in lines[2:5]] == ["word epoch 1", "word epoch 2", "word epoch 3"]
    assert epochs[9]["val_loss"] < epochs[0]["val_loss"] - 0.3
    assert (tmp_path / "whole/training/curves.png").read_bytes().startswith(b"\x89PNG")

    for cut in ("word epoch 2", "cider epoch 1"):

        def interrupt(line, cut=cut):
            if line.startswith(cut):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train_best(CONFIG, tf_clone(backbone), *data, tmp_path / "cut", OPTIONS, initial, interrupt)
        assert not (tmp_path / "cut/config.json").exists()
    resumed = train_best(CONFIG, tf_clone(backbone), *data, tmp_path / "cut", OPTIONS, initial, lambda _: None)
    for again, first in zip(records(tmp_path / "cut"), epochs, strict=True):
        for key in ("loss", "val_loss", "val_cider"):
            assert again[key] == pytest.approx(first[key], rel=1e-3, abs=1e-3)
    for name, value in weights(resumed).items():
        np.testing.assert_allclose(value, weights(whole)[name], rtol=1e-2, atol=1e-3, err_msg=name)


def test_the_joint_stage_trains_the_encoder_but_not_its_statistics(encoder, data, initial, tmp_path):
    joint = dataclasses.replace(OPTIONS, word_epochs=0, joint_epochs=1, cider_epochs=0)
    before = {name: value.copy() for name, value in weights(capexport.load_captioner(initial)).items()}
    after = weights(train_best(CONFIG, encoder, *data, tmp_path / "out", joint, initial, lambda _: None))
    changed = {name for name in before if (before[name] != after[name]).any()}
    assert any(name.startswith("feature_extractor") and name.endswith("kernel") for name in changed)
    assert any(name.startswith("decoder_layers") for name in changed)
    assert not any("moving_" in name for name in changed)


def test_a_stage_keeps_its_best_epoch(encoder, data, initial, tmp_path, monkeypatch):
    figures, measured = iter([0.3, 0.5, 0.4]), []

    def measure(dev, *_):
        measured.append(weights(dev._captioner))
        return 2.0, next(figures)

    monkeypatch.setattr(Dev, "measure", measure)
    options = dataclasses.replace(OPTIONS, word_epochs=3, cider_epochs=0)
    captioner = weights(train_best(CONFIG, encoder, *data, tmp_path / "out", options, initial, lambda _: None))
    again = weights(capexport.load_captioner(tmp_path / "out"))
    for name, value in measured[1].items():
        np.testing.assert_array_equal(captioner[name], value, name)
        np.testing.assert_array_equal(again[name], value, name)
    assert any((measured[2][name] != value).any() for name, value in again.items())


@pytest.mark.parametrize(("stage", "rate"), [("joint", 1e30), ("cider", 1e30)])
def test_training_that_comes_apart_says_so(stage, rate, encoder, data, initial, tmp_path):
    chosen = {"word_epochs": 0, "cider_epochs": 0, f"{stage}_epochs": 4, f"{stage}_rate": rate}
    options = dataclasses.replace(OPTIONS, **chosen)
    with pytest.raises(
        OptionError, match=f"came apart in epoch .* of the {stage} stage.*less than .* for --{stage}-rate"
    ):
        train_best(CONFIG, encoder, *data, tmp_path / "out", options, initial, lambda _: None)
    assert not (tmp_path / "out/config.json").exists()


def test_cider_ends_with_the_mean_if_dev_prefers_it(encoder, data, initial, tmp_path, monkeypatch):
    figures = iter([(2.5, 0.3), (2.0, 0.4), (2.0, 0.2)])  # of the epoch, of the mean, and of it once more
    monkeypatch.setattr(Dev, "measure", lambda *_, **__: next(figures))
    options, lines = dataclasses.replace(OPTIONS, word_epochs=0, cider_epochs=1), []
    captioner = train_best(CONFIG, encoder, *data, tmp_path / "out", options, initial, lines.append)
    assert lines[-1].startswith("mean of its beginning and end: val_loss 2.000, val_cider 0.4")
    ends = [tmp_path / "out/training" / name for name in ("initial", "cider/best")]
    begin, end = (weights(capexport.load_captioner(one)) for one in ends)
    assert any((begin[name] != end[name]).any() for name in begin)
    for name, value in weights(captioner).items():
        np.testing.assert_allclose(value, (begin[name] + end[name]) / 2, rtol=1e-6, atol=1e-7, err_msg=name)
    groups = Groups(captioner, data[1], Pairs(captioner, data[1], tmp_path))
    kept = best._mean(*ends, captioner, Dev(captioner, groups), 0.3, tmp_path / "mean", lines.append)
    assert kept == ends[1]
    assert not (tmp_path / "mean").exists()


def test_what_is_refused(encoder, data, initial, tmp_path):
    with pytest.raises(OptionError, match="nothing to do"):
        BestOptions(word_epochs=0, joint_epochs=0, cider_epochs=0)
    with pytest.raises(OptionError, match="Unknown precision 'half'"):
        BestOptions(precision="half")
    with pytest.raises(OptionError, match="2 samples"):
        BestOptions(samples=1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/letter.txt").write_text("dear")
    with pytest.raises(OutputError, match="not a training run"):
        train_best(CONFIG, encoder, *data, tmp_path / "out", OPTIONS, initial)


def test_training_for_cider_raises_it(backbone, data, initial, tmp_path):
    """Of many samples, for the mean of a few says little."""
    options = dataclasses.replace(OPTIONS, cider_epochs=8, cider_rate=1e-3, samples=32)
    train_best(CONFIG, tf_clone(backbone), *data, tmp_path / "out", options, initial, lambda _: None)
    cider = [-epoch["loss"] for epoch in records(tmp_path / "out")[10:]]
    assert min(cider[-3:]) > cider[0], cider
