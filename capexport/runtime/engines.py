"""The engine of a bundle's format, imported only when a bundle asks for it."""

from __future__ import annotations

import functools
import importlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from ..bundle import Bundle
from ..errors import MissingExtraError
from ..manifest import CAPTIONER, SIGNATURES
from ..recipes import FORMATS
from .backend import Backend, GraphBackend, Model, Runner, Tensors
from .greedy import GreedyGraph


def open_bundle(bundle: Bundle, threads: int | None = None, device: str = "cpu") -> tuple[Backend, GreedyGraph | None]:
    """Load a bundle into its format's engine: its encoder and decoder, and its graph for whole captions, if it has one.

    Where it has one, the encoder and decoder are loaded when they are first used, which they may never be.

    threads  of the engine; None leaves the choice to it
    device   cpu or cuda; raises OptionError if the engine cannot use it here

    Raises MissingExtraError if the engine is not installed, BundleError for graphs that it refuses.
    """
    graphs, models = bundle.manifest.graphs, dict[str, Model]()
    files = [graph.file for graph in graphs.values()]

    def open_one(name: str) -> Runner:
        file = graphs[name].file
        if file not in models:
            what = f"the {name} of {bundle.directory}"
            models[file] = _engine(bundle.manifest.format).Model(bundle.files[file], threads, what, device)
        outputs = [tensor.name for tensor in graphs[name].outputs]
        return models[file].runner(outputs, SIGNATURES[name] if files.count(file) > 1 else None)

    if CAPTIONER not in graphs:
        return GraphBackend(graphs["decoder"], open_one("encoder"), open_one("decoder")), None
    greedy = GreedyGraph(bundle, open_one(CAPTIONER))
    encode, decode = (_opened_late(functools.partial(open_one, name)) for name in ("encoder", "decoder"))
    return GraphBackend(graphs["decoder"], encode, decode), greedy


def open_graph(
    to: str, model: bytes, outputs: Sequence[str], threads: int | None, what: str, device: str = "cpu"
) -> Runner:
    """Load the bytes of one graph into the engine of a format, see recipes.FORMATS.

    what  the graph's description in the BundleError that is raised if the engine refuses it
    """
    model_of: Model = _engine(to).Model(model, threads, what, device)
    return model_of.runner(outputs)


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
