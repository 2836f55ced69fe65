"""The record of a training run: losses and accuracies by epoch, on disk after each, and their curves."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from ..atomic import new_file
from ..plot import new_figure, save_figure


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


class History:
    """The epochs so far, kept in a JSON file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.epochs = [Epoch(**record) for record in json.loads(path.read_text())] if path.exists() else []

    def append(self, epoch: Epoch) -> None:
        self.epochs.append(epoch)
        with new_file(self._path, tidy=True) as partial:
            partial.write_text(json.dumps([dataclasses.asdict(epoch) for epoch in self.epochs], indent=1))

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
