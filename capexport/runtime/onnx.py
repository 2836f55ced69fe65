"""ONNX graphs under onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnxruntime
from numpy.typing import NDArray

from ..bundle import Bundle
from ..errors import BundleError
from .backend import Runner, Tensors


def open_graph(bundle: Bundle, name: str, threads: int | None) -> Runner:
    """A runner of the graph "encoder" or "decoder"; raises BundleError if the engine refuses it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(bundle.graph(name), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the engine's exceptions have no common base of their own
        raise BundleError(f"onnxruntime cannot load the {name} of {bundle.directory}: {error}.") from error
    outputs = [tensor.name for tensor in bundle.manifest.graphs[name].outputs]

    def run(inputs: Mapping[str, NDArray[Any]]) -> Tensors:
        return dict(zip(outputs, session.run(outputs, dict(inputs)), strict=True))

    return run
