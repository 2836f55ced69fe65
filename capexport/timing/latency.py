"""Latencies of captioners in this process: what encoding a photo takes, and what a word takes, at batch 1."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..image import Photo
from ..progress import track
from ..runtime.backend import Backend, Step, Tensors
from ..runtime.captioner import Captioner
from ..runtime.options import DEFAULT

ROUNDS, TURN = 20, 5  # turns of each captioner, and the photos that it captions in a turn
REST = 0.1  # seconds: onnxruntime's threads spin for 65 ms after their last run, and take the next engine's time


@dataclass(frozen=True)
class Latency:
    """Milliseconds of many runs: the median and the 90th percentile."""

    median: float
    p90: float


@dataclass(frozen=True)
class Latencies:
    """Of one captioner: the encoder's run on a photo, and the decoder's step for a token."""

    encode: Latency
    token: Latency


class Stopwatch:
    """A Backend that notes the seconds of each of its calls."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.encodes: list[float] = []
        self.steps: list[float] = []

    def encode(self, images: NDArray[np.uint8]) -> Tensors:
        started = time.perf_counter()
        features = self._backend.encode(images)
        self.encodes.append(time.perf_counter() - started)
        return features

    def empty_cache(self, batch: int) -> Tensors:
        return self._backend.empty_cache(batch)

    def step(self, tokens: NDArray[np.int32], position: int, features: Tensors, cache: Tensors) -> Step:
        started = time.perf_counter()
        step = self._backend.step(tokens, position, features, cache)
        self.steps.append(time.perf_counter() - started)
        return step


def latencies(captioners: Sequence[Captioner], photos: Sequence[Photo], rounds: int = ROUNDS) -> list[Latencies]:
    """Time the engines while the captioners caption photos greedily, one by one; reading photos is not timed.

    The captioners take turns, so that whatever else the machine does falls on all of them. A turn begins with a rest
    and a caption that is not timed, for the captioner before has left its own weights in the processor's caches.

    Raises ImageError for a photo that cannot be read.
    """
    watches = [Stopwatch(captioner.backend) for captioner in captioners]
    for k in track(range(rounds), rounds, "latency"):
        chosen = [photos[i % len(photos)] for i in range(k * TURN, (k + 1) * TURN)]
        for captioner, watch in zip(captioners, watches, strict=True):
            pixels = [captioner.preprocess(photo)[np.newaxis] for photo in chosen]
            time.sleep(REST)
            captioner.caption_pixels(pixels[0], DEFAULT)
            timed = Captioner(captioner.bundle, watch)
            for one in pixels:
                timed.caption_pixels(one, DEFAULT)
    return [Latencies(_latency(watch.encodes), _latency(watch.steps)) for watch in watches]


def _latency(seconds: Sequence[float]) -> Latency:
    median, p90 = 1000 * np.percentile(seconds, [50, 90])
    return Latency(float(median), float(p90))
