"""To ONNX, through tf2onnx, with the contract's names and the same bytes every time."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import onnx
import tensorflow as tf
import tf2onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from .graphs import symbol

OPSET = 17


def export_onnx(module: tf.Module) -> bytes:
    """A module's `function` (concrete, with named inputs and a dict of outputs) as an ONNX model."""
    function = module.function
    frozen = convert_variables_to_constants_v2(function)
    outputs = dict(zip(sorted(function.structured_outputs), (tensor.name for tensor in frozen.outputs), strict=True))
    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
    model, _ = tf2onnx.convert.from_graph_def(
        frozen.graph.as_graph_def(),
        input_names=[tensor.name for tensor in frozen.inputs],
        output_names=list(outputs.values()),
        opset=OPSET,
    )
    _drop_idle_reshapes(model.graph)
    return _canonical(model, {tensor: name for name, tensor in outputs.items()}).SerializeToString(deterministic=True)


def quantize_onnx(model: bytes) -> bytes:
    """Matrix products with constant weights in int8, a scale per channel; activations quantised as they come."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "source.onnx"), Path(folder, "target.onnx")
        source.write_bytes(model)
        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.ERROR)  # onnxruntime's advice to preprocess first; shapes are known here already
        try:
            quantize_dynamic(
                source, target, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8
            )
        finally:
            root.setLevel(level)
        return _canonical(onnx.load(target), {}).SerializeToString(deterministic=True)


def _drop_idle_reshapes(graph: onnx.GraphProto) -> None:
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


def _canonical(model: onnx.ModelProto, renamed: dict[str, str]) -> onnx.ModelProto:
    """The same graph in an order and with names that do not depend on the process that made it.

    renamed  new names of inputs and outputs; the others are numbered in the order of _walk
    """
    graph = model.graph
    for value in graph.input:
        renamed.setdefault(value.name, value.name.split(":")[0])
    for value in graph.output:
        renamed.setdefault(value.name, value.name)
    nodes, weights = _walk(graph, sorted(renamed[value.name] for value in graph.output), renamed)
    for i, weight in enumerate(weights):
        weight.name = renamed.setdefault(weight.name, f"weight_{i}")
    for i, node in enumerate(nodes):
        node.name = f"{node.op_type}_{i}"
        for k, output in enumerate(node.output):
            renamed.setdefault(output, f"{node.name}_{k}" if output else "")
    for node in nodes:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed[name] for name in node.output]
    for value in (*graph.input, *graph.output):
        value.name = renamed[value.name]
    outputs = sorted(graph.output, key=lambda value: value.name)
    tidy = onnx.helper.make_graph(nodes, "capexport", graph.input, outputs, initializer=weights)
    for message in (*tidy.node, *tidy.initializer, *tidy.input, *tidy.output):
        message.ClearField("doc_string")
    _name_dimensions(tidy)
    opsets = [opset for opset in model.opset_import if opset.domain == ""]
    result = onnx.helper.make_model(tidy, opset_imports=opsets, ir_version=8, producer_name="capexport")
    onnx.checker.check_model(result, full_check=True)
    return result


def _walk(
    graph: onnx.GraphProto, outputs: list[str], renamed: dict[str, str]
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Nodes and weights in the order of a depth-first walk from the outputs; what nothing uses is left out."""
    makers = {output: node for node in graph.node for output in node.output}
    known = {tensor.name: tensor for tensor in graph.initializer}
    old_names = {new: old for old, new in renamed.items()}
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def visit(name: str) -> None:
        if name in known:
            weights.append(known.pop(name))
        if name in makers:
            node = makers.pop(name)
            for output in node.output:
                makers.pop(output, None)
            for source in node.input:
                visit(source)
            nodes.append(node)

    for output in outputs:
        visit(old_names[output])
    return nodes, weights


def _name_dimensions(graph: onnx.GraphProto) -> None:
    for value in (*graph.input, *graph.output):
        for axis, dimension in enumerate(value.type.tensor_type.shape.dim):
            if not dimension.HasField("dim_value"):
                dimension.dim_param = symbol(value.name, axis)
