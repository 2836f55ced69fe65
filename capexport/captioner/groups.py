"""What the best recipe learns from: photos, each with all of its captions, so that a photo is attended to once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..datasets import CaptionedPhoto
from ..image import load_image
from ..progress import track
from .features import FeatureCache
from .model import Captioner
from .pairs import Pairs


@dataclass(frozen=True)
class Group:
    """A batch of P photos with C captions each.

    photos  int (P,), their indices
    tokens  int32 (P, C, T + 1), from [START] to [END], zeros after it; where a photo has fewer captions, all zeros
    """

    photos: np.ndarray
    tokens: np.ndarray


class Groups:
    """A split's photos by index: their captions, and their features in several views."""

    def __init__(self, captioner: Captioner, photos: Sequence[CaptionedPhoto], pairs: Pairs) -> None:
        self._captioner, self._work = captioner, pairs.features.directory.parent
        self._paths = [photo.path for photo in photos]
        padded = pairs.tokens.to_tensor().numpy().astype(np.int32)  # (pairs, T + 1)
        counts = np.diff(pairs.starts)
        self._tokens = np.zeros((len(photos), int(counts.max()), padded.shape[1]), np.int32)
        self._tokens[pairs.photos, np.arange(len(padded)) - pairs.starts[pairs.photos]] = padded

    def __len__(self) -> int:
        return len(self._paths)

    def captions(self, photo: int) -> list[list[int]]:
        """A photo's captions as ids, without [START], up to [END]."""
        return [row[1 : np.count_nonzero(row)].tolist() for row in self._tokens[photo] if row[0]]

    def take(self, photos: np.ndarray) -> Group:
        tokens = self._tokens[photos]
        return Group(photos, tokens[..., : np.count_nonzero(tokens, axis=-1).max()])

    def batches(self, size: int, seed: tuple[int, ...] | None = None) -> Iterator[Group]:
        """All photos once, shuffled if there is a seed, the last batch smaller if they do not divide."""
        order = np.arange(len(self)) if seed is None else np.random.default_rng(seed).permutation(len(self))
        for start in range(0, len(order), size):
            yield self.take(order[start : start + size])

    def features(self, views: int) -> list[FeatureCache]:
        """So many views of the photos, as they are and then cropped and flipped, by the encoder as it is now."""
        encoder, resize = self._captioner.feature_extractor, self._captioner.config.resize
        return [FeatureCache(self._work, encoder, resize, self._paths, view) for view in range(views)]

    def pixels(self) -> np.ndarray:
        """The photos themselves: uint8 (count, height, width, 3)."""
        size, resize = self._captioner.config.image_size, self._captioner.config.resize
        paths = track(self._paths, len(self), "reading photos")
        return np.stack([load_image(path, size, resize) for path in paths])
