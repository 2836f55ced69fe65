"""One graph of one format, brought down in precision step by step, each step as far as its budget of error allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..errors import BundleError
from ..image import Pixels
from ..manifest import Graph
from ..parity.vectors import ParityVector
from ..recipes import Precision, Step
from ..runtime.backend import GraphBackend, Runner, Tensors
from ..runtime.engines import open_graph
from .layers import Format, Layer, Observation, Precisions
from .sensitivity import Choice, Outputs, choose

Rehearsal = Callable[[Runner], object]  # uses a graph as captioning does
Trial = Callable[[Runner], list[Outputs]]  # a rehearsal that tells what the captioner says

BATCH = 7
WORDS = "output"  # the layer whose channels are words: calibration says few of them, and learns nothing of the others


def encode(run: Runner, photos: Sequence[Pixels]) -> list[Tensors]:
    """The photos' cross keys and values, each (1, H, N, D)."""
    features: list[Tensors] = []
    for start in range(0, len(photos), BATCH):
        outputs = run({"image": np.stack(photos[start : start + BATCH])})
        rows = range(len(photos[start : start + BATCH]))
        features += [{name: values[k : k + 1] for name, values in outputs.items()} for k in rows]
    return features


def decode(
    run: Runner, graph: Graph, photos: Sequence[ParityVector], features: Sequence[Tensors], start: int
) -> list[Outputs]:
    """Logits (1, V) and attention (L, 1, H, N) while a decoder is fed the photos' captions after the token `start`."""
    backend = GraphBackend(graph, run, run)
    outputs: list[Outputs] = []
    for photo, feature in zip(photos, features, strict=True):
        cache = backend.empty_cache(batch=1)
        for position, token in enumerate([start, *photo.tokens[:-1]]):
            step = backend.step(np.array([token], np.int32), position, feature, cache)
            cache = step.cache
            outputs.append({"logits": step.logits, "attention": step.attention})
    return outputs


@dataclass(frozen=True)
class Lowered:
    """A graph that is not finished yet, and what was chosen at each step."""

    model: bytes
    choices: tuple[Choice, ...]


class Lowering:
    """A graph in float, from which the recipes' graphs are made; what recipes have in common is computed once.

    to, format  its format's name and module
    graph       what the manifest says of it
    model       the exported graph
    rehearse    on many calibration photos, to learn ranges
    try_out     on some of them, to measure errors
    """

    def __init__(
        self,
        to: str,
        format: Format,  # noqa: A002
        graph: Graph,
        model: bytes,
        rehearse: Rehearsal,
        try_out: Trial,
    ) -> None:
        self.graph = graph
        self._to, self._format, self._model = to, format, model
        self._rehearse, self._try_out = rehearse, try_out
        self._known: dict[tuple[Step, ...], tuple[Choice, ...]] = {}

    @property
    def run(self) -> Runner:
        """The graph in float, in its engine."""
        return open_graph(self._to, self._model, self._outputs, None, "a graph in float")

    def lower(self, steps: Sequence[Step]) -> Lowered:
        """The graph after a recipe's steps."""
        choices = self._choices(tuple(steps))
        precisions = choices[-1].precisions if choices else {}
        return Lowered(self._lowered(precisions), choices)

    def _choices(self, steps: tuple[Step, ...]) -> tuple[Choice, ...]:
        if not steps:
            return ()
        if steps not in self._known:
            before = self._choices(steps[:-1])
            self._known[steps] = (*before, self._choice(steps[-1], before[-1].precisions if before else {}))
        return self._known[steps]

    def _choice(self, step: Step, before: Precisions) -> Choice:
        costs = [self._cost(layer, step.precision) for layer in self._layers]
        barred = [layer.node for layer in self._layers if layer.name == WORDS and step.precision is Precision.STATIC]
        return choose(self._layers, costs, self._trial, step, before, barred)

    @cached_property
    def _layers(self) -> list[Layer]:
        return self._format.layers(self._model)

    @cached_property
    def _observation(self) -> Observation:
        return self._format.observe(self._model, self._outputs, self._rehearse)

    @property
    def _outputs(self) -> list[str]:
        return [tensor.name for tensor in self.graph.outputs]

    def _lowered(self, precisions: Precisions) -> bytes:
        ranges = self._observation.ranges if Precision.STATIC in precisions.values() else {}
        return self._format.lower(self._model, precisions, ranges)

    def _trial(self, precisions: Precisions) -> list[Outputs]:
        try:
            run = open_graph(self._to, self._lowered(precisions), self._outputs, None, "a graph that is tried out")
        except BundleError:
            return []
        return self._try_out(run)

    def _cost(self, layer: Layer, precision: Precision) -> int:
        """What the precision saves: multiplications in float for one photo or token, or else weights in float."""
        if precision is not Precision.STATIC:
            return layer.weights
        return layer.weights // layer.columns * self._observation.elements[layer.result]
