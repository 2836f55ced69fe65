"""Train an encoder from random initialisation to give the feature map of another one (its teacher).

Feature-map distillation in the manner of FitNets (Romero et al., 2015) with a teacher that sees the same crop
as the student (Beyer et al., 2022): mean squared error on the last feature map. No captions are needed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras

from ..bounds import check_number, check_whole
from ..errors import DataError
from ..image import Pixels
from ..progress import bar
from .augmentation import augment


@dataclass(frozen=True)
class DistillationOptions:
    """What one run does; the defaults made the captioner that ships."""

    epochs: int = 36
    batch: int = 32
    learning_rate: float = 2e-3  # Adam, decayed to zero along a cosine
    smallest_crop: float = 0.6  # share of the photo's side
    gain: float = 0.2  # each channel is multiplied by 1 - gain ... 1 + gain
    momentum: float = 0.97  # of the batch norms' statistics while training
    statistics_photos: int = 3000  # photos over which the statistics are estimated again at the end
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "statistics_photos"):
            check_whole(name, getattr(self, name), least=1)
        check_whole("seed", self.seed, least=0)
        check_number("learning_rate", self.learning_rate, above=0)
        check_number("smallest_crop", self.smallest_crop, above=0, most=1)
        for name in ("gain", "momentum"):
            check_number(name, getattr(self, name), least=0, most=1)


def distill(
    student: tf_keras.Model,
    teacher: tf_keras.Model,
    photos: Sequence[Pixels] | np.ndarray,
    out: Path,
    options: DistillationOptions | None = None,
) -> None:
    """Train the student in place; after each epoch a checkpoint goes to `out`, from which a later call resumes.

    photos  uint8 (count, height, width, 3) at the models' input size

    Raises DataError for fewer photos than one batch has.
    """
    options = options or DistillationOptions()
    if len(photos) < options.batch:
        raise DataError(f"{len(photos)} photos do not fill a batch of {options.batch}; take more, or a smaller batch.")
    steps = len(photos) // options.batch
    student.trainable = True
    _set_momentum(student, options.momentum)
    schedule = tf_keras.optimizers.schedules.CosineDecay(options.learning_rate, options.epochs * steps)
    optimizer = tf_keras.optimizers.Adam(schedule)
    optimizer.build(student.trainable_variables)
    epoch = tf.Variable(0, dtype=tf.int64)
    checkpoint = tf.train.Checkpoint(student=student, optimizer=optimizer, epoch=epoch)
    manager = tf.train.CheckpointManager(checkpoint, str(out / "checkpoints"), max_to_keep=1)
    if manager.latest_checkpoint:
        checkpoint.restore(manager.latest_checkpoint)
    step = _training_step(student, teacher, optimizer, options)
    with bar() as progress:
        task = progress.add_task("distilling", total=options.epochs * steps, status="")
        progress.update(task, completed=int(epoch) * steps)
        while int(epoch) < options.epochs:
            started, losses = time.monotonic(), []
            for pixels in _batches(photos, options, int(epoch)):
                losses.append(step(tf.constant(pixels)))
                progress.update(task, advance=1, status=f"loss {float(losses[-1]):.4f}")
            epoch.assign_add(1)
            manager.save()
            _log(out, int(epoch), float(np.mean(losses)), time.monotonic() - started)
    estimate_statistics(student, photos[: options.statistics_photos], options.batch)
    student.trainable = False


def _training_step(student, teacher, optimizer, options: DistillationOptions):
    @tf.function
    def step(pixels: tf.Tensor) -> tf.Tensor:
        seed = tf.stack([options.seed, tf.cast(optimizer.iterations, tf.int32)])
        images = augment(pixels, seed, options.smallest_crop, options.gain)
        target = teacher(images, training=False)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(student(images, training=True) - target))
        gradients = tape.gradient(loss, student.trainable_variables)
        optimizer.apply_gradients(zip(gradients, student.trainable_variables, strict=True))
        return loss

    return step


def _batches(photos: Sequence[Pixels] | np.ndarray, options: DistillationOptions, epoch: int) -> Iterator[np.ndarray]:
    order = np.random.default_rng((options.seed, epoch)).permutation(len(photos))
    for start in range(0, len(order) - options.batch + 1, options.batch):
        yield np.stack([photos[i] for i in order[start : start + options.batch]])


def _set_momentum(model: tf_keras.Model, momentum: float) -> None:
    for layer in model.layers:
        if isinstance(layer, tf_keras.layers.BatchNormalization):
            layer.momentum = momentum


def estimate_statistics(model: tf_keras.Model, photos: Sequence[Pixels] | np.ndarray, batch: int) -> None:
    """Replace the batch norms' moving statistics by the plain mean over the given photos.

    The k-th batch is given the weight 1/k, which makes the moving average the mean of all batches.
    """
    norms = [layer for layer in model.layers if isinstance(layer, tf_keras.layers.BatchNormalization)]
    for k, start in enumerate(range(0, len(photos) - batch + 1, batch), start=1):
        for layer in norms:
            layer.momentum = 1 - 1 / k
        model(tf.cast(np.stack(list(photos[start : start + batch])), tf.float32), training=True)


def _log(out: Path, epoch: int, loss: float, seconds: float) -> None:
    record = {"epoch": epoch, "loss": round(loss, 5), "seconds": round(seconds, 1)}
    with (out / "distillation.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")
    print(f"epoch {epoch}: loss {loss:.5f}, {seconds:.0f} s")
