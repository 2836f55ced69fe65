"""The whole greedy caption as one ONNX graph: the finished encoder, then a Loop whose body is the finished decoder.

The body keeps the decoder's weights, which is a little faster under onnxruntime than to have them outside. What is the
same at every step is computed before the loop: weights in float of those that are stored in another precision, and the
photo's keys and values.

B batch, T steps, L layers, H heads, D key dim, N image positions, V vocabulary, P past length, X a head's share of a
key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ..bundle import banned_ids
from ..manifest import Graph
from ..vocabulary import Vocabulary
from .onnx_step import spread, take_constant

BOOL, FLOAT, INT32, INT64 = (getattr(onnx.TensorProto, name) for name in ("BOOL", "FLOAT", "INT32", "INT64"))
HOPELESS = -1e8  # a bias of logits that no word is chosen with; the tutorial's banned words have -1e9

node = onnx.helper.make_node
value = onnx.helper.make_tensor_value_info


def fuse(graphs: Mapping[str, Graph], models: Mapping[str, bytes], vocabulary: Vocabulary, max_length: int) -> bytes:
    """One model of the finished models "encoder" and "decoder", whose tensors the graphs of these names state.

    It takes image uint8 (B, height, width, 3) and gives tokens int32 (B, T), log_probabilities float32 (B, T) and
    attention float32 (T, L, B, H, N): the words that the runtime chooses with default options. T is the steps until
    every row has said [END], at most max_length, where [END] is said whatever is likeliest. After a row's [END] its
    tokens and log-probabilities are 0, and its attention means nothing.
    """
    encoder, decoder = (onnx.load_from_string(models[name]) for name in ("encoder", "decoder"))
    cross = [tensor.name for tensor in graphs["encoder"].outputs]
    _prefix(encoder.graph, "encoder_", kept=["image"])
    _prefix(decoder.graph, "step_", kept=cross)
    spread(decoder.graph)
    before = take_constant(decoder.graph, cross)
    scores = _take_softmax(decoder.graph)
    caches = [value for value in decoder.graph.input if value.name.startswith("step_self_")]
    attention = next(tensor.shape for tensor in graphs["decoder"].outputs if tensor.name == "attention")
    main = onnx.helper.make_graph(
        [
            *encoder.graph.node,
            # The loop reads these from outside, which saves a copy a word. Were there nothing in between, onnxruntime
            # would crash on some calibrated encoders, when it moves their roundings towards the end.
            *(node("Max", [f"encoder_{name}"], [name]) for name in cross),
            *before.node,
            *_loop(_body(decoder.graph, scores, vocabulary), len(caches)),
            *_after_the_end(),
        ],
        "capexport",
        encoder.graph.input,
        [
            value("attention", FLOAT, ["T", *attention]),
            value("log_probabilities", FLOAT, ["B", "T"]),
            value("tokens", INT32, ["B", "T"]),
        ],
        initializer=[
            *encoder.graph.initializer,
            *before.initializer,
            *_constants(
                max_length=np.array(max_length),
                last_step=np.array(max_length - 1),
                true=np.array(True),
                start=np.array(vocabulary.start),
                end=np.array(vocabulary.end),
                empty_cache=np.array([0, caches[0].type.tensor_type.shape.dim[2].dim_value]),
                axis_0=np.array(0),
                axis_2=np.array([2]),
                one=np.array([1]),
                no_token=np.array(0),
                no_log_probability=np.array(0, np.float32),
            ),
        ],
    )
    opsets = {opset.domain: opset for model in (encoder, decoder) for opset in model.opset_import}
    result = onnx.helper.make_model(
        main, opset_imports=opsets.values(), ir_version=encoder.ir_version, producer_name="capexport"
    )
    onnx.checker.check_model(result, full_check=True)
    return bytes(result.SerializeToString(deterministic=True))


def _prefix(graph: onnx.GraphProto, prefix: str, kept: Sequence[str] = ()) -> None:
    """Set a graph's names apart from those of others; empty ones, of what is left out, stay so."""

    def renamed(name: str) -> str:
        return name if name in ("", *kept) else prefix + name

    for one in graph.node:
        one.name = prefix + one.name
        one.input[:] = map(renamed, one.input)
        one.output[:] = map(renamed, one.output)
    for each in (*graph.input, *graph.output, *graph.initializer):
        each.name = renamed(each.name)


def _take_softmax(decoder: onnx.GraphProto) -> onnx.ValueInfoProto:
    """Take the softmax out that makes scores the attention; returns the scores, for one softmax after the loop."""
    [softmax] = [one for one in decoder.node if "step_attention" in one.output]
    [scores] = [each for each in decoder.output if each.name == "step_attention"]
    scores.name = softmax.input[0]
    decoder.node.remove(softmax)
    return scores


def _allowed(decoder: onnx.GraphProto, vocabulary: Vocabulary) -> dict[str, NDArray[np.float32]]:
    """What to add to a step's logits, so that no banned word is likeliest; nothing where their bias does so itself."""
    ids, weights = banned_ids(vocabulary), {tensor.name: tensor for tensor in decoder.initializer}
    [maker] = [one for one in decoder.node if "step_logits" in one.output]
    biases = [onnx.numpy_helper.to_array(weights[name]) for name in maker.input if name in weights]
    if maker.op_type == "Add" and len(biases) == 1 and (biases[0][ids] < HOPELESS).all():
        return {}
    allowed = np.zeros(len(vocabulary), np.float32)
    allowed[ids] = np.finfo(np.float32).min
    return {"allowed": allowed}


