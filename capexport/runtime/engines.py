"""The engine of a bundle's format, imported only when a bundle asks for it."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from ..bundle import Bundle
from ..errors import MissingExtraError
from ..recipes import FORMATS
from .backend import Backend, GraphBackend, Runner


def open_backend(bundle: Bundle, threads: int | None = None, device: str = "cpu") -> Backend:
    """Load a bundle's graphs into its format's engine; raises MissingExtraError if that is not installed.

    threads  of the engine; None leaves the choice to it
    device   cpu or cuda; raises OptionError if the engine cannot use it here
    """
    manifest = bundle.manifest
    encode, decode = (
        open_graph(
            manifest.format,
            bundle.graph(name),
            [tensor.name for tensor in manifest.graphs[name].outputs],
            threads,
            f"the {name} of {bundle.directory}",
            device,
        )
        for name in ("encoder", "decoder")
    )
    return GraphBackend(manifest.graphs["decoder"], encode, decode)


def open_graph(
    to: str, model: bytes, outputs: Sequence[str], threads: int | None, what: str, device: str = "cpu"
) -> Runner:
    """Load the bytes of one graph into the engine of a format, see recipes.FORMATS.

    what  the graph's description in the BundleError that is raised if the engine refuses it
    """
    runner: Runner = _engine(to).open_graph(model, outputs, threads, what, device)
    return runner


def check_device(to: str, device: str) -> None:
    """Raise OptionError if the engine of a format cannot use the device, MissingExtraError if it is not installed."""
    _engine(to).check_device(device)


def _engine(to: str) -> Any:
    try:
        return importlib.import_module(f".{FORMATS[to].engine}", __package__)
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or to, FORMATS[to].extra) from error
