"""The engine of a bundle's format, imported only when a bundle asks for it."""

from __future__ import annotations

from ..bundle import Bundle
from ..errors import MissingExtraError
from .backend import Backend, GraphBackend


def open_backend(bundle: Bundle, threads: int | None = None) -> Backend:
    """Load a bundle's graphs into its format's engine; raises MissingExtraError if that is not installed.

    threads  of the engine; None leaves the choice to it
    """
    try:
        if bundle.manifest.format == "onnx":
            from .onnx import open_graph
        else:
            from .tflite import open_graph
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or bundle.manifest.format, bundle.manifest.format) from error
    encode, decode = (open_graph(bundle, name, threads) for name in ("encoder", "decoder"))
    return GraphBackend(bundle.manifest.graphs["decoder"], encode, decode)
