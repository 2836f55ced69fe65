"""The whole greedy caption as one TFLite model, out of the finished encoder and decoder.

Its signatures are `caption`, from pixels to words, and `encode` and `decode`, the two graphs as they were:

    caption  calls the encoder, repeats `step_16` while `goes_on_16` holds, and calls `long` or `short` for the rest
    long     repeats `step_50` while `goes_on_50` holds
    short    has nothing to add
    encode   calls the encoder
    decode   the decoder
    step_T   the decoder's operators, the choice of a word, and T places where the word's outcome is kept
    encoder  as it was

`caption` stands first, so that a program that knows nothing of signatures runs it.

XNNPACK packs the weights of each subgraph for itself when the file is loaded, and calls copy what goes in and out. So
the encoder is called: for the captioner that ships, in dynamic-int8, a second one takes 17 MB and the call 3 % of its
time. The decoder is repeated: another one takes 4 to 7 MB, and a call would copy the caches at every word, 5 to 8 % of
a caption. It is there twice, since all that has places is copied at every word, too: with room for the longest caption
(50 here) a caption takes a tenth longer than with room for PLACES words, where most end. `encode` is not the encoder
itself: programs resize what has a signature to their batch, and LiteRT 2.3 crashes when what an operator has called is
resized from elsewhere.

L layers, H heads, N image positions, T places (max_length of them in the end), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from ..bundle import banned_ids
from ..manifest import CAPTIONER, SIGNATURES, Graph
from ..runtime.backend import PLACES
from ..vocabulary import Vocabulary
from .tflite_assembly import OPERATOR, Assembly, Spec, Subgraph
from .tflite_finish import finish

PASSED_ON = ("cross_", "self_")  # the decoder's inputs that go from step to step
OUTPUTS = ("tokens", "log_probabilities", "attention")


def fuse(graphs: Mapping[str, Graph], models: Mapping[str, bytes], vocabulary: Vocabulary, max_length: int) -> bytes:
    """One finished model with the signatures encode, decode and caption.

    graphs, models  "encoder" and "decoder": what a manifest says of them, and the finished files

    caption: image uint8 (1, height, width, 3) -> tokens int32 (1, T), log_probabilities float32 (1, T), attention
    float32 (T, L, 1, H, N); zeros after [END]. The words are those that the runtime says by default.
    """
    assembly = Assembly()
    caption = Subgraph.named(assembly, "caption")
    encode = Subgraph.named(assembly, "encode")
    encoder, decoder = (assembly.take(models[name], name) for name in ("encoder", "decoder"))
    encode.take({name: encoder.spec(number) for name, number in encoder.inputs.items()})
    encode.give(encode.call(encoder, encode.inputs, batch=-1))

    [image] = graphs["encoder"].inputs
    caption.take({image.name: _spec(image.shape, image.dtype)})
    features = caption.call(encoder, caption.inputs, batch=1)
    caption.give(_Captioning(assembly, graphs["decoder"], decoder, vocabulary, max_length).said(caption, features))

    for name, subgraph in ((CAPTIONER, caption), ("encoder", encode), ("decoder", decoder)):
        assembly.sign(SIGNATURES[name], subgraph)
    return finish(assembly.model())


@dataclass(frozen=True)
class _Captioning:
    """How the decoder, as a manifest describes it and as a subgraph, is repeated."""

    assembly: Assembly
    described: Graph
    decoder: Subgraph
    vocabulary: Vocabulary
    max_length: int

    def said(self, graph: Subgraph, features: Mapping[str, int]) -> dict[str, int]:
        """The OUTPUTS for a photo of these features."""
        places = min(PLACES, self.max_length)
        state, whole = self._state(places), self._state(self.max_length)
        start = {name: _filled(graph, spec) for name, spec in state.items() if name not in (*features, "token")}
        start["token"] = graph.constant([self.vocabulary.start], "int32")
        end = self._repeated(graph, {**start, **features}, places)
        if places < self.max_length:
            long, short = (Subgraph.named(self.assembly, name) for name in ("long", "short"))
            for subgraph in (long, short):
                subgraph.take(state)
            rest = self._repeated(long, _padded(long, long.inputs, state, whole), self.max_length)
            long.give({name: rest[name] for name in OUTPUTS})
            short.give(_padded(short, {name: short.inputs[name] for name in OUTPUTS}, state, whole))
            end = graph.either(_unended(graph, end["token"], self.vocabulary), long, short, end)
        return {name: end[name] for name in OUTPUTS}

    def _repeated(self, graph: Subgraph, start: Mapping[str, int], places: int) -> dict[str, int]:
        """The state when there is no place left or [END] is said."""
        state = self._state(places)
        goes_on, step = (Subgraph.named(self.assembly, f"{name}_{places}") for name in ("goes_on", "step"))
        _build_goes_on(goes_on, state, self.vocabulary, places)
        _build_step(step, state, self.decoder, self.vocabulary, self.max_length)
        return graph.loop(goes_on, step, start)

    def _state(self, places: int) -> dict[str, Spec]:
        """What goes from step to step: the last token and its successor's position, the outputs so far, the caches."""
        maps = next(tensor for tensor in self.described.outputs if tensor.name == "attention")
        caches = [tensor for tensor in self.described.inputs if tensor.name.startswith(PASSED_ON)]
        return {
            "token": Spec((1,), "int32"),
            "position": Spec((), "int32"),
            "tokens": Spec((1, places), "int32"),
            "log_probabilities": Spec((1, places), "float32"),
            "attention": _spec((places, *maps.shape), maps.dtype),  # (T, L, 1, H, N)
            **{cache.name: _spec(cache.shape, cache.dtype, places) for cache in caches},
        }


