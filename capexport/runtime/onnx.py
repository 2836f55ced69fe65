"""ONNX graphs under onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnxruntime
from numpy.typing import NDArray

from ..errors import BundleError
from .backend import Runner, Tensors


def open_graph(model: bytes, outputs: Sequence[str], threads: int | None, what: str) -> Runner:
    """A runner that gives the named outputs of a graph; raises BundleError, which says what, if the engine refuses."""
    options = onnxruntime.SessionOptions()
    # Without it, int8 products saturate at 16 bits on x64 processors that have no dot-product instructions.
    options.add_session_config_entry("session.x64quantprecision", "1")
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the engine's exceptions have no common base of their own
        raise BundleError(f"onnxruntime cannot load {what}: {error}.") from error

    def run(inputs: Mapping[str, NDArray[Any]]) -> Tensors:
        return dict(zip(outputs, session.run(list(outputs), dict(inputs)), strict=True))

    return run
