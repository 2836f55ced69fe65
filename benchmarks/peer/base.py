"""What a peer is: one way to caption photos with the weights that all of them share."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capexport.errors import CapexportError, MissingExtraError

EXTRA = "peers"
Pixels = NDArray[np.uint8]  # (height, width, 3)


@dataclass(frozen=True)
class Task:
    """What peers are told of the captioner: where it and its bundles are, its special tokens and lengths.

    source   its directory; None: the one that ships
    bundles  the directory of its bundles, which are named onnx-fp32 etc.
    """

    source: str | None
    bundles: str
    start: int
    end: int
    max_length: int  # tokens of a caption, [END] included

    @classmethod
    def read(cls, folder: Path) -> Task:
        return cls(**json.loads((folder / "task.json").read_text(encoding="utf-8")))


class Peer(ABC):
    """Captions one photo at a time, greedily.

    encode_seconds  of the latest caption, until the photo was encoded; None where that is not a step of its own
    note            what is to be said of how it runs here, once it is loaded
    """

    encode_seconds: float | None = None
    note: str = ""

    @abstractmethod
    def load(self, folder: Path, threads: int) -> None:
        """Get ready, from the files of a folder (see files.py), with so many threads of the engine."""

    @abstractmethod
    def caption(self, pixels: Pixels) -> list[int]:
        """The words' ids, without [START] and [END]."""


class SplitPeer(Peer):
    """A peer that encodes the photo once, and then says word after word."""

    def caption(self, pixels: Pixels) -> list[int]:
        started = time.perf_counter()
        features = self.encode(pixels)
        self.encode_seconds = time.perf_counter() - started
        return self.decode(features)

    @abstractmethod
    def encode(self, pixels: Pixels) -> Any:
        """What the photo's words depend on, computed to the end."""

    @abstractmethod
    def decode(self, features: Any) -> list[int]:
        """The words' ids, without [START] and [END]."""


def greedy(step: Callable[[list[int]], int], task: Task) -> list[int]:
    """The loop of simple_gen: `step` gives the likeliest token after those so far, [START] among them."""
    said = [task.start]
    while len(said) < task.max_length:
        token = step(said)
        if token == task.end:
            break
        said.append(token)
    return said[1:]


def reason(error: Exception) -> str:
    """One line on why something failed: capexport's own errors as they are, others' first line after their kind."""
    if isinstance(error, CapexportError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        return str(MissingExtraError(error.name or str(error), EXTRA))
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
