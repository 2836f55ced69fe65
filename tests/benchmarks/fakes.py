"""Peers that need no engine: one that speaks, and ones that fail at each of the places where a peer can."""

import numpy as np

from benchmarks.peer.base import Peer, SplitPeer, Task, greedy


class Counter(SplitPeer):
    """Says `words` words, whose ids count up from the photo's first pixel on."""

    def __init__(self, words, off=0):
        self._words, self._off = words, off

    def load(self, folder, threads):
        self._task = Task.read(folder)
        self.note = f"{threads} threads"

    def encode(self, pixels):
        return int(pixels[0, 0, 0]) + self._off

    def decode(self, features):
        def step(said):
            return features + len(said) - 1 if len(said) <= self._words else self._task.end

        return greedy(step, self._task)


class FailsToLoad(Peer):
    """Has no engine."""

    def load(self, folder, threads):
        raise RuntimeError("there is no engine\nof this name")

    def caption(self, pixels):
        raise NotImplementedError


class FailsLater(Counter):
    """Fails at the photo whose first pixel is 0, once it has been warmed up."""

    def __init__(self):
        super().__init__(words=1)
        self._calls = 0

    def caption(self, pixels):
        self._calls += 1
        if self._calls > 2 * 3 and not np.any(pixels[0, 0]):
            raise ValueError("this photo is black")
        return super().caption(pixels)
