"""Training by the best recipe: words, then encoder and decoder together, then CIDEr; resumable after any epoch.

Where other captioners teach, what they say together takes the place of the first two stages.

Each stage begins with the captioner that the one before ended with, and is left out if it has no epochs. An epoch is a
pass over the photos. What counts is the moving average of the weights: dev's figures are its, and so is the captioner
that a stage ends with, which is the one of the epoch with the best greedy CIDEr on dev. The last stage, which fits the
training photos most closely, ends with the mean of its weights and those that it began with, if dev prefers that
(Wortsman et al., 2022, "Robust fine-tuning of zero-shot models").
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf
import tf_keras

from ..bounds import check_number, check_whole
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
from .storage import CONFIG, assign_mean, save_captioner


@dataclass(frozen=True)
class BestOptions(StageOptions):
    """What `--recipe best` does. An epoch is a pass over all photos; a stage without epochs is left out.

    word_epochs    epochs of the words' cross-entropy, on cached features
    word_rate      their highest learning rate, reached after the warm-up and decayed to zero along a cosine
    joint_epochs   epochs in which the encoder learns, too, of photos cropped and flipped anew each time
    joint_rate     their highest learning rate
    teachers       captioners' directories; what they say together is then learnt in the place of the two stages above
    taught_epochs  epochs of that, in which the encoder learns, too
    taught_rate    their highest learning rate
    cider_epochs   epochs of self-critical training of both: captions are sampled, those with more CIDEr made likelier
    cider_rate     their highest learning rate
    """

    word_epochs: int = 12
    word_rate: float = 1e-3
    joint_epochs: int = 5
    joint_rate: float = 2e-4
    teachers: tuple[str, ...] = ()
    taught_epochs: int = 30
    taught_rate: float = 3e-4
    cider_epochs: int = 8
    cider_rate: float = 5e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("word", "joint", "taught", "cider"):
            check_whole(f"{name}_epochs", getattr(self, f"{name}_epochs"), least=0)
            check_number(f"{name}_rate", getattr(self, f"{name}_rate"), above=0)
        if not self.stages():
            raise OptionError("All of the stages have no epochs: there is nothing to do.")

    def stages(self) -> list[Stage]:
        """The stages that have epochs, one after the other."""
        begin = [
            Stage("word", self.word_epochs, self.word_rate),
            Stage("joint", self.joint_epochs, self.joint_rate, encoder=True),
        ]
        if self.teachers:
            taught = Stage("taught", self.taught_epochs, self.taught_rate, encoder=True, taught=True)
            begin = [dataclasses.replace(taught, smallest_crop=0.5, gain=0.2)]
        stages = [
            *begin,
            Stage("cider", self.cider_epochs, self.cider_rate, encoder=True, sampled=True, smallest_crop=0.6, gain=0.2),
        ]
        return [stage for stage in stages if stage.epochs]


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
    for stage in options.stages():
        assign_mean(run.captioner, [best])
        end = _run(stage, run.captioner, train_groups, dev, options, history, run.work / stage.name, report)
        if stage.sampled:
            end = _mean(best, end, run.captioner, dev, history.best_cider(stage.name), run.work / "mean", report)
        best = end
    return publish(best, Path(out))


def _mean(
    begin: Path,
    end: Path,
    captioner: Captioner,
    dev: Dev,
    cider: float,
    out: Path,
    report: Callable[[str], None],
) -> Path:
    """Where the better of two captioners is: the one at `end`, whose CIDEr on dev is known, or both ones' mean."""
    assign_mean(captioner, [begin, end])
    val_loss, val_cider = dev.measure(anew=True)
    report(f"mean of its beginning and end: val_loss {val_loss:.3f}, val_cider {val_cider:.3f}")
    if val_cider <= cider:
        return end
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
    trainer = Trainer(stage, captioner, groups, options, options.teachers)
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
