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
STRETCHED = 48  # of each photo
LARGE, SMALL = (0.25, 1.0), (0.02, 0.2)  # parts' sides, as shares of the photo's
SIDE = 256  # pixels, of a view before a detail


def sample_views(preprocessing: Preprocessing) -> list[Pixels]:
    """The photos whole, mirrored and in parts."""
    return [_load(view, preprocessing) for photo in _photos() for view in _views(photo)]


def stretched_views(preprocessing: Preprocessing) -> list[Pixels]:
    """Parts of the photos in other colours, every second one before a detail of another, blown up; always the same.

    A few photos leave most channels of an encoder far below the values that other photos bring, such as a dog before
    nothing but waves; these do not.
    """
    rng, photos = np.random.default_rng(0), _photos()
    views = [_stretched(photo, rng, LARGE) for _ in range(STRETCHED) for photo in photos]
    details = [_stretched(photo, rng, SMALL) for _ in range(STRETCHED // 2) for photo in photos]
    order = rng.permutation(len(details))
    before = [_before(view, details[k], rng) for view, k in zip(views[::2], order, strict=True)]
    return [_load(view, preprocessing) for view in (*views[1::2], *before)]


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


def _stretched(photo: Image.Image, rng: np.random.Generator, sides: tuple[float, float]) -> Image.Image:
    share = rng.uniform(*sides)
    width, height = (int(share * side) for side in photo.size)
    left, top = rng.integers(0, photo.width - width + 1), rng.integers(0, photo.height - height + 1)
    part = photo.crop((int(left), int(top), int(left) + width, int(top) + height))
    part = ImageEnhance.Color(part).enhance(rng.uniform(0, 2))
    part = ImageEnhance.Brightness(part).enhance(rng.uniform(0.5, 1.5))
    part = ImageEnhance.Contrast(part).enhance(rng.uniform(0.5, 3))
    return ImageOps.invert(part) if rng.random() < 0.2 else part


def _before(view: Image.Image, ground: Image.Image, rng: np.random.Generator) -> Image.Image:
    side = int(rng.integers(SIDE // 6, SIDE * 3 // 4))
    left, top = rng.integers(0, SIDE - side, 2)
    whole = ground.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    whole.paste(view.resize((side, side)), (int(left), int(top)))
    return whole


def _load(view: Image.Image, preprocessing: Preprocessing) -> Pixels:
    return load_image(view, preprocessing.size, preprocessing.resize)
