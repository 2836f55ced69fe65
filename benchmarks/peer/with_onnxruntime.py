"""onnxruntime, with graphs that are not capexport's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from . import without_cache
from .base import Pixels, SplitPeer, Task, greedy


def opened(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """A session with so many threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class _Opens:
    suffix = ".onnx"

    @staticmethod
    def open(path: Path, threads: int) -> without_cache.Run:
        session = opened(path, threads)
        return lambda inputs: session.run(None, dict(inputs))[0]


class Whole(_Opens, without_cache.Whole):
    """The captioner as one graph."""


class Split(_Opens, without_cache.Split):
    """The encoder and the decoder."""


class CrossAnew(SplitPeer):
    """A step with a cache for self-attention, which projects the photo's features anew (cross_anew.py)."""

    def load(self, folder: Path, threads: int) -> None:
        self._task = Task.read(folder)
        self._encoder = opened(folder / "features.onnx", threads)
        self._decoder = opened(folder / "anew.onnx", threads)
        shapes = {one.name: one.shape for one in self._decoder.get_inputs() if one.name.startswith("self_")}
        self._empty = {name: np.zeros([1, heads, 0, size], np.float32) for name, (_, heads, _, size) in shapes.items()}
        self._outputs = ["logits", *(name.replace("self_", "next_") for name in shapes)]

    def encode(self, pixels: Pixels) -> NDArray[np.float32]:
        return self._encoder.run(["features"], {"image": pixels[np.newaxis]})[0]

    def decode(self, features: NDArray[np.float32]) -> list[int]:
        cache: dict[str, NDArray[Any]] = self._empty

        def step(said: list[int]) -> int:
            nonlocal cache
            now = {"tokens": np.array(said[-1:], np.int32), "position": np.array(len(said) - 1, np.int32)}
            logits, *grown = self._decoder.run(self._outputs, {**now, "features": features, **cache})
            cache = dict(zip(cache, grown, strict=True))
            return int(logits[0].argmax())

        return greedy(step, self._task)