def _build_goes_on(graph: Subgraph, state: Mapping[str, Spec], vocabulary: Vocabulary, places: int) -> None:
    """Whether there is a place for a token and the last one was not [END]: bool (1,)."""
    graph.take(state)
    token, position = graph.inputs["token"], graph.inputs["position"]
    room = graph.apply(OPERATOR.LESS, [position, graph.constant(places, "int32")], Spec((), "bool"))
    unended = _unended(graph, token, vocabulary)
    graph.give({"goes_on": graph.apply(OPERATOR.LOGICAL_AND, [room, unended], Spec((1,), "bool"))})


def _unended(graph: Subgraph, token: int, vocabulary: Vocabulary) -> int:
    """Whether a token (1,) is another than [END]: bool (1,)."""
    return graph.apply(OPERATOR.NOT_EQUAL, [token, graph.constant(vocabulary.end, "int32")], Spec((1,), "bool"))


def _build_step(
    graph: Subgraph, state: Mapping[str, Spec], decoder: Subgraph, vocabulary: Vocabulary, max_length: int
) -> None:
    """The state after one more token: the likeliest, but [END] at the last position."""
    graph.take(state)
    given = graph.inputs
    made = graph.splice(decoder, {name: given["token" if name == "tokens" else name] for name in decoder.inputs})
    likeliest = _likeliest(graph, made["logits"], vocabulary)
    last = graph.apply(OPERATOR.EQUAL, [given["position"], graph.constant(max_length - 1, "int32")], Spec((), "bool"))
    end = graph.constant([vocabulary.end], "int32")
    token = graph.apply(OPERATOR.SELECT_V2, [last, end, likeliest], state["token"])
    probability = _log_probability(graph, made["logits"], token, likeliest, len(vocabulary))
    following = graph.apply(OPERATOR.ADD, [given["position"], graph.constant(1, "int32")], state["position"])
    graph.give(
        given  # the encoder's outputs; the others are replaced
        | {"token": token, "position": following}
        | {"tokens": _placed(graph, state, "tokens", token, axis=1)}
        | {"log_probabilities": _placed(graph, state, "log_probabilities", probability, axis=1)}
        | {"attention": _placed(graph, state, "attention", made["attention"], axis=0)}
        | {name: made[name.replace("self_", "next_")] for name in given if name.startswith("self_")}
    )


def _likeliest(graph: Subgraph, logits: int, vocabulary: Vocabulary) -> int:
    """The likeliest of the words that may come: int32 (1,)."""
    bans = np.zeros((1, len(vocabulary)), np.float32)
    bans[:, banned_ids(vocabulary)] = -np.inf
    allowed = graph.apply(OPERATOR.ADD, [logits, graph.constant(bans, "float32")], Spec(bans.shape, "float32"))
    kind = schema.TensorType.INT32
    return graph.apply(OPERATOR.ARG_MAX, [allowed, graph.constant(-1, "int32")], Spec((1,), "int32"), outputType=kind)


def _log_probability(graph: Subgraph, logits: int, token: int, likeliest: int, words: int) -> int:
    """A token's log-probability (1, 1): the likeliest one's, and the difference of their logits.

    LOG_SOFTMAX adds up thousands of words one by one in float32, and is three times less exact; a probability by itself
    may be too small for float32, if [END] comes only because there is no room for more.
    """
    one = Spec((1, 1), "float32")
    probabilities = graph.apply(OPERATOR.SOFTMAX, [logits], Spec((1, words), "float32"), beta=1.0)
    greatest = graph.apply(OPERATOR.GATHER, [probabilities, likeliest], one, axis=1)
    ours, theirs = (graph.apply(OPERATOR.GATHER, [logits, word], one, axis=1) for word in (token, likeliest))
    difference = graph.apply(OPERATOR.SUB, [ours, theirs], one)
    return graph.apply(OPERATOR.ADD, [graph.apply(OPERATOR.LOG, [greatest], one), difference], one)


def _placed(graph: Subgraph, state: Mapping[str, Spec], name: str, values: int, axis: int) -> int:
    """An output so far with the step's values at the step's position along this axis."""
    spec = state[name]
    shape = [1 if k == axis else n for k, n in enumerate(spec.shape)]
    block = graph.apply(OPERATOR.RESHAPE, [values, graph.constant(shape, "int32")], Spec(tuple(shape), spec.dtype))
    zero = graph.constant(0, "int32")
    corner = [graph.inputs["position"] if k == axis else zero for k in range(len(shape))]
    place = graph.apply(OPERATOR.PACK, corner, Spec((len(corner),), "int32"), valuesCount=len(corner))
    return graph.apply(OPERATOR.DYNAMIC_UPDATE_SLICE, [graph.inputs[name], block, place], spec)


def _padded(
    graph: Subgraph, values: Mapping[str, int], before: Mapping[str, Spec], after: Mapping[str, Spec]
) -> dict[str, int]:
    """Parts of the state with more places, zeros in them."""
    padded = dict(values)
    for name, value in values.items():
        more = [(0, long - short) for short, long in zip(before[name].shape, after[name].shape, strict=True)]
        if any(map(any, more)):
            padded[name] = graph.apply(OPERATOR.PAD, [value, graph.constant(more, "int32")], after[name])
    return padded


def _filled(graph: Subgraph, spec: Spec) -> int:
    """Zeros, which are made when they are needed rather than stored."""
    return graph.apply(OPERATOR.FILL, [graph.constant(spec.shape, "int32"), graph.constant(0, spec.dtype)], spec)


def _spec(shape: tuple[int | str, ...], dtype: str, places: int = 1) -> Spec:
    """Of a manifest's tensor for one photo and so many places in a cache."""
    lengths = {"B": 1, "P": places}
    return Spec(tuple(lengths[n] if isinstance(n, str) else n for n in shape), dtype)
