"""The whole greedy caption as one TFLite model, out of the finished encoder and decoder.

Its signatures are `caption`, from pixels to words, and `encode` and `decode`, the two graphs as they were:

    caption  calls the encoder, then repeats `step` while `goes_on` holds
    encode   calls the encoder
    decode   the decoder
    step     the decoder's operators, the choice of a word, and the places where the word's outcome is kept
    encoder  as it was

`caption` stands first, so that a program that knows nothing of signatures runs it.

XNNPACK packs the weights of each subgraph for itself when the file is loaded, and calls copy what goes in and out. So
the encoder is called: for the captioner that ships, in dynamic-int8, a second one takes 17 MB and the call 3 % of its
time. The decoder is repeated: a second one takes 4 MB, and a call would copy the caches at every word, 5 to 8 % of a
caption. `encode` is not the encoder itself: programs resize what has a signature to their batch, and LiteRT 2.3 crashes
when what an operator has called is resized from elsewhere.

L layers, H heads, N image positions, T the maximal length, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from ..bundle import banned_ids
from ..manifest import CAPTIONER, SIGNATURES, Graph
from ..vocabulary import Vocabulary
from .tflite_assembly import OPERATOR, Assembly, Spec, Subgraph
from .tflite_finish import finish

PASSED_ON = ("cross_", "self_")  # the decoder's inputs that go from step to step


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

    state = _state(graphs["decoder"], max_length)
    goes_on, step = (Subgraph.named(assembly, name) for name in ("goes_on", "step"))
    _build_goes_on(goes_on, state, vocabulary, max_length)
    _build_step(step, state, decoder, vocabulary, max_length)
    [image] = graphs["encoder"].inputs
    caption.take({image.name: _spec(image.shape, image.dtype)})
    features = caption.call(encoder, caption.inputs, batch=1)
    start = {name: _filled(caption, spec) for name, spec in state.items() if name not in (*features, "token")}
    start["token"] = caption.constant([vocabulary.start], "int32")
    end = caption.loop(goes_on, step, start | features)
    caption.give({name: end[name] for name in ("tokens", "log_probabilities", "attention")})

    for name, subgraph in ((CAPTIONER, caption), ("encoder", encode), ("decoder", decoder)):
        assembly.sign(SIGNATURES[name], subgraph)
    return finish(assembly.model())


def _state(decoder: Graph, max_length: int) -> dict[str, Spec]:
    """What goes from step to step: the last token and its successor's position, the outputs so far, the caches."""
    maps = next(tensor for tensor in decoder.outputs if tensor.name == "attention")
    caches = [tensor for tensor in decoder.inputs if tensor.name.startswith(PASSED_ON)]
    return {
        "token": Spec((1,), "int32"),
        "position": Spec((), "int32"),
        "tokens": Spec((1, max_length), "int32"),
        "log_probabilities": Spec((1, max_length), "float32"),
        "attention": _spec((max_length, *maps.shape), maps.dtype),  # (T, L, 1, H, N)
        **{cache.name: _spec(cache.shape, cache.dtype) for cache in caches},
    }


def _build_goes_on(graph: Subgraph, state: Mapping[str, Spec], vocabulary: Vocabulary, max_length: int) -> None:
    """Whether there is room for a token and the last one was not [END]: bool (1,)."""
    graph.take(state)
    token, position = graph.inputs["token"], graph.inputs["position"]
    room = graph.apply(OPERATOR.LESS, [position, graph.constant(max_length, "int32")], Spec((), "bool"))
    unended = graph.apply(OPERATOR.NOT_EQUAL, [token, graph.constant(vocabulary.end, "int32")], Spec((1,), "bool"))
    graph.give({"goes_on": graph.apply(OPERATOR.LOGICAL_AND, [room, unended], Spec((1,), "bool"))})


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


def _filled(graph: Subgraph, spec: Spec) -> int:
    """Zeros, which are made when they are needed rather than stored."""
    return graph.apply(OPERATOR.FILL, [graph.constant(spec.shape, "int32"), graph.constant(0, spec.dtype)], spec)


def _spec(shape: tuple[int | str, ...], dtype: str) -> Spec:
    """Of a manifest's tensor for one photo."""
    return Spec(tuple(1 if isinstance(n, str) else n for n in shape), dtype)
