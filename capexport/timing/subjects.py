"""What is timed: a bundle in its engine, the Keras captioner as it was, and that as a graph."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..image import Photo, Pixels, load_image
from ..runtime.captioner import Captioner, load
from ..runtime.options import DEFAULT
from .latency import Stopwatch

EAGER, FUNCTION = "keras eager", "keras tf.function"
SAMPLE = 32  # photos that are captioned for a throughput, in batches of any size the same


@dataclass(frozen=True)
class Timing:
    """One photo's caption: its tokens, [END] included, and the seconds that it took.

    preprocess  from the file to pixels
    encode      the encoder's; None where one graph makes whole captions
    first       the first token's, after the encoder; None likewise
    later       each later token's; none likewise
    caption     all together, with what is between them
    """

    tokens: tuple[int, ...]
    preprocess: float
    encode: float | None
    first: float | None
    later: tuple[float, ...]
    caption: float

    @property
    def from_pixels(self) -> float:
        """What simple_gen's caption takes, which is given pixels."""
        return self.caption - self.preprocess


class Subject(Protocol):
    """Something that captions photos greedily."""

    def caption(self, photo: Photo) -> Timing:
        """Caption a photo and take the times."""

    def throughput(self, photos: Sequence[Photo], batch: int) -> float | None:
        """Captions a second in batches of so many, of SAMPLE photos; None where it knows no batches.

        Preprocessing is left out.
        """


class BundleSubject:
    """A bundle, through the runtime's own loop, or through its graph for whole captions if it has one."""

    def __init__(self, bundle: Path, threads: int | None, device: str) -> None:
        self._captioner = load(bundle, threads, device)

    def caption(self, photo: Photo) -> Timing:
        started = time.perf_counter()
        pixels = self._captioner.preprocess(photo)
        read = time.perf_counter()
        watch = Stopwatch(self._captioner.backend)
        timed = Captioner(self._captioner.bundle, watch, self._captioner.greedy)
        [caption] = timed.caption_pixels(pixels[np.newaxis], DEFAULT)
        ended = time.perf_counter()
        encode, first, *later = (*watch.encodes, *watch.steps) or (None, None)
        return Timing(tuple(caption.tokens), read - started, encode, first, tuple(later), ended - started)

    def throughput(self, photos: Sequence[Photo], batch: int) -> float:
        pixels = np.stack([self._captioner.preprocess(photos[k % len(photos)]) for k in range(SAMPLE)])
        self._captioner.caption_pixels(pixels[:batch], DEFAULT)
        started = time.perf_counter()
        for first in range(0, SAMPLE, batch):
            self._captioner.caption_pixels(pixels[first : first + batch], DEFAULT)
        return SAMPLE / (time.perf_counter() - started)


class KerasSubject:
    """The tutorial's loop, the whole prefix through the decoder at every step."""

    def __init__(self, source: Path | None, threads: int | None, graph: bool) -> None:
        import tensorflow as tf

        if threads is not None:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
        from ..captioner.storage import load_captioner

        self._captioner = load_captioner(source)
        self._end = self._captioner.tokenizer.get_vocabulary().index("[END]")
        self._start = self._captioner.tokenizer.get_vocabulary().index("[START]")
        self._encode: Callable[[Any], Any] = lambda image: self._captioner.feature_extractor(image, training=False)
        self._step: Callable[[Any, Any], Any] = lambda features, tokens: tf.argmax(
            self._captioner((features, tokens), training=False)[:, -1], axis=-1
        )
        if graph:
            self._encode = tf.function(self._encode)
            self._step = tf.function(self._step, reduce_retracing=True)

    @property
    def device(self) -> str:
        """Where TensorFlow computes: GPU where it sees one, else CPU."""
        import tensorflow as tf

        return "GPU" if tf.config.list_physical_devices("GPU") else "CPU"

    def caption(self, photo: Photo) -> Timing:
        import tensorflow as tf

        config = self._captioner.config
        started = time.perf_counter()
        pixels: Pixels = load_image(photo, config.image_size, config.resize)
        read = time.perf_counter()
        features = self._encode(tf.cast(pixels, tf.float32)[tf.newaxis])
        features.numpy()  # a GPU is not done yet
        encoded = time.perf_counter()
        said, marks = [self._start], [encoded]
        while len(said) < config.max_length and said[-1] != self._end:
            said.append(int(self._step(features, tf.constant([said], tf.int64))[0]))
            marks.append(time.perf_counter())
        if said[-1] != self._end:
            said.append(self._end)
        first, *later = np.diff(marks).tolist()
        ended = time.perf_counter()
        return Timing(tuple(said[1:]), read - started, encoded - read, first, tuple(later), ended - started)

    def throughput(self, photos: Sequence[Photo], batch: int) -> None:
        """simple_gen captions one photo."""
