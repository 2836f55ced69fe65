"""What layers' ranges are learnt from: where no photos are given, views of those that ship; and random captions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from ..image import Pixels, load_image
from ..manifest import Preprocessing
from ..parity.vectors import ParityVector
from ..shipped import sample_photos

CORNERS = ((0.0, 0.0), (0.4, 0.0), (0.0, 0.4), (0.4, 0.4), (0.2, 0.2))  # left, top of crops of 3/5 of a photo's sides
CROP = 0.6
STRETCHED = 36  # of each photo


def sample_views(preprocessing: Preprocessing) -> list[Pixels]:
    """The photos whole, mirrored and in parts."""
    return [_load(view, preprocessing) for photo in _photos() for view in _views(photo)]


def stretched_views(preprocessing: Preprocessing) -> list[Pixels]:
    """Parts of the photos in other colours, every second one mixed with another, always the same.

    A few photos leave most channels of an encoder far below the values that other photos bring; these do not.
    """
    rng, photos = np.random.default_rng(0), _photos()
    views = [_stretched(photo, rng) for _ in range(STRETCHED) for photo in photos]
    order = rng.permutation(len(views))
    mixed = [
        Image.blend(view.resize(photos[0].size), views[k].resize(photos[0].size), 0.5)
        for view, k in zip(views[::2], order, strict=False)
    ]
    return [_load(view, preprocessing) for view in (*views[1::2], *mixed)]


def random_captions(photos: Sequence[ParityVector], bias: NDArray[np.float32]) -> list[ParityVector]:
    """The photos with captions as long as theirs, of words drawn as often as training saw them, always the same.

    Some hundred captions name a small part of the vocabulary, and the others' embeddings have ranges, too.

    bias  of the words' logits (V,): their log-probabilities
    """
    rng, shares = np.random.default_rng(0), np.exp(bias - bias.max(), dtype=np.float64)
    drawn = [rng.choice(len(bias), len(photo.tokens), p=shares / shares.sum()) for photo in photos]
    return [
        dataclasses.replace(photo, tokens=tokens.astype(np.int32)) for photo, tokens in zip(photos, drawn, strict=True)
    ]


def _photos() -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in sample_photos()]


def _views(photo: Image.Image) -> Iterator[Image.Image]:
    yield photo
    yield ImageOps.mirror(photo)
    width, height = photo.size
    for left, top in CORNERS:
        yield photo.crop((int(left * width), int(top * height), int((left + CROP) * width), int((top + CROP) * height)))


def _stretched(photo: Image.Image, rng: np.random.Generator) -> Image.Image:
    share = rng.uniform(0.25, 1)
    width, height = (int(share * side) for side in photo.size)
    left, top = rng.integers(0, photo.width - width + 1), rng.integers(0, photo.height - height + 1)
    part = photo.crop((int(left), int(top), int(left) + width, int(top) + height))
    part = ImageEnhance.Color(part).enhance(rng.uniform(0, 2))
    part = ImageEnhance.Brightness(part).enhance(rng.uniform(0.5, 1.5))
    part = ImageEnhance.Contrast(part).enhance(rng.uniform(0.5, 2))
    return ImageOps.invert(part) if rng.random() < 0.2 else part


def _load(view: Image.Image, preprocessing: Preprocessing) -> Pixels:
    return load_image(view, preprocessing.size, preprocessing.resize)
