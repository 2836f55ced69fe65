"""LiteRT, with graphs that are not capexport's; it resizes its tensors as the prefix grows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from capexport.quiet import silenced_stderr

from .base import Peer, Pixels, SplitPeer, Task, greedy


def opened(path: Path, threads: int) -> Any:
    """The graph's signature, ready to be called with its inputs by name."""
    with silenced_stderr():
        interpreter = Interpreter(model_path=str(path), num_threads=threads)
        return interpreter.get_signature_runner()


class Whole(Peer):
    """One graph, image and prefix to logits: the photo is encoded at every step."""

    def load(self, folder: Path, threads: int) -> None:
        self._task = Task.read(folder)
        self._run = opened(folder / "whole.tflite", threads)

    def caption(self, pixels: Pixels) -> list[int]:
        image = pixels[np.newaxis].astype(np.float32)

        def step(said: list[int]) -> int:
            logits = self._run(image=image, tokens=np.array([said], np.int64))["logits"]
            return int(logits[0, -1].argmax())

        return greedy(step, self._task)


class Split(SplitPeer):
    """An encoder, and a decoder that takes the whole prefix at every step."""

    def load(self, folder: Path, threads: int) -> None:
        self._task = Task.read(folder)
        self._encoder = opened(folder / "encoder.tflite", threads)
        self._decoder = opened(folder / "decoder.tflite", threads)

    def encode(self, pixels: Pixels) -> NDArray[np.float32]:
        return self._encoder(image=pixels[np.newaxis].astype(np.float32))["features"]

    def decode(self, features: NDArray[np.float32]) -> list[int]:
        def step(said: list[int]) -> int:
            logits = self._decoder(features=features, tokens=np.array([said], np.int64))["logits"]
            return int(logits[0, -1].argmax())

        return greedy(step, self._task)
