"""Our training beside the tutorial's own log: python benchmarks/training_curves.py OUT/training/history.json

tutorial_log.json holds the figures that the tutorial's page prints, one record an epoch (a run of 46 epochs that stops
early). Writes training_curves.png and prints the comparison at a few epochs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from capexport.plot import new_figure, save_figure

HERE = Path(__file__).parent


def main(history: Path) -> None:
    runs = {
        "the tutorial's page": json.loads((HERE / "tutorial_log.json").read_text()),
        "capexport train": json.loads(history.read_text()),
    }
    figure = new_figure(11, 4.2)
    axes = figure.subplots(1, 2)
    for (label, records), colour in zip(runs.items(), ("tab:grey", "tab:blue"), strict=True):
        epochs = [record["epoch"] for record in records]
        for axis, name in zip(axes, ("loss", "accuracy"), strict=True):
            axis.plot(
                epochs, [record[name] for record in records], "--", color=colour, alpha=0.6, label=f"{label}, training"
            )
            axis.plot(epochs, [record[f"val_{name}"] for record in records], color=colour, label=f"{label}, validation")
            axis.set(xlabel="epoch (100 steps of 32 captions)", title=f"masked {name}")
            axis.grid(alpha=0.3)
    axes[0].set_ylabel("nats a token")
    axes[1].set_ylabel("share of tokens")
    axes[0].legend()
    save_figure(figure, HERE / "training_curves.png")
    for label, records in runs.items():
        best = min(records, key=lambda record: record["val_loss"])
        for record in (records[0], records[9], best):
            shown = ", ".join(f"{key} {record[key]:.3f}" for key in ("loss", "accuracy", "val_loss", "val_accuracy"))
            print(f"{label}: epoch {record['epoch']}{' (best)' if record is best else ''}: {shown}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
