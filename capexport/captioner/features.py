"""The frozen encoder's features of a data set's photos, computed once and kept on disk in shards."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras

from ..atomic import clear_partials, new_file
from ..image import load_image
from ..progress import track
from .weights import encoder_variables, fingerprint

SHARD = 250  # photos a file


class FeatureCache:
    """Features of photos by index: float16 on disk, float32 in use.

    A directory is named by what its features depend on (encoder, weights, size, resizer, photos), so that
    nothing stale is ever read; its shards appear whole or not at all, so that an interrupted run goes on.
    """

    def __init__(self, root: Path, encoder: tf_keras.Model, resize: str, photos: Sequence[Path]) -> None:
        self._encoder = encoder
        self._resize = resize
        self._photos = list(photos)
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
                np.save(file, self._encode(self._photos[number * SHARD : (number + 1) * SHARD]))
        return np.load(path, mmap_mode="r", allow_pickle=False)

    def _encode(self, photos: Sequence[Path]) -> np.ndarray:
        size = tuple(self._encoder.input_shape[1:3])
        batches = []
        for start in range(0, len(photos), 50):
            pixels = np.stack([load_image(path, size, self._resize) for path in photos[start : start + 50]])
            batches.append(self._encoder(tf.cast(pixels, tf.float32), training=False).numpy().astype(np.float16))
        return np.concatenate(batches)

    def _key(self) -> str:
        identity = [list(self._encoder.input_shape[1:3]), self._resize, [path.name for path in self._photos]]
        return fingerprint(encoder_variables(self._encoder), json.dumps(identity).encode())[:16]
