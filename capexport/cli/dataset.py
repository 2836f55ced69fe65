"""The options that name a data set and how much of it to take."""

from __future__ import annotations

import argparse

from ..datasets import DATASETS, CaptionedPhoto, load_dataset
from .options import PRIVATE_HOSTS

DEFAULT = "flickr8k"


def add_dataset_options(parser: argparse.ArgumentParser, *splits: str) -> None:
    """--dataset, --data, and --SPLIT-photos for each of the splits that the command uses."""
    parser.add_argument(
        "--dataset", default=DEFAULT, metavar="NAME", help=f"{', '.join(DATASETS)} (default: {DEFAULT})"
    )
    places = "; ".join(f"{name}: {dataset.data}" for name, dataset in DATASETS.items())
    parser.add_argument("--data", required=True, metavar="DIR|URL", help=places)
    parser.add_argument("--private-hosts", action="store_true", help=PRIVATE_HOSTS)
    for split in splits:
        parser.add_argument(
            f"--{split}-photos", type=int, metavar="N", help=f"the first N photos for {split} (default: all)"
        )


def read_photos(parsed: argparse.Namespace, split: str) -> list[CaptionedPhoto]:
    """The photos of one split that the options ask for."""
    limit = getattr(parsed, f"{split}_photos")
    return load_dataset(parsed.dataset, parsed.data, split, limit, private=parsed.private_hosts)
