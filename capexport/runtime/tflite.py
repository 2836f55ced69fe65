"""TFLite graphs under LiteRT (ai_edge_litert)."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from ..errors import BundleError, OptionError
from ..quiet import silenced_stderr
from .backend import Runner, Tensors


def check_device(device: str) -> None:
    """Raise OptionError for any other than cpu."""
    if device != "cpu":
        raise OptionError(f"LiteRT runs on the cpu here, not on {device}; ONNX bundles can run on cuda.")


def open_graph(model: bytes, outputs: Sequence[str], threads: int | None, what: str, device: str = "cpu") -> Runner:
    """A runner that gives the named outputs of a graph; raises BundleError, which says what, if the engine refuses.

    device  cpu; raises OptionError for any other
    """
    check_device(device)
    try:
        with silenced_stderr():
            interpreter = Interpreter(model_content=model, num_threads=threads)
            interpreter.allocate_tensors()
        runner = interpreter.get_signature_runner()
    except (ValueError, RuntimeError) as error:
        raise BundleError(f"LiteRT cannot load {what}: {error}.") from error
    lock = threading.Lock()  # an interpreter has one set of buffers

    def run(inputs: Mapping[str, NDArray[Any]]) -> Tensors:
        with lock:
            given: dict[str, NDArray[Any]] = runner(**inputs)
            return {name: np.array(given[name]) for name in outputs}

    return run
