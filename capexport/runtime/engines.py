"""The engine of a bundle's format, imported only when a bundle asks for it."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from ..bundle import Bundle
from ..errors import MissingExtraError
from ..manifest import CAPTIONER
from ..recipes import FORMATS
from .backend import Backend, GraphBackend, Runner, Tensors
from .greedy import GreedyGraph


def open_backend(bundle: Bundle, threads: int | None = None, device: str = "cpu") -> Backend:
    """Load a bundle's encoder and decoder into its format's engine; raises MissingExtraError if that is not installed.

    Those of a bundle with a graph for whole captions are loaded when they are first used, which they may never be.

    threads  of the engine; None leaves the choice to it
    device   cpu or cuda; raises OptionError if the engine cannot use it here
    """

    def opened(name: str) -> Runner:
        if CAPTIONER in bundle.manifest.graphs:
            return _opened_late(lambda: _open(bundle, name, threads, device))
        return _open(bundle, name, threads, device)

    return GraphBackend(bundle.manifest.graphs["decoder"], opened("encoder"), opened("decoder"))


def open_greedy(bundle: Bundle, threads: int | None = None, device: str = "cpu") -> GreedyGraph | None:
    """Load a bundle's graph for whole captions, None if it has none; arguments and errors as of open_backend."""
    graph = bundle.manifest.graphs.get(CAPTIONER)
    return None if graph is None else GreedyGraph(bundle, _open(bundle, CAPTIONER, threads, device))


def open_graph(
    to: str, model: bytes, outputs: Sequence[str], threads: int | None, what: str, device: str = "cpu"
) -> Runner:
    """Load the bytes of one graph into the engine of a format, see recipes.FORMATS.

    what  the graph's description in the BundleError that is raised if the engine refuses it
    """
    runner: Runner = _engine(to).open_graph(model, outputs, threads, what, device)
    return runner


def _open(bundle: Bundle, name: str, threads: int | None, device: str) -> Runner:
    outputs = [tensor.name for tensor in bundle.manifest.graphs[name].outputs]
    what = f"the {name} of {bundle.directory}"
    return open_graph(bundle.manifest.format, bundle.graph(name), outputs, threads, what, device)


def _opened_late(open_it: Callable[[], Runner]) -> Runner:
    """A runner that is opened by its first run, once, whichever thread that is in."""
    lock = threading.Lock()
    opened: list[Runner] = []

    def run(inputs: Mapping[str, NDArray[Any]]) -> Tensors:
        with lock:
            if not opened:
                opened.append(open_it())
        return opened[0](inputs)

    return run


def check_device(to: str, device: str) -> None:
    """Raise OptionError if the engine of a format cannot use the device, MissingExtraError if it is not installed."""
    _engine(to).check_device(device)


def _engine(to: str) -> Any:
    try:
        return importlib.import_module(f".{FORMATS[to].engine}", __package__)
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or to, FORMATS[to].extra) from error
