"""The whole greedy caption as one ONNX graph: the finished encoder, then a Loop whose body is the finished decoder.

The body keeps the decoder's weights, which is a little faster under onnxruntime than to have them outside. Those that
are stored in another precision than they are used in become float before the loop, once a caption at most.

B batch, T steps, L layers, H heads, D key dim, N image positions, V vocabulary, P past length.
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

BOOL, FLOAT, INT32, INT64 = (getattr(onnx.TensorProto, name) for name in ("BOOL", "FLOAT", "INT32", "INT64"))
UNPACKING = ("Cast", "Mul")  # what makes stored weights float

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
    _prefix(encoder.graph, "encoder_", kept=["image", *cross])
    _prefix(decoder.graph, "step_")
    unpacking = _take_unpacking(decoder.graph)
    caches = [t for t in graphs["decoder"].inputs if t.name.startswith("self_")]
    attention = next(tensor.shape for tensor in graphs["decoder"].outputs if tensor.name == "attention")
    main = onnx.helper.make_graph(
        [
            *encoder.graph.node,
            *unpacking.node,
            *_loop(_body(decoder.graph, cross, vocabulary, max_length), cross, len(caches)),
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
            *unpacking.initializer,
            *_constants(
                max_length=np.array(max_length),
                true=np.array(True),
                start=np.array(vocabulary.start, np.int32),
                empty_cache=np.array([caches[0].shape[1], 0, caches[0].shape[3]]),  # H, P, D
            ),
        ],
    )
    opsets = {opset.domain: opset for model in (encoder, decoder) for opset in model.opset_import}
    result = onnx.helper.make_model(main, opset_imports=opsets.values(), ir_version=8, producer_name="capexport")
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


def _take_unpacking(graph: onnx.GraphProto) -> onnx.GraphProto:
    """Take the nodes that make stored weights float out of a graph, with these weights."""
    known = {tensor.name for tensor in graph.initializer}
    taken = onnx.GraphProto()
    for one in list(graph.node):
        if one.op_type in UNPACKING and known.issuperset(one.input):
            known.update(one.output)
            taken.node.append(one)
            graph.node.remove(one)
    read = {name for one in taken.node for name in one.input}
    for tensor in list(graph.initializer):
        if tensor.name in read:
            taken.initializer.append(tensor)
            graph.initializer.remove(tensor)
    return taken


def _body(decoder: onnx.GraphProto, cross: Sequence[str], vocabulary: Vocabulary, max_length: int) -> onnx.GraphProto:
    """One step: the decoder, and the greedy choice of a word from its logits.

    Carried from step to step: the token (B,) that was said, which rows (B,) go on, the caches (B, H, P, D), and, as
    they are, the encoder's outputs: were those read from outside the loop, onnxruntime would crash on some calibrated
    encoders, when it moves their roundings towards the end. Gathered: the tokens (B,), their log-probabilities (B,) and
    the attention (L, B, H, N).
    """
    inputs = {each.name: each for each in decoder.input}
    outputs = {each.name: each for each in decoder.output}
    unchanged = [inputs[f"step_{name}"] for name in cross]
    caches = [name for name in inputs if name.startswith("step_self_")]
    allowed = np.zeros(len(vocabulary), np.float32)
    allowed[banned_ids(vocabulary)] = np.finfo(np.float32).min
    return onnx.helper.make_graph(
        [
            node("Cast", ["step"], ["step_position"], to=INT32),
            *decoder.node,
            node("Add", ["step_logits", "allowed"], ["allowed_logits"]),
            node("ArgMax", ["allowed_logits"], ["likeliest"], axis=1, keepdims=0),  # the first of equals
            node("Equal", ["step", "last_step"], ["is_last"]),
            node("Where", ["is_last", "end", "likeliest"], ["chosen"]),  # (B,)
            node("LogSoftmax", ["step_logits"], ["all_log_probabilities"], axis=1),  # (B, V), of the banned words, too
            node("Unsqueeze", ["chosen", "axis_1"], ["chosen_column"]),
            node("GatherElements", ["all_log_probabilities", "chosen_column"], ["chosen_log_probability"], axis=1),
            node("Squeeze", ["chosen_log_probability", "axis_1"], ["log_probability"]),  # (B,)
            node("Cast", ["chosen"], ["chosen_token"], to=INT32),
            node("Where", ["going", "chosen_token", "no_token"], ["said"]),
            node("Where", ["going", "log_probability", "zero"], ["said_log_probability"]),
            node("Equal", ["chosen", "end"], ["ends"]),
            node("Not", ["ends"], ["does_not_end"]),
            node("And", ["going", "does_not_end"], ["goes_on"]),
            node("Cast", ["goes_on"], ["goes_on_number"], to=INT32),
            node("ReduceMax", ["goes_on_number"], ["any_number"], keepdims=0),
            node("Cast", ["any_number"], ["any_goes_on"], to=BOOL),
            node("Identity", ["said"], ["next_token"]),
        ],
        "step",
        [
            value("step", INT64, []),
            value("any_going", BOOL, []),
            inputs["step_tokens"],
            value("going", BOOL, ["B"]),
            *(inputs[name] for name in caches),
            *unchanged,
        ],
        [
            value("any_goes_on", BOOL, []),
            value("next_token", INT32, ["B"]),
            value("goes_on", BOOL, ["B"]),
            *(outputs[name.replace("self_", "next_")] for name in caches),
            *unchanged,
            value("said", INT32, ["B"]),
            value("said_log_probability", FLOAT, ["B"]),
            outputs["step_attention"],
        ],
        initializer=[
            *decoder.initializer,
            *_constants(
                allowed=allowed,
                last_step=np.array(max_length - 1),
                end=np.array(vocabulary.end),
                axis_1=np.array([1]),
                no_token=np.array(0, np.int32),
                zero=np.array(0, np.float32),
            ),
        ],
    )


def _loop(body: onnx.GraphProto, cross: Sequence[str], caches: int) -> list[onnx.NodeProto]:
    """The loop, what it begins with, and what becomes of its results."""
    # Results that nobody reads have names nevertheless: onnxruntime crashes where they are left out.
    begin = ["start_tokens", "all_going", *["no_past"] * caches, *cross]
    unread = [f"unread_{k}" for k in range(len(begin))]
    return [
        node("Shape", ["image"], ["batch"], start=0, end=1),
        node("Expand", ["start", "batch"], ["start_tokens"]),  # (B,)
        node("Expand", ["true", "batch"], ["all_going"]),  # (B,)
        node("Concat", ["batch", "empty_cache"], ["no_past_shape"], axis=0),
        node("ConstantOfShape", ["no_past_shape"], ["no_past"]),  # (B, H, 0, D)
        node(
            "Loop",
            ["max_length", "true", *begin],
            [*unread, "tokens_by_step", "log_probabilities_by_step", "attention"],
            body=body,
        ),
        node("Transpose", ["tokens_by_step"], ["tokens"], perm=[1, 0]),
        node("Transpose", ["log_probabilities_by_step"], ["log_probabilities"], perm=[1, 0]),
    ]


def _constants(**arrays: NDArray[Any]) -> list[onnx.TensorProto]:
    return [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
