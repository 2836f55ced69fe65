"""The layers of an ONNX model, their activations' ranges, and other precisions for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ..recipes import Precision
from ..runtime.backend import Runner, Tensors
from ..runtime.onnx import Model
from .layers import KNOWN, Layer, Observation, Observer, Precisions, layer_name
from .onnx_rewriting import CONTRIB, Rewriting, pointwise
from .onnx_simplify import readers

ACTIVATIONS = ("Relu", "Clip")  # engines compute them along with the convolution before them
SIGMOIDS = ("HardSwish", "HardSigmoid", "Sigmoid")  # onnxruntime these, too, but not along with one in integers
DENSE = 32  # multiplications for each value read and written, by which integers make up for the roundings around them


@lru_cache(KNOWN)
def layers(model: bytes) -> Sequence[Layer]:
    """The model's convolutions and products by constant weights, in the order in which they are computed."""
    graph = onnx.load_from_string(model).graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    return tuple(
        _layer(graph, node, list(weights[node.input[1]].dims))
        for node in graph.node
        if node.op_type in ("Conv", "MatMul") and node.input[1] in weights
    )


def observe(model: bytes, outputs: Sequence[str], use: Callable[[Runner], object]) -> Observation:
    """Watch each layer's source and result while `use` runs the graph."""
    seen = layers(model)
    watched = sorted({name for layer in seen for name in (layer.source, layer.result)})
    loaded = onnx.load_from_string(model)
    more = set(watched) - {value.name for value in loaded.graph.output}
    loaded.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in sorted(more))
    run = Model(loaded.SerializeToString(), None, "a graph to be calibrated").runner(sorted({*outputs, *watched}))
    observer = Observer()

    def observed(inputs: Mapping[str, NDArray[Any]]) -> Tensors:
        given = run(inputs)
        for name in watched:
            axis = 1 if given[name].ndim == 4 else -1  # (B, C, h, w) or (R, C)
            observer.see(name, given[name], axis, rows=len(next(iter(inputs.values()))))
        for layer in seen:
            source = given[layer.source]
            observer.correlate(layer, np.moveaxis(source, 1, -1) if source.ndim == 4 else source)
        return {name: given[name] for name in outputs}  # those watched are a hundred times as large

    use(observed)
    return observer.observation()


def lower(model: bytes, precisions: Precisions, observation: Observation) -> bytes:
    """An exported model with its layers in these precisions.

    Products in DYNAMIC precision quantise activations in blocks of each row, so that a row's result does not depend on
    its neighbours in the batch (as it does after DynamicQuantizeLinear, whose one scale is the whole tensor's);
    convolutions have no such operator, and are STORED. So are those of several places that were to be STATIC: in
    integers they take onnxruntime more time than in float.
    """
    loaded = onnx.load_from_string(model)
    rewriting = Rewriting(loaded.graph, observation)
    for layer in layers(model):
        rewriting.lower(layer, precisions.get(layer.node, Precision.FLOAT))
    rewriting.sort()
    loaded.opset_import.append(onnx.helper.make_opsetid(CONTRIB, 1))
    return bytes(loaded.SerializeToString())


def _layer(graph: onnx.GraphProto, node: onnx.NodeProto, weights: list[int]) -> Layer:
    depthwise = node.op_type == "Conv" and weights[1] == 1 and weights[0] > 1
    after = readers(graph, node.output[0])
    fused = node.op_type == "Conv" and len(after) == 1 and after[0].op_type in ACTIVATIONS
    activated = any(other.op_type in (*ACTIVATIONS, *SIGMOIDS) for other in _final_readers(graph, node.output[0]))
    count, columns = int(np.prod(weights)), weights[1 if node.op_type == "MatMul" else 0]
    dense = count >= DENSE * (columns + count // columns)
    return Layer(
        name=layer_name(";".join([node.name, *(name.removesuffix("/bias:0") for name in node.input[2:])])),
        kind="matmul" if node.op_type == "MatMul" else "depthwise" if depthwise else "conv",
        node=node.name,
        source=node.input[0],
        result=after[0].output[0] if fused else node.output[0],
        weights=count,
        columns=columns,
        homogeneous=not (fused and after[0].op_type == "Clip"),
        integral=node.op_type == "MatMul" or (pointwise(node, weights) and dense and not activated),
    )


def _final_readers(graph: onnx.GraphProto, name: str) -> Iterator[onnx.NodeProto]:
    """What is computed of a tensor, be it transposed or not."""
    for node in readers(graph, name):
        yield from _final_readers(graph, node.output[0]) if node.op_type == "Transpose" else [node]
