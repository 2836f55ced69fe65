"""TFLite graphs under LiteRT (ai_edge_litert)."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from ..bundle import Bundle
from ..errors import BundleError
from ..quiet import silenced_stderr
from .backend import Runner, Tensors


def open_graph(bundle: Bundle, name: str, threads: int | None) -> Runner:
    """A runner of the graph "encoder" or "decoder"; raises BundleError if the engine refuses it."""
    try:
        with silenced_stderr():
            interpreter = Interpreter(model_content=bundle.graph(name), num_threads=threads)
            interpreter.allocate_tensors()
        runner = interpreter.get_signature_runner()
    except (ValueError, RuntimeError) as error:
        raise BundleError(f"LiteRT cannot load the {name} of {bundle.directory}: {error}.") from error
    lock = threading.Lock()  # an interpreter has one set of buffers

    def run(inputs: Mapping[str, NDArray[Any]]) -> Tensors:
        with lock:
            outputs: dict[str, NDArray[Any]] = runner(**inputs)
            return {key: np.array(value) for key, value in outputs.items()}

    return run
