"""TFLite graphs under LiteRT (ai_edge_litert)."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from ..errors import BundleError
from ..plain import shortened
from ..quiet import silenced_stderr
from .backend import Declared, Runner, Tensors

PARALLEL = False  # an interpreter has one set of buffers: threads that run at once need one each
DECODED = 8  # photos together


class Model:
    """A file of graphs with signatures, whose runners share an interpreter and its memory: see backend.Model."""

    def __init__(self, model: bytes, threads: int | None, what: str) -> None:
        self._what = what
        self._lock = threading.Lock()
        with _refusals(what), silenced_stderr():
            self._interpreter = Interpreter(model_content=model, num_threads=threads)
            self._interpreter.allocate_tensors()

    def runner(self, outputs: Sequence[str], signature: str | None = None) -> Runner:
        """A runner of one graph."""
        with _refusals(self._what):
            call = self._interpreter.get_signature_runner(signature)
        if signature is None:
            sides = (call.get_input_details(), call.get_output_details())
            return self._only_graph({name: detail["index"] for side in sides for name, detail in side.items()}, outputs)

        def run(inputs: Mapping[str, NDArray[Any]]) -> Tensors:
            with self._lock, _refusals(self._what, "run"):
                given: dict[str, NDArray[Any]] = call(**inputs)
                return {name: np.array(given[name]) for name in outputs}

        return run

    def declared(self, signature: str | None = None) -> tuple[Declared, Declared]:
        """What goes into the graph of this signature and what comes out."""
        with _refusals(self._what):
            call = self._interpreter.get_signature_runner(signature)
            return _declared(call.get_input_details()), _declared(call.get_output_details())

    def _only_graph(self, places: Mapping[str, int], outputs: Sequence[str]) -> Runner:
        """A runner of the graph that a file has alone, with the places of its tensors in the interpreter.

        What a caption needs of its photo is the same at every step, and handed over once, for copying takes time. So
        does making room for other shapes: where rows have ended, there may be up to twice as many as are wanted.
        """
        interpreter, names = self._interpreter, list(outputs)
        given: dict[str, NDArray[Any]] = {}
        room: dict[str, tuple[int, ...]] = {}

        def run(inputs: Mapping[str, NDArray[Any]]) -> Tensors:
            with self._lock, _refusals(self._what, "run"):
                shapes = {name: values.shape for name, values in inputs.items() if values.shape}
                if not (room and all(map(_fits, shapes.values(), room.values()))):
                    room.clear()
                    for name, shape in shapes.items():  # LiteRT 2.3.0 dies of resizing a scalar on 64-bit Arm
                        interpreter.resize_tensor_input(places[name], shape)
                    interpreter.allocate_tensors()
                    given.clear()
                    room.update(shapes)
                for name, values in inputs.items():
                    if given.get(name) is not values or not name.startswith("cross_"):
                        if values.shape == room.get(name, ()):
                            interpreter.set_tensor(places[name], values)
                        else:
                            interpreter.tensor(places[name])()[: len(values)] = values
                        given[name] = values
                interpreter.invoke()
                made = {name: interpreter.get_tensor(places[name]) for name in names}
                if shapes == room:
                    return made
                rows = next(iter(shapes.values()))[0]
                return {name: made[name][:, :rows] if name == "attention" else made[name][:rows] for name in names}

        return run


def _fits(shape: tuple[int, ...], room: tuple[int, ...]) -> bool:
    return shape[1:] == room[1:] and shape[0] <= room[0] < 2 * shape[0]


def _declared(details: Mapping[str, Any]) -> Declared:
    """Of tensors that LiteRT describes; dimensions that vary are -1 in the signature of a shape."""
    return {
        name: (np.dtype(one["dtype"]).name, tuple(None if n < 0 else int(n) for n in one["shape_signature"]))
        for name, one in details.items()
    }


@contextlib.contextmanager
def _refusals(what: str, verb: str = "load") -> Iterator[None]:
    try:
        yield
    except (ValueError, RuntimeError, LookupError, TypeError) as error:
        raise BundleError(f"LiteRT cannot {verb} {what}: {shortened(error)}.") from error
