"""Parity of all formats and recipes with Keras, whole greedy generations: python benchmarks/parity.py SOURCE PHOTO...

SOURCE is a source captioner's directory, or "shipped"; PHOTO are photos, folders of them, or the folder of Flickr8k,
which stands for the first 100 photos of its dev split.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import capexport
from capexport.captioner.reference import references
from capexport.datasets import load_dataset
from capexport.parity.comparison import compare_all
from capexport.progress import track
from capexport.recipes import RECIPES

DEV_PHOTOS = 100


def photos_of(arguments: list[str]) -> list[Path]:
    """The named photos, and those in the named folders."""
    photos: list[Path] = []
    for path in map(Path, arguments):
        if (path / "Flickr8k_text").is_dir():
            photos += [photo.path for photo in load_dataset("flickr8k", path, "dev", DEV_PHOTOS)]
        else:
            photos += sorted(path.glob("*.jpg")) if path.is_dir() else [path]
    return photos


def main(source: str, photos: list[Path]) -> None:
    captioner = capexport.load_captioner(None if source == "shipped" else source)
    config = captioner.config
    pixels = [capexport.load_image(photo, config.image_size, config.resize) for photo in photos]
    truth = list(track(references(captioner, pixels), len(pixels), "Keras"))
    with tempfile.TemporaryDirectory() as folder:
        for recipe in RECIPES.values():
            for to in recipe.formats:
                bundle = capexport.convert(captioner, f"{folder}/{to}-{recipe.name}", to=to, recipe=recipe.name)
                print(f"{to} {recipe.name}: {compare_all(capexport.load(bundle), truth)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], photos_of(sys.argv[2:]))
