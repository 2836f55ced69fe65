"""What each ingredient of `capexport train --recipe best` is worth: short runs without it, or with it.

    python benchmarks/ablations.py --data FLICKR8K --encoder-weights FILE --work DIR [--train-photos N]

Every row is a run of the words' stage; the last ones go on with self-critical training from the first. The second row
differs from the first in its seed alone, and says how much is chance. An interrupted script goes on where it was,
DIR/ROW/training/history.json being each row's log. Writes ablations.json and ablations.md beside this file: dev's loss
and greedy CIDEr after each run's last epoch.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import tf_keras

from capexport.captioner.backbone import build_backbone
from capexport.captioner.best import BestOptions, train_best
from capexport.captioner.config import CaptionerConfig
from capexport.datasets import load_dataset

HERE = Path(__file__)
DROPOUT = 0.2
AVERAGED = 15  # a run's steps over those that its moving average looks back on, about as in the whole recipe
WORDS: dict[str, dict[str, Any]] = {
    "all of it": {},
    "the same, another seed": {"seed": 1},
    "photos as they are only": {"views": 1},
    "no label smoothing": {"label_smoothing": 0.0},
    "no weight decay": {"weight_decay": 0.0},
    "no warm-up": {"warm_up": 0.0},
    "no moving average": {"average": 0.0},
    "the tutorial's dropout": {"dropout_rate": 0.5},
    "no dropout": {"dropout_rate": 0.0},
    "tied embeddings": {"tied_embeddings": True},
    "tied embeddings, another seed": {"tied_embeddings": True, "seed": 1},
}
CIDER: dict[str, dict[str, Any]] = {
    "then CIDEr": {},
    "then CIDEr, 2 samples": {"samples": 2},
    "then words for as long": {"cider_epochs": 0},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="the folder of Flickr8k")
    parser.add_argument("--encoder-weights", required=True, help="as of capexport train")
    parser.add_argument("--work", required=True, type=Path, help="a folder for the runs")
    parser.add_argument("--train-photos", type=int, metavar="N", help="the first N of them (default: all)")
    parser.add_argument("--epochs", type=int, default=4, help="of the words' stage")
    parser.add_argument("--cider-epochs", type=int, default=2)
    parser.add_argument("--precision", default="auto", help="as of capexport train")
    parsed = parser.parse_args()
    photos = len(load_dataset("flickr8k", parsed.data, "train")[: parsed.train_photos])
    plain = BestOptions(word_epochs=parsed.epochs, joint_epochs=0, cider_epochs=0, precision=parsed.precision)
    plain = dataclasses.replace(plain, average=1 - AVERAGED * plain.photos / (parsed.epochs * photos))
    rows = {}
    for name, change in WORDS.items():
        rows[name] = run(parsed, name, plain, change, None)
    for name, change in CIDER.items():
        if "cider_epochs" in change:
            options = dataclasses.replace(plain, word_epochs=parsed.cider_epochs, word_rate=1e-4)
        else:
            options = dataclasses.replace(plain, word_epochs=0, cider_epochs=parsed.cider_epochs)
            options = dataclasses.replace(options, **change)
        rows[name] = run(parsed, name, options, {}, parsed.work / folder("all of it"))
    HERE.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    HERE.with_suffix(".md").write_text(markdown(rows) + "\n")
    print(markdown(rows))


def run(parsed: argparse.Namespace, name: str, options: BestOptions, change: dict[str, Any], initial: Path | None):
    """The last epoch of one row's run, which is made if it is not there."""
    of_config = {field.name for field in dataclasses.fields(CaptionerConfig)}
    config = CaptionerConfig(**{"dropout_rate": DROPOUT} | {k: v for k, v in change.items() if k in of_config})
    change = {key: value for key, value in change.items() if key not in of_config}
    out = parsed.work / folder(name)
    if not (out / "config.json").exists():
        print(f"--- {name}", flush=True)
        tf_keras.utils.set_random_seed(change.get("seed", 0))
        encoder = build_backbone(config.backbone, config.image_size, parsed.encoder_weights)
        train, dev = (load_dataset("flickr8k", parsed.data, split) for split in ("train", "dev"))
        train_best(
            config, encoder, train[: parsed.train_photos], dev, out, dataclasses.replace(options, **change), initial
        )
    return json.loads((out / "training/history.json").read_text())[-1]


def folder(name: str) -> str:
    return name.replace(" ", "-").replace(",", "").replace("'", "")


def markdown(rows: dict[str, dict[str, Any]]) -> str:
    """The rows as a table, CIDEr beside the first row's."""
    base = rows["all of it"]["val_cider"]
    lines = ["| run | epochs | loss on dev | greedy CIDEr on dev | beside the first row |", "|---|---|---|---|---|"]
    for name, last in rows.items():
        gain = f"{last['val_cider'] - base:+.3f}"
        lines.append(f"| {name} | {last['epoch']} | {last['val_loss']:.3f} | {last['val_cider']:.3f} | {gain} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
