"""Peers that put the whole prefix through a graph at every step, whatever engine runs it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Peer, Pixels, SplitPeer, Task, greedy

Run = Callable[[Mapping[str, NDArray[Any]]], NDArray[np.float32]]  # a graph's inputs by name -> its one output


class Opens:
    """What an engine adds: how it opens a graph."""

    suffix: str

    @staticmethod
    @abstractmethod
    def open(path: Path, threads: int) -> Run:
        """A graph with one output, on so many threads."""


class Whole(Opens, Peer):
    """One graph, image and prefix to logits: the photo is encoded at every step."""

    def load(self, folder: Path, threads: int) -> None:
        self._task = Task.read(folder)
        self._run = self.open(folder / f"whole{self.suffix}", threads)

    def caption(self, pixels: Pixels) -> list[int]:
        return _said(self._run, {"image": pixels[np.newaxis].astype(np.float32)}, self._task)


class Split(Opens, SplitPeer):
    """An encoder, and a decoder that takes the whole prefix at every step."""

    def load(self, folder: Path, threads: int) -> None:
        self._task = Task.read(folder)
        self._encoder, self._decoder = (
            self.open(folder / f"{part}{self.suffix}", threads) for part in ("encoder", "decoder")
        )

    def encode(self, pixels: Pixels) -> NDArray[np.float32]:
        return self._encoder({"image": pixels[np.newaxis].astype(np.float32)})

    def decode(self, features: NDArray[np.float32]) -> list[int]:
        return _said(self._decoder, {"features": features}, self._task)


def _said(run: Run, given: Mapping[str, NDArray[Any]], task: Task) -> list[int]:
    def step(said: list[int]) -> int:
        logits = run({**given, "tokens": np.array([said], np.int64)})  # (1, T, V)
        return int(logits[0, -1].argmax())

    return greedy(step, task)
