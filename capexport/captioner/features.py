"""The frozen encoder's features of a data set's photos, computed once and kept on disk in shards."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from ..atomic import clear_partials, new_file
from ..image import load_image
from ..progress import track
from .augmentation import augment
from .weights import encoder_variables, fingerprint

SHARD = 250  # photos a file
SMALLEST_CROP = 0.8  # of a view: share of the photo's side


class FeatureCache:
    """Features of photos by index: float16 on disk, float32 in use.

    view  0: the photos as they are; any other number: crops and flips, other ones for each number

    A directory is named by what its features depend on (encoder, weights, size, resizer, photos, view), so that
    nothing stale is ever read; its shards appear whole or not at all, so that an interrupted run goes on.
    """

    def __init__(self, root: Path, encoder: tf_keras.Model, resize: str, photos: Sequence[Path], view: int = 0) -> None:
        self._encoder = encoder
        self._resize = resize
        self._photos = list(photos)
        self._view = view
        self.directory = root / self._key()
        clear_partials(self.directory)
        self._shards = [self._open(number) for number in self._track(range(self._shard_count()))]

    def __len__(self) -> int:
        return len(self._photos)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one photo's features: (h, w, C)."""
        return self._shards[0].shape[1:]

    def take(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """The features of these photos: float32 (count, h, w, C)."""
        return np.stack([self._shards[i // SHARD][i % SHARD] for i in indices]).astype(np.float32)

    def _shard_count(self) -> int:
        return -(-len(self._photos) // SHARD)

    def _track(self, numbers: range) -> Iterable[int]:
        missing = [number for number in numbers if not self._path(number).exists()]
        return track(numbers, len(numbers), "encoding photos") if missing else numbers

    def _path(self, number: int) -> Path:
        return self.directory / f"features-{number:05d}.npy"

    def _open(self, number: int) -> np.ndarray:
        path = self._path(number)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with new_file(path) as partial, partial.open("wb") as file:
                np.save(file, self._encode(number * SHARD))
        return np.load(path, mmap_mode="r", allow_pickle=False)

    def _encode(self, first: int) -> np.ndarray:
        size = tuple(self._encoder.input_shape[1:3])
        photos = self._photos[first : first + SHARD]
        batches = []
        for start in range(0, len(photos), 50):
            pixels = np.stack([load_image(path, size, self._resize) for path in photos[start : start + 50]])
            images = tf.cast(pixels, tf.float32)
            if self._view:
                images = augment(images, (self._view, first + start), SMALLEST_CROP)
            batches.append(self._encoder(images, training=False).numpy().astype(np.float16))
        return np.concatenate(batches)

    def _key(self) -> str:
        identity: list[Any] = [list(self._encoder.input_shape[1:3]), self._resize, [path.name for path in self._photos]]
        identity += [self._view] if self._view else []
        return fingerprint(encoder_variables(self._encoder), json.dumps(identity).encode())[:16]
