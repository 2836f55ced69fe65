"""Training by the best recipe: words, then encoder and decoder together, then CIDEr; resumable after any epoch.

Each stage begins with the captioner that the one before ended with, and is left out if it has no epochs. An epoch is a
pass over the photos. What counts is the moving average of the weights: dev's figures are its, and so is the captioner
that a stage ends with, which is the one of the epoch with the best greedy CIDEr on dev. The last stage has several
runs, which begin alike and draw differently; the mean of their weights is what it ends with (a model soup: Wortsman et
al., 2022).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf
import tf_keras

from ..datasets import CaptionedPhoto
from ..errors import OptionError
from ..progress import bar
from .config import CaptionerConfig
from .dev import Dev
from .groups import Groups
from .history import StageEpoch, StageHistory
from .model import Captioner
from .runs import prepare, publish
from .stages import Stage, StageOptions, Trainer
from .storage import CONFIG, load_captioner, save_captioner
from .weights import assign_all, assign_mean


@dataclass(frozen=True)
class BestOptions(StageOptions):
    """What `--recipe best` does. An epoch is a pass over all photos; a stage without epochs is left out.

    word_epochs    epochs of the words' cross-entropy, on cached features
    word_rate      their highest learning rate, reached after the warm-up and decayed to zero along a cosine
    joint_epochs   epochs in which the encoder learns, too, of photos cropped and flipped anew each time
    joint_rate     their highest learning rate
    cider_epochs   epochs of self-critical training of both: captions are sampled, those with more CIDEr made likelier
    cider_rate     their highest learning rate
    cider_runs     of that stage; their captioners are averaged
    """

    word_epochs: int = 12
    word_rate: float = 1e-3
    joint_epochs: int = 5
    joint_rate: float = 2e-4
    cider_epochs: int = 8
    cider_rate: float = 5e-5
    cider_runs: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cider_runs < 1:
            raise OptionError(f"The last stage has at least 1 run, not {self.cider_runs}.")
        if not self.stages():
            raise OptionError("All of the stages have no epochs: there is nothing to do.")

    def stages(self) -> list[list[Stage]]:
        """The stages that have epochs, one after the other; the runs of each, which begin alike."""
        names = ["cider", *(f"cider-{run}" for run in range(2, self.cider_runs + 1))]
        cider = Stage(names[0], self.cider_epochs, self.cider_rate, True, True, smallest_crop=0.6, gain=0.2)
        stages = [
            [Stage("word", self.word_epochs, self.word_rate)],
            [Stage("joint", self.joint_epochs, self.joint_rate, encoder=True)],
            [dataclasses.replace(cider, name=name) for name in names],
        ]
        return [runs for runs in stages if runs[0].epochs]


def train_best(
    config: CaptionerConfig,
    encoder: tf_keras.Model,
    train_photos: Sequence[CaptionedPhoto],
    dev_photos: Sequence[CaptionedPhoto],
    out: str | Path,
    options: BestOptions | None = None,
    initial: str | Path | None = None,
    report: Callable[[str], None] = print,
) -> Captioner:
    """Train a captioner by the best recipe and write it to `out`, as of training.train.

    The work in progress (features, and for each stage checkpoints and the best captioner so far, history.json,
    curves.png) lives in out/training. Raises OutputError if `out` holds another run or a finished one.
    """
    options = options or BestOptions()
    run = prepare(config, encoder, train_photos, dev_photos, Path(out), options, initial, report)
    train_groups = Groups(run.captioner, train_photos, run.train_pairs)
    dev = Dev(run.captioner, Groups(run.captioner, dev_photos, run.dev_pairs))
    history = StageHistory(run.work / "history.json")
    best = run.work / "initial"
    if not (best / CONFIG).exists():
        save_captioner(run.captioner, best, force=True)
    for stages in options.stages():
        ends = []
        for stage in stages:
            assign_all(run.captioner, load_captioner(best))
            ends.append(_run(stage, run.captioner, train_groups, dev, options, history, run.work / stage.name, report))
        best = ends[0] if len(ends) == 1 else _mean(ends, run.captioner, dev, run.work / "mean", report)
    return publish(best, Path(out))


def _mean(ends: list[Path], captioner: Captioner, dev: Dev, out: Path, report: Callable[[str], None]) -> Path:
    """Save the mean of several captioners; returns its directory."""
    assign_mean(captioner, [load_captioner(end) for end in ends])
    val_loss, val_cider = dev.measure(anew=True)
    report(f"mean of {len(ends)} runs: val_loss {val_loss:.3f}, val_cider {val_cider:.3f}")
    save_captioner(captioner, out, force=True)
    return out


def _run(
    stage: Stage,
    captioner: Captioner,
    groups: Groups,
    dev: Dev,
    options: BestOptions,
    history: StageHistory,
    work: Path,
    report: Callable[[str], None],
) -> Path:
    """Run a stage, or what is left of it; returns the directory of its best captioner."""
    if len(history.of(stage.name)) >= stage.epochs:
        return work / "best"
    epoch = tf.Variable(0, dtype=tf.int64)
    trainer = Trainer(stage, captioner, groups, options)
    checkpoint = tf.train.Checkpoint(model=captioner, optimizer=trainer.optimizer, epoch=epoch)
    checkpoints = tf.train.CheckpointManager(checkpoint, str(work / "checkpoints"), max_to_keep=1)
    if checkpoints.latest_checkpoint:
        checkpoint.restore(checkpoints.latest_checkpoint)
    history.keep(stage.name, int(epoch))
    with bar() as progress:
        steps = trainer.steps
        task = progress.add_task(stage.name, total=stage.epochs * steps, completed=int(epoch) * steps, status="")
        while int(epoch) < stage.epochs:
            started, total = time.monotonic(), 0.0
            for loss in trainer.epoch(int(epoch)):
                total += loss
                progress.update(task, advance=1, status=f"loss {loss:.3f}")
            with trainer.averaged():
                val_loss, val_cider = dev.measure(stage.encoder)
                seconds = time.monotonic() - started
                record = StageEpoch(stage.name, int(epoch) + 1, total / steps, val_loss, val_cider, seconds)
                if record.val_cider > history.best_cider(stage.name):
                    save_captioner(captioner, work / "best", force=True)
            history.append(record)
            history.plot(work.parent / "curves.png")
            epoch.assign_add(1)
            checkpoints.save()
            report(str(record))
    return work / "best"
