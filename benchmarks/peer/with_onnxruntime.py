"""onnxruntime, with graphs that are not capexport's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capexport.onnxruntime_setup import onnxruntime

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


class WithCache(SplitPeer):
    """An encoder, and a step with a cache for self-attention that takes all that the encoder gives (cross.py)."""

    def __init__(self, encoder: str, decoder: str) -> None:
        self._files = encoder, decoder

    def load(self, folder: Path, threads: int) -> None:
        self._task = Task.read(folder)
        self._encoder, self._decoder = (opened(folder / name, threads) for name in self._files)
        self._memory = [one.name for one in self._encoder.get_outputs()]
        shapes = {one.name: one.shape for one in self._decoder.get_inputs() if one.name.startswith("self_")}
        self._empty = {name: np.zeros([1, heads, 0, size], np.float32) for name, (_, heads, _, size) in shapes.items()}
        self._outputs = ["logits", *(name.replace("self_", "next_") for name in shapes)]

    def encode(self, pixels: Pixels) -> dict[str, NDArray[Any]]:
        given = self._encoder.run(self._memory, {"image": pixels[np.newaxis]})
        return dict(zip(self._memory, given, strict=True))

    def decode(self, features: dict[str, NDArray[Any]]) -> list[int]:
        cache: dict[str, NDArray[Any]] = self._empty

        def step(said: list[int]) -> int:
            nonlocal cache
            now = {"tokens": np.array(said[-1:], np.int32), "position": np.array(len(said) - 1, np.int32)}
            logits, *grown = self._decoder.run(self._outputs, {**now, **features, **cache})
            cache = dict(zip(cache, grown, strict=True))
            return int(logits[0].argmax())

        return greedy(step, self._task)
