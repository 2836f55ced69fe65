"""A data set in Flickr8k's layout, small enough to train on in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCENES = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}


@pytest.fixture
def small_flickr8k(tmp_path) -> Path:
    """18 train and 6 dev photos, each of one colour, which its five captions name."""
    root = tmp_path / "flickr8k"
    (root / "Flicker8k_Dataset").mkdir(parents=True)
    (root / "Flickr8k_text").mkdir()
    rng = np.random.default_rng(0)
    lines, names = [], []
    for i in range(24):
        colour = list(SCENES)[i % 3]
        name = f"{i:04d}_photo.jpg"
        pixels = np.clip(np.array(SCENES[colour]) + rng.normal(0, 10, (80, 80, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / "Flicker8k_Dataset" / name)
        texts = ["A {} wall .", "There is a {} wall", "the wall is {} !", "A plain {} colour", "{}"]
        lines += [f"{name}#{k}\t{text.format(colour)}" for k, text in enumerate(texts)]
        names.append(name)
    (root / "Flickr8k_text/Flickr8k.token.txt").write_text("\n".join(lines) + "\n")
    (root / "Flickr8k_text/Flickr_8k.trainImages.txt").write_text("\n".join(names[:18]) + "\n")
    (root / "Flickr8k_text/Flickr_8k.devImages.txt").write_text("\n".join(names[18:]) + "\n")
    return root
