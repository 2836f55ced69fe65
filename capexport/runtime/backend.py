"""What the decoding loop asks of an engine: encode photos, then one step after another.

B batch, L layers, H heads, D key dim, N image positions, V vocabulary, P past length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError
from ..manifest import Graph

Tensors = dict[str, NDArray[Any]]
Runner = Callable[[Mapping[str, NDArray[Any]]], Tensors]  # a graph: inputs by name -> outputs by name


@dataclass(frozen=True)
class Step:
    """One decoding step's outcome: what comes next, where the model looked, and the grown cache."""

    logits: NDArray[np.float32]  # (B, V)
    attention: NDArray[np.float32]  # (L, B, H, N)
    cache: Tensors


class Model(Protocol):
    """A file of one or several graphs in an engine.

    The module of each engine says whether its graphs are PARALLEL, and its class Model is called with

    model    the file's bytes
    threads  of the engine; None leaves the choice to it
    what     the file's description in the BundleError that is raised if the engine refuses it
    device   cpu or cuda; raises OptionError if the engine cannot use it here
    """

    def runner(self, outputs: Sequence[str], signature: str | None = None) -> Runner:
        """A runner that gives the named outputs of the graph of this signature; None: of the only graph there is.

        Raises BundleError if there is no such graph or output.
        """


class Backend(Protocol):
    """An engine with a captioner's graphs. Tensors it hands out are opaque to the loop, first axis B."""

    def encode(self, images: NDArray[np.uint8]) -> Tensors:
        """What each step needs of images (B, height, width, 3): cross_features, or cross keys and values."""

    def empty_cache(self, batch: int) -> Tensors:
        """The self keys and values before the first step."""

    def step(self, tokens: NDArray[np.int32], position: int, features: Tensors, cache: Tensors) -> Step:
        """Feed one token a row (B,) at the given position, counted from 0."""


class GraphBackend:
    """A Backend over two runners, which do nothing but execute a graph.

    encode and step raise BundleError for tensors that have other shapes than the decoder's description says.
    """

    def __init__(self, decoder: Graph, encode: Runner, decode: Runner) -> None:
        self._encode, self._decode = encode, decode
        shapes = {tensor.name: tensor.shape for tensor in decoder.outputs}
        self._vocabulary, (self._layers, _, *self._looked) = shapes["logits"][-1], shapes["attention"]
        self._cache_shapes = {tensor.name: tensor.shape for tensor in decoder.inputs if tensor.name.startswith("self_")}

    def encode(self, images: NDArray[np.uint8]) -> Tensors:
        features = self._encode({"image": images})
        if any(len(tensor) != len(images) for tensor in features.values()):
            raise BundleError("The encoder's graph gives features of another number of photos than it was given.")
        return features

    def empty_cache(self, batch: int) -> Tensors:
        fill = {"B": batch, "P": 0}
        return {
            name: np.zeros([fill[length] if isinstance(length, str) else length for length in shape], np.float32)
            for name, shape in self._cache_shapes.items()
        }

    def step(self, tokens: NDArray[np.int32], position: int, features: Tensors, cache: Tensors) -> Step:
        inputs = {"tokens": tokens, "position": np.array(position, np.int32), **features, **cache}
        outputs = self._decode(inputs)
        logits, attention, rows = outputs["logits"], outputs["attention"], len(tokens)
        if logits.shape != (rows, self._vocabulary) or attention.shape != (self._layers, rows, *self._looked):
            raise BundleError("The decoder's graph gives logits or attention of other shapes than its manifest says.")
        grown = {name: outputs[name.replace("self_", "next_")] for name in cache}
        return Step(logits, attention, grown)
