"""TFLite graphs under LiteRT (ai_edge_litert)."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from ..errors import BundleError, OptionError
from ..quiet import silenced_stderr
from .backend import Runner, Tensors

PARALLEL = False  # an interpreter has one set of buffers: runs of its graphs wait for each other


def check_device(device: str) -> None:
    """Raise OptionError for any other than cpu."""
    if device != "cpu":
        raise OptionError(f"LiteRT runs on the cpu here, not on {device}; ONNX bundles can run on cuda.")


class Model:
    """A file of graphs with signatures, whose runners share an interpreter and its memory: see backend.Model."""

    def __init__(self, model: bytes, threads: int | None, what: str, device: str = "cpu") -> None:
        check_device(device)
        self._what = what
        self._lock = threading.Lock()
        with _refusals(what), silenced_stderr():
            self._interpreter = Interpreter(model_content=model, num_threads=threads)
            self._interpreter.allocate_tensors()

    def runner(self, outputs: Sequence[str], signature: str | None = None) -> Runner:
        """A runner of one graph."""
        with _refusals(self._what):
            call = self._interpreter.get_signature_runner(signature)

        def run(inputs: Mapping[str, NDArray[Any]]) -> Tensors:
            with self._lock:
                given: dict[str, NDArray[Any]] = call(**inputs)
                return {name: np.array(given[name]) for name in outputs}

        return run


@contextlib.contextmanager
def _refusals(what: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise BundleError(f"LiteRT cannot load {what}: {error}.") from error
