"""The record of a training run: what was measured in each epoch, on disk after each, and its curves."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from ..atomic import new_file
from ..plot import new_figure, save_figure

T = TypeVar("T", bound=Any)


@dataclass(frozen=True)
class Epoch:
    """Means over one epoch: losses in nats a token, accuracies as shares of the tokens."""

    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    seconds: float

    def __str__(self) -> str:
        return (
            f"epoch {self.epoch}: loss {self.loss:.3f}, accuracy {self.accuracy:.3f}, "
            f"val_loss {self.val_loss:.3f}, val_accuracy {self.val_accuracy:.3f}, {self.seconds:.0f} s"
        )


@dataclass(frozen=True)
class StageEpoch:
    """One epoch of a stage of the best recipe: losses in nats a word, the first one as the stage's objective has it.

    loss       the mean over the steps; of a self-critical stage minus the samples' CIDEr
    val_cider  CIDEr of greedy captions of dev
    """

    stage: str
    epoch: int
    loss: float
    val_loss: float
    val_cider: float
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.stage} epoch {self.epoch}: loss {self.loss:.3f}, "
            f"val_loss {self.val_loss:.3f}, val_cider {self.val_cider:.3f}, {self.seconds:.0f} s"
        )


class _Records(Generic[T]):
    """The epochs so far, kept in a JSON file."""

    def __init__(self, path: Path, kind: type[T]) -> None:
        self._path = path
        self.epochs = [kind(**record) for record in json.loads(path.read_text())] if path.exists() else []

    def append(self, epoch: T) -> None:
        self.epochs.append(epoch)
        with new_file(self._path, tidy=True) as partial:
            partial.write_text(json.dumps([dataclasses.asdict(epoch) for epoch in self.epochs], indent=1))


class StageHistory(_Records[StageEpoch]):
    """The epochs of all stages of the best recipe."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, StageEpoch)

    def of(self, stage: str) -> list[StageEpoch]:
        return [epoch for epoch in self.epochs if epoch.stage == stage]

    def keep(self, stage: str, epochs: int) -> None:
        """Forget what came after so many epochs of the stage."""
        self.epochs = [epoch for epoch in self.epochs if epoch.stage != stage or epoch.epoch <= epochs]

    def best_cider(self, stage: str) -> float:
        """The best of the stage so far; -1 if there is none."""
        return max((epoch.val_cider for epoch in self.of(stage)), default=-1.0)

    def plot(self, path: Path) -> None:
        """Draw dev's loss and CIDEr over the epochs of all stages."""
        figure = new_figure(10, 4)
        axes = figure.subplots(1, 2)
        for axis, name, unit in zip(axes, ("val_loss", "val_cider"), ("nats a word", "CIDEr"), strict=True):
            for stage in dict.fromkeys(epoch.stage for epoch in self.epochs):
                numbered = [(number, getattr(e, name)) for number, e in enumerate(self.epochs, 1) if e.stage == stage]
                axis.plot(*zip(*numbered, strict=True), marker=".", label=stage)
            axis.set(xlabel="epoch", ylabel=unit, title={"val_loss": "Loss on dev", "val_cider": "CIDEr on dev"}[name])
            axis.grid(alpha=0.3)
            axis.legend()
        save_figure(figure, path)


class History(_Records[Epoch]):
    """The epochs of the tutorial's recipe."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, Epoch)

    def best(self) -> Epoch:
        """The epoch with the lowest validation loss."""
        return min(self.epochs, key=lambda epoch: epoch.val_loss)

    def exhausted(self, epochs: int, patience: int) -> bool:
        """Whether training is over: `epochs` are done, or the last `patience` of them brought nothing better."""
        done = len(self.epochs)
        return done >= epochs or (done > 0 and done - self.best().epoch >= patience)

    def plot(self, path: Path) -> None:
        """Draw loss and accuracy over the epochs, training and validation."""
        figure = new_figure(10, 4)
        axes = figure.subplots(1, 2)
        for axis, name, unit in zip(axes, ("loss", "accuracy"), ("nats a token", "share of tokens"), strict=True):
            numbers = [epoch.epoch for epoch in self.epochs]
            axis.plot(numbers, [getattr(epoch, name) for epoch in self.epochs], label="training")
            axis.plot(numbers, [getattr(epoch, f"val_{name}") for epoch in self.epochs], label="validation")
            axis.set(xlabel="epoch", ylabel=unit, title=f"Masked {name}")
            axis.grid(alpha=0.3)
            axis.legend()
        save_figure(figure, path)
