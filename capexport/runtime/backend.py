"""What the decoding loop asks of an engine: encode photos, then one step after another.

B batch, L layers, H heads, D key dim, N image positions, U units, V vocabulary, P past length.
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
Declared = Mapping[str, tuple[str, tuple[int | None, ...]]]  # by name: dtype and dimensions, None for those that vary

FLOAT = np.dtype(np.float32)
PLACES = 16  # by which a cache grows that does not do so word by word: most captions fit into these, and copies cost


@dataclass(frozen=True)
class Step:
    """One decoding step's outcome, which no later step changes: what comes next, where the model looked, the cache."""

    logits: NDArray[np.float32]  # (B, V)
    attention: NDArray[np.float32]  # (L, B, H, N)
    cache: Tensors


class Model(Protocol):
    """A file of one or several graphs in an engine.

    The module of each engine says whether its graphs are PARALLEL, and of how many photos at most a processor's core
    best decodes words together, DECODED: of more, what lies between layers outgrows its caches; of fewer, weights are
    read for too little. Its class Model is called with

    model    the file's bytes
    threads  of the engine; None leaves the choice to it
    what     the file's description in the BundleError that is raised if the engine refuses it
    device   of a format that has others than the cpu, see recipes.FORMATS
    """

    def runner(self, outputs: Sequence[str], signature: str | None = None) -> Runner:
        """A runner that gives the named outputs of the graph of this signature; None: of the only graph there is.

        Raises BundleError if there is no such graph or output.
        """

    def declared(self, signature: str | None = None) -> tuple[Declared, Declared]:
        """What goes into the graph of this signature and what comes out, as the engine says; of scalars, or where the
        engine does not know, there are no dimensions.
        """


class Backend(Protocol):
    """An engine with a captioner's graphs. Tensors it hands out are opaque to the loop, first axis B."""

    def encode(self, images: NDArray[np.uint8]) -> Tensors:
        """What each step needs of images (B, height, width, 3): cross_features, or cross keys and values."""

    def empty_cache(self, batch: int) -> Tensors:
        """What steps keep of words, before the first: states (B, 1, P, U), or keys and values (B, H, P, D)."""

    def step(self, tokens: NDArray[np.int32], position: int, features: Tensors, cache: Tensors) -> Step:
        """Feed one token a row (B,) at the given position, counted from 0."""


class GraphBackend:
    """A Backend over two runners, which do nothing but execute a graph.

    The decoder's caches (B, H or 1, P, X) grow by each word, or have places for words, PLACES at first.

    encode and step raise BundleError for tensors that have other types or shapes than the decoder's description says:
    what an engine says of a graph before it runs leaves dimensions open.

    apart  photos are encoded one by one, which is best on a processor: what is between the layers of several outgrows
           its caches
    """

    def __init__(self, decoder: Graph, encode: Runner, decode: Runner, apart: bool = False) -> None:
        self._encode, self._decode, self._apart = encode, decode, apart
        outputs = {tensor.name: tensor.shape for tensor in decoder.outputs}
        self._vocabulary, (self._layers, _, *self._looked) = outputs["logits"][-1], outputs["attention"]
        self._memory_shapes = {one.name: one.shape for one in decoder.inputs if one.name.startswith("cross_")}
        self._cache_shapes = {one.name: one.shape for one in decoder.inputs if one.name.startswith("self_")}
        self._next_names = {name: name.replace("self_", "next_") for name in self._cache_shapes}
        self._next_shapes = {outputs[name] for name in self._next_names.values()}  # one, as a rule
        self._grows = any("P_next" in shape for shape in self._next_shapes)

    def encode(self, images: NDArray[np.uint8]) -> Tensors:
        size = 1 if self._apart else len(images)
        parts = [self._encode({"image": images[k : k + size]}) for k in range(0, len(images), size)]
        features = parts[0]
        if len(parts) > 1:
            features = {name: np.concatenate([part[name] for part in parts]) for name in features}
        expected = {name: _filled(shape, {"B": len(images)}) for name, shape in self._memory_shapes.items()}
        if {name: tensor.shape for name, tensor in features.items()} != expected:
            raise BundleError("The encoder's graph gives features of other shapes than the manifest says.")
        return features

    def empty_cache(self, batch: int) -> Tensors:
        lengths = {"B": batch, "P": 0 if self._grows else PLACES}
        return {name: np.zeros(_filled(shape, lengths), np.float32) for name, shape in self._cache_shapes.items()}

    def step(self, tokens: NDArray[np.int32], position: int, features: Tensors, cache: Tensors) -> Step:
        past = next(iter(cache.values())).shape[2]
        if position == past and not self._grows:
            cache = {name: np.pad(tensor, [(0, 0), (0, 0), (0, PLACES), (0, 0)]) for name, tensor in cache.items()}
            past += PLACES
        inputs = {"tokens": tokens, "position": np.array(position, np.int32), **features, **cache}
        outputs = self._decode(inputs)
        logits, attention, rows = outputs["logits"], outputs["attention"], len(tokens)
        if logits.shape != (rows, self._vocabulary) or attention.shape != (self._layers, rows, *self._looked):
            raise BundleError("The decoder's graph gives logits or attention of other shapes than its manifest says.")
        if logits.dtype != FLOAT or attention.dtype != FLOAT:
            raise BundleError("The decoder's graph gives logits or attention of another type than its manifest says.")
        grown = {name: outputs[following] for name, following in self._next_names.items()}
        lengths = {"B": rows, "P": past, "P_next": past + 1}
        if {tensor.shape for tensor in grown.values()} != {_filled(shape, lengths) for shape in self._next_shapes}:
            raise BundleError("The decoder's graph gives caches of other shapes than its manifest says.")
        return Step(logits, attention, grown)


def check_declared(graph: Graph, declared: tuple[Declared, Declared], what: str) -> None:
    """Raise BundleError unless an engine says of a graph what the manifest does, as far as the engine knows.

    what  the graph's description in the error
    """
    for stated, actual in zip((graph.inputs, graph.outputs), declared, strict=True):
        if actual.keys() != {tensor.name for tensor in stated}:
            raise BundleError(f"The graph of {what} has other inputs or outputs than its manifest says.")
        for tensor in stated:
            dtype, shape = actual[tensor.name]
            known = len(shape) in (0, len(tensor.shape)) and all(
                n in (None, m) or isinstance(m, str) for n, m in zip(shape, tensor.shape, strict=False)
            )
            if dtype != tensor.dtype or not known:
                raise BundleError(
                    f"The graph of {what} has {tensor.name!r} of another type or shape than its manifest says."
                )


def _filled(shape: tuple[int | str, ...], lengths: Mapping[str, int]) -> tuple[int, ...]:
    """A shape with lengths in the place of its symbols; -1 for those that have none here."""
    return tuple(lengths.get(length, -1) if isinstance(length, str) else length for length in shape)
