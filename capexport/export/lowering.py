"""One graph of one format, brought down in precision step by step, each step as far as its budget of error allows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from ..errors import BundleError
from ..image import Pixels
from ..manifest import Graph
from ..parity.vectors import ParityVector
from ..recipes import INT8, Precision, Step
from ..runtime.backend import GraphBackend, Runner, Tensors
from ..runtime.engines import is_parallel, open_graph
from ..runtime.workers import cores
from ..vocabulary import Vocabulary
from .layers import Format, Layer, Observation, Precisions
from .sensitivity import Choice, Outputs, choose

Rehearsal = Callable[[Runner], object]  # uses a graph as captioning does
Trial = Callable[[Runner], list[Outputs]]  # a rehearsal that tells what the captioner says

BATCH = 7  # of photos; larger ones take no less time a photo, and more memory
AT_ONCE = 4  # the most trials: half of one is Python's work, which threads do in turns
WORDS = "output"  # the layer whose channels are words: calibration says few of them, and learns nothing of the others


def encode(run: Runner, photos: Sequence[Pixels]) -> Tensors:
    """What the encoder gives of the photos, by name, each (photos, ...)."""
    batches = [run({"image": np.stack(photos[k : k + BATCH])}) for k in range(0, len(photos), BATCH)]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def decode(run: Runner, graph: Graph, photos: Sequence[ParityVector], features: Tensors, start: int) -> list[Outputs]:
    """What a decoder says while it is fed the photos' captions after the token `start`, step by step.

    Each step's logits (B, V) and attention (B, L, H, N) are of the photos whose captions have not ended yet.
    """
    backend = GraphBackend(graph, run, run)
    longest_first = np.argsort([-len(photo.tokens) for photo in photos], kind="stable")
    captions = [[start, *photos[k].tokens[:-1]] for k in longest_first]
    features = {name: values[longest_first] for name, values in features.items()}
    cache = backend.empty_cache(batch=len(photos))
    outputs: list[Outputs] = []
    for position in range(len(captions[0])):
        tokens = np.array([caption[position] for caption in captions if len(caption) > position], np.int32)  # (B,)
        features, cache = ({name: kept[: len(tokens)] for name, kept in side.items()} for side in (features, cache))
        step = backend.step(tokens, position, features, cache)
        cache = step.cache
        outputs.append({"logits": step.logits, "attention": np.swapaxes(step.attention, 0, 1)})
    return outputs


def guess(
    encoder: Lowering, decoder: Lowering, photos: Sequence[Pixels], vocabulary: Vocabulary, max_length: int
) -> list[list[int]]:
    """Greedy captions by graphs in float, with more words after [END]; nearly always those of Keras."""
    backend = GraphBackend(decoder.graph, encoder.run, decoder.run)
    features, cache = encode(encoder.run, photos), backend.empty_cache(batch=len(photos))
    said = [np.full(len(photos), vocabulary.start, np.int32)]
    while len(said) <= max_length and not np.any(np.equal(said, vocabulary.end), axis=0).all():
        step = backend.step(said[-1], len(said) - 1, features, cache)
        cache = step.cache
        said.append(step.logits.argmax(axis=-1).astype(np.int32))
    captions: list[list[int]] = np.stack(said[1:], axis=1).tolist()
    return captions


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
        self._at_once = min(cores(), AT_ONCE) if is_parallel(to) else 1
        self._threads = 1 if self._at_once > 1 else None  # of an engine

    @cached_property
    def run(self) -> Runner:
        """The graph in float, in its engine."""
        return open_graph(self._to, self._model, self._outputs, self._threads, "a graph in float")

    def lower(self, steps: Sequence[Step]) -> Lowered:
        """The graph after a recipe's steps."""
        choices = self._choices(tuple(steps))
        precisions = choices[-1].precisions if choices else {}
        return Lowered(self._format.lower(self._model, precisions, self._needed(precisions.values())), choices)

    def _choices(self, steps: tuple[Step, ...]) -> tuple[Choice, ...]:
        if not steps:
            return ()
        if steps not in self._known:
            before = self._choices(steps[:-1])
            self._known[steps] = (*before, self._choice(steps[-1], before[-1].precisions if before else {}))
        return self._known[steps]

    def _choice(self, step: Step, before: Precisions) -> Choice:
        costs = [self._cost(layer, step.precision) for layer in self._layers]
        static = step.precision is Precision.STATIC
        barred = [layer.node for layer in self._layers if static and (layer.name == WORDS or not layer.integral)]
        trial = partial(self._trial, self._needed({step.precision, *before.values()}))
        return choose(self._layers, costs, trial, step, before, barred, self._at_once)

    @property
    def _layers(self) -> Sequence[Layer]:
        return self._format.layers(self._model)

    @cached_property
    def _observation(self) -> Observation:
        return self._format.observe(self._model, self._outputs, self._rehearse)

    @property
    def _outputs(self) -> list[str]:
        return [tensor.name for tensor in self.graph.outputs]

    def _needed(self, precisions: Collection[Precision]) -> Observation:
        """What the precisions need to know of the graph in use, which takes long to find out."""
        return self._observation if INT8.intersection(precisions) else Observation()

    def _trial(self, observation: Observation, precisions: Precisions) -> list[Outputs]:
        model = self._format.mimic(self._model, precisions, observation)
        try:
            run = open_graph(self._to, model, self._outputs, self._threads, "a graph that is tried out")
        except BundleError:
            return []
        return self._try_out(run)

    def _cost(self, layer: Layer, precision: Precision) -> int:
        """What the precision saves: multiplications in float for one photo or token, or else weights in float."""
        if precision is not Precision.STATIC:
            return layer.weights
        return layer.weights // layer.columns * self._observation.elements[layer.result]
