"""A folder of small photos that differ from each other, two of them broken."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

BROKEN = ("photo-05.jpg", "photo-22.jpg")


def make_photo(path: Path, scene: Path, seed: int) -> None:
    """A part of a photo of 80 pixels a side, drawn by the seed."""
    rng = np.random.default_rng(seed)
    with Image.open(scene) as image:
        left, top = (int(rng.integers(0, side - 80)) for side in image.size)
        image.convert("RGB").crop((left, top, left + 80, top + 80)).save(path)


@pytest.fixture
def folder(photos, tmp_path) -> Path:
    """30 photos, photo-00.jpg to photo-29.jpg, of which BROKEN are broken."""
    directory = tmp_path / "photos"
    directory.mkdir()
    for k in range(30):
        make_photo(directory / f"photo-{k:02d}.jpg", photos[k % len(photos)], k)
    for name in BROKEN:
        (directory / name).write_bytes((directory / name).read_bytes()[:200])
    return directory


def write_tar(path: Path, photos: Iterable[Path]) -> None:
    """A shard with these photos, each with a text, as WebDataset has them."""
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for photo in photos:
            for name, body in ((photo.name, photo.read_bytes()), (f"{photo.stem}.txt", b"a wall")):
                member = tarfile.TarInfo(f"./{name}")
                member.size = len(body)
                tar.addfile(member, io.BytesIO(body))
