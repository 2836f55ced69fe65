"""Training, interrupted and resumed, and distillation, on a data set of three colours."""

import json

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import capexport
from capexport.captioner.backbone import build_backbone
from capexport.captioner.config import CaptionerConfig
from capexport.captioner.distillation import DistillationOptions, distill
from capexport.captioner.history import Epoch, History
from capexport.captioner.training import TrainingOptions, train
from capexport.datasets import load_dataset
from capexport.errors import OutputError, SourceError

CONFIG = CaptionerConfig(image_size=(64, 64), num_layers=1, units=16, vocabulary_size=40, max_length=12)
OPTIONS = TrainingOptions(epochs=3, batch=8, steps_per_epoch=25, validation_steps=3, learning_rate=5e-3)


@pytest.fixture
def encoder(lively_encoder):
    return lively_encoder


@pytest.fixture
def data(small_flickr8k):
    return load_dataset("flickr8k", small_flickr8k, "train"), load_dataset("flickr8k", small_flickr8k, "dev")


def test_training_learns_reports_and_keeps_the_best(encoder, data, tmp_path):
    lines = []
    captioner = train(CONFIG, encoder, *data, tmp_path / "out", OPTIONS, report=lines.append)
    history = History(tmp_path / "out/training/history.json")
    assert lines[0].startswith("Uniform entropy: ")
    assert lines[1].startswith("Marginal entropy: ")
    assert sum(line.startswith("epoch ") for line in lines) == 3
    assert sum("temperature 0.5" in line for line in lines) == 3
    assert history.epochs[-1].val_loss < history.epochs[0].val_loss < np.log(40)
    assert (tmp_path / "out/training/curves.png").read_bytes().startswith(b"\x89PNG")
    again = capexport.load_captioner(tmp_path / "out")
    inputs = (tf.random.normal([1, *encoder.output_shape[1:]]), tf.constant([[3, 5]]))
    np.testing.assert_array_equal(captioner(inputs), again(inputs))


def test_an_interrupted_run_goes_on_where_it_was(encoder, data, tmp_path):
    def interrupt(line):
        if line.startswith("epoch 1"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, encoder, *data, tmp_path / "out", OPTIONS, report=interrupt)
    assert not (tmp_path / "out/config.json").exists()
    shards = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/training/features").rglob("*.npy")}
    lines = []
    train(CONFIG, encoder, *data, tmp_path / "out", OPTIONS, report=lines.append)
    assert [line[:7] for line in lines if line.startswith("epoch")] == ["epoch 2", "epoch 3"]
    assert shards == {path: path.stat().st_mtime_ns for path in shards}
    epochs = json.loads((tmp_path / "out/training/history.json").read_text())
    assert [epoch["epoch"] for epoch in epochs] == [1, 2, 3]
    assert epochs[1]["loss"] < epochs[0]["loss"]  # weights and optimizer were restored


def test_nothing_is_overwritten(encoder, data, tmp_path):
    out = tmp_path / "out"
    quick = TrainingOptions(epochs=1, batch=8, steps_per_epoch=1, validation_steps=1)
    train(CONFIG, encoder, *data, out, quick, report=lambda _: None)
    with pytest.raises(OutputError, match="finished captioner"):
        train(CONFIG, encoder, *data, out, quick)
    (out / "config.json").unlink()
    with pytest.raises(OutputError, match="other options"):
        train(CONFIG, encoder, *data, out, OPTIONS)
    with pytest.raises(OutputError, match="photos"):
        train(CONFIG, encoder, data[0][:-1], data[1], out, quick)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    with pytest.raises(OutputError, match="not a training run"):
        train(CONFIG, encoder, *data, tmp_path / "mine", quick)


def test_starting_from_another_decoder(encoder, data, tmp_path, tiny_source):
    quick = TrainingOptions(epochs=1, batch=8, steps_per_epoch=25, validation_steps=3, learning_rate=5e-3)
    train(CONFIG, encoder, *data, tmp_path / "first", quick, report=lambda _: None)
    train(CONFIG, encoder, *data, tmp_path / "second", quick, initial=tmp_path / "first", report=lambda _: None)
    first, second = (History(tmp_path / name / "training/history.json").epochs[0] for name in ("first", "second"))
    assert second.loss < first.loss - 0.3
    with pytest.raises(SourceError, match="other words"):
        train(CONFIG, encoder, *data, tmp_path / "third", quick, initial=tiny_source)


def test_patience():
    history = History.__new__(History)
    losses = [5.0, 4.0, 4.5, 4.4, 4.3]
    history.epochs = [Epoch(i, 0, 0, loss, 0, 0) for i, loss in enumerate(losses, start=1)]
    assert history.best().epoch == 2
    assert not history.exhausted(epochs=10, patience=4)
    assert history.exhausted(epochs=10, patience=3)
    assert history.exhausted(epochs=5, patience=9)


def test_distillation_brings_the_student_near_and_resumes(encoder, data, tmp_path):
    pixels = np.stack([capexport.load_image(photo.path, (64, 64)) for photo in data[0]])
    images = tf.cast(pixels, tf.float32)
    scale = 1 / float(tf.math.reduce_std(encoder(images)))
    teacher = tf_keras.Sequential([encoder, tf_keras.layers.Rescaling(scale)])

    def student():
        tf.keras.utils.set_random_seed(5)
        return build_backbone("MobileNetV3Small", (64, 64), None)

    def error(model):
        return float(tf.reduce_mean(tf.square(model(images) - teacher(images))))

    options = DistillationOptions(epochs=36, batch=6, learning_rate=1e-3, momentum=0.5)
    model = student()
    before = error(model)
    distill(model, teacher, pixels, tmp_path, options)
    assert error(model) < 0.7 * before
    resumed = student()
    distill(resumed, teacher, pixels, tmp_path, options)  # nothing is left to do but the statistics
    np.testing.assert_allclose(resumed(images), model(images), atol=1e-4)
    records = [json.loads(line) for line in (tmp_path / "distillation.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == list(range(1, 37))
