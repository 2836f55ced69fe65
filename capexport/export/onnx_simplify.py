"""What tf2onnx leaves apart or idle in a graph, made simple before anything else is done with it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx


def drop_idle_reshapes(graph: onnx.GraphProto) -> None:
    """Remove reshapes to the shape that is there already: tf2onnx turns some transposes of 1x1 maps into them.

    It does so for now these, now those of them, so this makes the export repeatable, too.
    """
    inferred = onnx.shape_inference.infer_shapes(onnx.helper.make_model(graph)).graph
    shapes = {
        value.name: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in inferred.value_info
    }
    weights = {tensor.name: tensor for tensor in graph.initializer}
    kept: list[onnx.NodeProto] = []
    replaced: dict[str, str] = {}
    for node in graph.node:
        node.input[:] = [replaced.get(name, name) for name in node.input]
        if node.op_type == "Reshape" and node.input[1] in weights:
            target = onnx.numpy_helper.to_array(weights[node.input[1]]).tolist()
            if target[0] == -1 and min(target[1:]) > 0 and target[1:] == shapes.get(node.input[0], [])[1:]:
                replaced[node.output[0]] = node.input[0]
                continue
        kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def fuse_hard_activations(graph: onnx.GraphProto) -> None:
    """Write relu6(x + 3) / 6 as HardSigmoid, and x times that as HardSwish, which engines fuse with convolutions.

    MobileNetV3's activations (Howard et al., 2019, "Searching for MobileNetV3"). Left as four operators, they take the
    encoder's maps out of the layout in which onnxruntime convolves, and back, around each of them.
    """
    for node, gate in list(_hard_sigmoids(graph)):
        source, result = node.input[0], gate.output[0]
        products = [other for other in graph.node if result in other.input]
        swish = len(products) == 1 and products[0].op_type == "Mul" and source in products[0].input
        last = products[0] if swish else gate
        made = (
            onnx.helper.make_node("HardSwish", [source], last.output, name=last.name)
            if swish
            else onnx.helper.make_node("HardSigmoid", [source], last.output, name=last.name, alpha=1 / 6, beta=0.5)
        )
        last.CopyFrom(made)
    _drop_unused(graph)


def _hard_sigmoids(graph: onnx.GraphProto) -> Iterator[tuple[onnx.NodeProto, onnx.NodeProto]]:
    """The first and last of three operators that add 3, clip to 0 and 6, and divide by 6, and give nothing else."""
    constants = {t.name: float(onnx.numpy_helper.to_array(t).item()) for t in graph.initializer if _is_number(t)}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in graph.output}
    for first in graph.node:
        chain = [first]
        while len(chain) < 3 and chain[-1].output[0] not in outputs and len(readers.get(chain[-1].output[0], ())) == 1:
            chain += readers[chain[-1].output[0]]
        if [node.op_type for node in chain] == ["Add", "Clip", "Mul"]:
            numbers = [constants.get(name, np.nan) for node in chain for name in node.input[1:]]
            if np.allclose(numbers, [3, 0, 6, 1 / 6]):
                yield chain[0], chain[2]


def _is_number(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type == onnx.TensorProto.FLOAT and int(np.prod(tensor.dims)) == 1


def _drop_unused(graph: onnx.GraphProto) -> None:
    used = {value.name for value in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if used.intersection(node.output):
            used.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
