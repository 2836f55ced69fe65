"""The engine of a bundle's format, imported only when a bundle asks for it."""

from __future__ import annotations

import functools
import importlib
import sys
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ..bundle import Bundle
from ..errors import MissingExtraError, OptionError
from ..manifest import CAPTIONER, SIGNATURES
from ..quiet import uninterrupted
from ..recipes import FORMATS
from .backend import Backend, GraphBackend, Model, Runner, Tensors, check_declared
from .crowd import Crowd
from .greedy import GreedyGraph

Models = dict[tuple[str, int | None], Model]  # by file and threads


@dataclass(frozen=True)
class Engines:
    """A bundle's graphs, ready to run.

    backend  its encoder and decoder
    greedy   its graph for whole captions, None if it has none
    crowd    the encoder and decoder for several threads at once; None where that is of no use
    """

    backend: Backend
    greedy: GreedyGraph | None
    crowd: Crowd | None


def open_bundle(bundle: Bundle, threads: int | None = None, device: str = "cpu") -> Engines:
    """Load a bundle into its format's engine.

    The decoder has one thread: a step is so short that it takes longer where two must wait for each other. Where there
    is a graph for whole captions, the encoder and decoder are loaded when they are first used, which they may never be.

    threads  of the engine; None leaves the choice to it
    device   cpu or cuda; raises OptionError if the engine cannot use it here

    Raises MissingExtraError if the engine is not installed, BundleError for graphs that it refuses.
    """
    _check_device(bundle.manifest.format, device)
    graphs, engine = bundle.manifest.graphs, _engine(bundle.manifest.format)
    files = [graph.file for graph in graphs.values()]
    models: Models = {}

    def open_one(models: Models, name: str, threads: int | None) -> Runner:
        key, what = (graphs[name].file, threads), f"the {name} of {bundle.directory}"
        if key not in models:
            models[key] = _opened(engine, bundle.files[key[0]], threads, what, device)
        signature = SIGNATURES[name] if files.count(key[0]) > 1 else None
        runner = models[key].runner([tensor.name for tensor in graphs[name].outputs], signature)
        check_declared(graphs[name], models[key].declared(signature), what)
        return runner

    def open_late(models: Models, name: str, threads: int | None) -> Runner:
        return _opened_late(functools.partial(open_one, models, name, threads))

    def open_alone() -> Backend:
        own = models if engine.PARALLEL else {}
        return GraphBackend(graphs["decoder"], open_one(own, "encoder", 1), open_one(own, "decoder", 1), on_cpu)

    on_cpu = device == "cpu"
    one_file = graphs["encoder"].file == graphs["decoder"].file
    opened = open_late if CAPTIONER in graphs else open_one
    decode = opened(models, "decoder", threads if one_file else 1)
    backend = GraphBackend(graphs["decoder"], opened(models, "encoder", threads), decode, on_cpu)
    greedy = GreedyGraph(bundle, open_one(models, CAPTIONER, threads)) if CAPTIONER in graphs else None
    return Engines(backend, greedy, Crowd(open_alone, engine.PARALLEL, engine.DECODED) if on_cpu else None)


def open_graph(
    to: str, model: bytes, outputs: Sequence[str], threads: int | None, what: str, device: str = "cpu"
) -> Runner:
    """Load the bytes of one graph into the engine of a format, see recipes.FORMATS.

    what  the graph's description in the BundleError that is raised if the engine refuses it
    """
    _check_device(to, device)
    return _opened(_engine(to), model, threads, what, device).runner(outputs)


def is_parallel(to: str) -> bool:
    """Whether a graph of a format may run in several threads at once."""
    parallel: bool = _engine(to).PARALLEL
    return parallel


def _opened(engine: Any, model: bytes, threads: int | None, what: str, device: str) -> Model:
    """Engines of processors alone know no devices."""
    devices = () if device == "cpu" else (device,)
    opened: Model = engine.Model(model, threads, what, *devices)
    return opened


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


def formats_on(device: str, formats: Collection[str]) -> list[str]:
    """Those of the formats whose engines can use the device here.

    Raises OptionError, which says why the first of FORMATS cannot, if none can; MissingExtraError if an engine is not
    installed.
    """
    usable, refused = [], []
    for to in FORMATS:
        if to in formats:
            try:
                _check_device(to, device)
                usable.append(to)
            except OptionError as error:
                refused.append(error)
    if refused and not usable:
        raise refused[0]
    return usable


def _check_device(to: str, device: str) -> None:
    """Raise OptionError unless a format's graphs can run on the device, and its engine finds it here.

    Raises MissingExtraError if the engine is not installed.
    """
    if device not in FORMATS[to].devices:
        others = [name for name, one in FORMATS.items() if device in one.devices]
        hint = f"; those of {' and '.join(others)} can" if others else ""
        raise OptionError(f"Bundles of {to} run on {' or '.join(FORMATS[to].devices)}, not on {device}{hint}.")
    engine = _engine(to)
    if device != "cpu":
        engine.check_device(device)


def _engine(to: str) -> Any:
    name = f"{__package__}.{FORMATS[to].engine}"
    if name in sys.modules:
        return sys.modules[name]
    try:
        with uninterrupted():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or to, FORMATS[to].extra) from error