def _body(decoder: onnx.GraphProto, scores: onnx.ValueInfoProto, vocabulary: Vocabulary) -> onnx.GraphProto:
    """One step: the decoder, and the greedy choice of a word from its logits.

    Carried from step to step: the likeliest tokens (B, 1), which rows (B, 1) go on, as numbers, and the caches
    (B, P, H * X or X). Gathered: the tokens (B, 1) that are said, their log-probabilities (B, 1) and the scores
    (L, B, H, N) of their attention. Positions and tokens are int64 here, which the decoder takes as well, and rows that
    have ended say something: each further operator costs a word more than it computes.
    """
    inputs = {each.name: each for each in decoder.input}
    outputs = {each.name: each for each in decoder.output}
    caches = [name for name in inputs if name.startswith("step_self_")]
    allowed = _allowed(decoder, vocabulary)
    choice = "allowed_logits" if allowed else "step_logits"
    return onnx.helper.make_graph(
        [
            *decoder.node,
            *(node("Add", ["step_logits", name], [choice]) for name in allowed),
            node("ArgMax", [choice], ["likeliest"], axis=1),  # (B, 1), the first of equals
            node("Equal", ["step_position", "last_step"], ["is_last"]),
            node("Where", ["is_last", "end", "likeliest"], ["said"]),
            node("LogSoftmax", ["step_logits"], ["all_log_probabilities"], axis=1),  # (B, V), of the banned words, too
            node("GatherElements", ["all_log_probabilities", "said"], ["log_probability"], axis=1),
            node("Equal", ["said", "end"], ["ends"]),
            node("Where", ["ends", "no_token", "going"], ["goes_on"]),
            node("ReduceMax", ["goes_on"], ["any_number"], keepdims=0),
            node("Cast", ["any_number"], ["any_goes_on"], to=BOOL),
        ],
        "step",
        [
            value("step_position", INT64, []),
            value("any_going", BOOL, []),
            # onnxruntime joins sums and norms whose axes it knows to be the same, and computes them slower so.
            value("step_tokens", INT64, [None, 1]),
            value("going", INT64, ["B", 1]),
            *(inputs[name] for name in caches),
        ],
        [
            value("any_goes_on", BOOL, []),
            value("likeliest", INT64, ["B", 1]),
            value("goes_on", INT64, ["B", 1]),
            *(outputs[name.replace("self_", "next_")] for name in caches),
            value("said", INT64, ["B", 1]),
            value("log_probability", FLOAT, ["B", 1]),
            scores,
        ],
        initializer=[*decoder.initializer, *_constants(**allowed)],
    )


def _loop(body: onnx.GraphProto, caches: int) -> list[onnx.NodeProto]:
    """The loop, and what it begins with."""
    # Results that nobody reads have names nevertheless: onnxruntime crashes where they are left out.
    begin = ["start_tokens", "all_going", *["no_past"] * caches]
    unread = [f"unread_{k}" for k in range(len(begin))]
    return [
        node("Shape", ["image"], ["batch"], start=0, end=1),
        node("Concat", ["batch", "one"], ["rows"], axis=0),
        node("Expand", ["start", "rows"], ["start_tokens"]),  # (B, 1)
        node("Expand", ["one", "rows"], ["all_going"]),  # (B, 1), of ones
        node("Concat", ["batch", "empty_cache"], ["no_past_shape"], axis=0),
        node("ConstantOfShape", ["no_past_shape"], ["no_past"]),  # (B, 0, H * X or X)
        node(
            "Loop",
            ["max_length", "true", *begin],
            [*unread, "said_by_step", "log_probability_by_step", "scores_by_step"],
            body=body,
        ),
    ]


def _after_the_end() -> list[onnx.NodeProto]:
    """What rows said (T, B, 1) by step becomes tokens and log-probabilities (B, T), which are 0 after [END].

    The scores become the attention (T, L, B, H, N).
    """
    return [
        node("Softmax", ["scores_by_step"], ["attention"]),
        node("Equal", ["said_by_step", "end"], ["ends_by_step"]),
        node("Cast", ["ends_by_step"], ["end_by_step"], to=INT64),
        node("CumSum", ["end_by_step", "axis_0"], ["ends_before"], exclusive=1),
        node("Cast", ["ends_before"], ["is_over"], to=BOOL),  # (T, B, 1)
        *_of_rows("said_by_step", "no_token", "whole_tokens"),
        node("Cast", ["whole_tokens"], ["tokens"], to=INT32),
        *_of_rows("log_probability_by_step", "no_log_probability", "log_probabilities"),
    ]


def _of_rows(by_step: str, nothing: str, result: str) -> list[onnx.NodeProto]:
    return [
        node("Where", ["is_over", nothing, by_step], [f"{by_step}_to_end"]),
        node("Squeeze", [f"{by_step}_to_end", "axis_2"], [f"{by_step}_flat"]),
        node("Transpose", [f"{by_step}_flat"], [result], perm=[1, 0]),
    ]


def _constants(**arrays: NDArray[Any]) -> list[onnx.TensorProto]:
    return [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
