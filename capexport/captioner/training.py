"""Training a decoder on an encoder's cached features: the tutorial's recipe, resumable after any epoch."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf
import tf_keras

from ..bounds import check_number, check_whole
from ..datasets import CaptionedPhoto
from ..image import Pixels, load_image
from ..progress import bar
from .config import CaptionerConfig
from .history import Epoch, History
from .model import Captioner
from .pairs import Pairs
from .runs import prepare, publish
from .storage import save_captioner

TEMPERATURES = (0.0, 0.5, 1.0)


@dataclass(frozen=True)
class TrainingOptions:
    """The tutorial's recipe. An epoch is so many steps, not a pass over the data."""

    epochs: int = 100
    batch: int = 32
    steps_per_epoch: int = 100
    validation_steps: int = 20
    learning_rate: float = 1e-4
    patience: int = 5  # epochs without a better validation loss before training stops
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "steps_per_epoch", "validation_steps"):
            check_whole(name, getattr(self, name), least=1)
        for name in ("patience", "seed"):
            check_whole(name, getattr(self, name), least=0)
        check_number("learning_rate", self.learning_rate, above=0)


def masked_loss(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Mean cross-entropy (nats a token) without padding, and without banned tokens, whose loss is astronomic.

    labels (B, T) ids, logits (B, T, V).
    """
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)  # (B, T)
    mask = tf.cast((labels != 0) & (loss < 1e8), loss.dtype)
    return tf.reduce_sum(loss * mask) / tf.reduce_sum(mask)


def masked_acc(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Share of the tokens, padding left out, that are the likeliest of their logits."""
    labels = tf.cast(labels, tf.int64)  # Keras hands them to metrics as floats
    mask = tf.cast(labels != 0, tf.float32)
    hits = tf.cast(tf.argmax(logits, axis=-1) == labels, tf.float32)
    return tf.reduce_sum(hits * mask) / tf.reduce_sum(mask)


def train(
    config: CaptionerConfig,
    encoder: tf_keras.Model,
    train_photos: Sequence[CaptionedPhoto],
    dev_photos: Sequence[CaptionedPhoto],
    out: str | Path,
    options: TrainingOptions | None = None,
    initial: str | Path | None = None,
    report: Callable[[str], None] = print,
) -> Captioner:
    """Train a captioner and write it to `out`; a call with the same arguments goes on where one was cut off.

    encoder  a frozen feature extractor, as of build_backbone
    initial  the directory of a captioner of the same shape and words whose decoder this one starts from
    report   gets a line for the entropies, for each epoch and for each sample caption

    The work in progress (features, checkpoints, history.json, curves.png) lives in out/training. The captioner
    with the best validation loss is returned. Raises OutputError if `out` holds another run or a finished one.
    """
    options, out = options or TrainingOptions(), Path(out)
    run = prepare(config, encoder, train_photos, dev_photos, out, options, initial, report)
    sample = load_image(dev_photos[0].path, config.image_size, config.resize)
    _fit(run.captioner, run.train_pairs, run.dev_pairs, options, _Journal(run.work, sample, options, report))
    return publish(run.work / "best", out)


def _fit(captioner: Captioner, train_pairs: Pairs, dev_pairs: Pairs, options: TrainingOptions, journal: _Journal):
    optimizer = tf_keras.optimizers.Adam(options.learning_rate)
    captioner.compile(optimizer, loss=masked_loss, metrics=[masked_acc])
    journal.restore(captioner)
    if journal.over():
        return
    # A resumed run draws on, with another seed; validation is the same pairs each time, to compare epochs fairly.
    batches = train_pairs.batches(options.batch, options.seed + len(journal.history.epochs)).repeat()
    dev_count = options.batch * options.validation_steps
    dev_batches = dev_pairs.sample(dev_count, options.batch, options.seed).cache()
    with journal:
        captioner.fit(
            batches,
            initial_epoch=len(journal.history.epochs),
            epochs=options.epochs,
            steps_per_epoch=options.steps_per_epoch,
            validation_data=dev_batches,
            callbacks=[journal],
            verbose=0,
        )


class _Journal(tf_keras.callbacks.Callback):
    """After each epoch: history, checkpoint, the best weights, sample captions, and whether to stop."""

    def __init__(self, work: Path, sample: Pixels, options: TrainingOptions, report: Callable[[str], None]) -> None:
        super().__init__()
        self.history = History(work / "history.json")
        self._work, self._sample, self._options, self._report = work, sample, options, report
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> None:
        self._bar = self._exit.enter_context(bar())
        total = self._options.epochs * self._options.steps_per_epoch
        self._task = self._bar.add_task("training", total=total, status="")
        self._bar.update(self._task, completed=len(self.history.epochs) * self._options.steps_per_epoch)

    def __exit__(self, *exception) -> None:
        self._exit.close()

    def restore(self, captioner: Captioner) -> None:
        captioner.optimizer.build(captioner.trainable_variables)
        checkpoint = tf.train.Checkpoint(model=captioner, optimizer=captioner.optimizer)
        # Two: a run that is killed before the newest one's epoch is in the history needs the one before.
        self._checkpoints = tf.train.CheckpointManager(checkpoint, str(self._work / "checkpoints"), max_to_keep=2)
        done = len(self.history.epochs)
        saved = {int(path.rpartition("-")[2]): path for path in self._checkpoints.checkpoints}
        if done and self._checkpoints.checkpoints:
            checkpoint.restore(saved.get(done, self._checkpoints.latest_checkpoint))

    def over(self) -> bool:
        return self.history.exhausted(self._options.epochs, self._options.patience)

    def on_epoch_begin(self, epoch: int, logs=None) -> None:
        self._started = time.monotonic()

    def on_train_batch_end(self, batch: int, logs=None) -> None:
        self._bar.update(self._task, advance=1, status=f"loss {logs['loss']:.3f}")

    def on_epoch_end(self, epoch: int, logs=None) -> None:
        record = Epoch(
            epoch=epoch + 1,
            loss=logs["loss"],
            accuracy=logs["masked_acc"],
            val_loss=logs["val_loss"],
            val_accuracy=logs["val_masked_acc"],
            seconds=time.monotonic() - self._started,
        )
        self._checkpoints.save(checkpoint_number=epoch + 1)
        if not self.history.epochs or record.val_loss < self.history.best().val_loss:
            save_captioner(self.model, self._work / "best", force=True)
        self.history.append(record)
        self.history.plot(self._work / "curves.png")
        self._report(str(record))
        for temperature in TEMPERATURES:
            self._report(f"  temperature {temperature:.1f}: {self.model.simple_gen(self._sample, temperature)}")
        self.model.stop_training = self.over()
