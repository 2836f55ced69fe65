"""capexport's runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import capexport
from capexport.runtime.backend import Backend
from capexport.runtime.captioner import Captioner
from capexport.runtime.greedy import GreedyGraph
from capexport.runtime.options import DEFAULT
from capexport.timing.latency import Stopwatch

from .base import Peer, Pixels, Task


class Capexport(Peer):
    """A bundle through capexport.load(...).caption_pixels."""

    def __init__(self, bundle: str) -> None:
        self._name = bundle

    def load(self, folder: Path, threads: int) -> None:
        captioner = capexport.load(Path(Task.read(folder).bundles) / self._name, threads)
        self.use(captioner.bundle, captioner.backend, captioner.greedy)

    def use(self, bundle: capexport.Bundle, backend: Backend, greedy: GreedyGraph | None = None) -> None:
        """Caption with a backend that has the bundle's graphs, or with its graph for whole captions."""
        self._watch = Stopwatch(backend)
        self._captioner = Captioner(bundle, self._watch, greedy)
        self._end = bundle.vocabulary.end

    def caption(self, pixels: Pixels) -> list[int]:
        [caption] = self._captioner.caption_pixels(pixels[np.newaxis], DEFAULT)
        self.encode_seconds = self._watch.encodes[-1] if self._watch.encodes else None
        return [token for token in caption.tokens if token != self._end]
