"""To ONNX, through tf2onnx, with the contract's names and the same bytes every time."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from .graphs import symbol

OPSET = 17
CONTRIB = "com.microsoft"  # the domain of onnxruntime's own operators
BLOCK = 64  # of MatMulNBits; error and speed hardly depend on it, small blocks are larger files

Rewritten = tuple[list[onnx.NodeProto], dict[str, np.ndarray]]  # nodes and their new constants


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


def quantize_onnx(model: bytes, name: str) -> bytes:
    """Matrix products with constant weights in int8, as suits the graph "encoder" or "decoder".

    The decoder's are multiplied in int8: activations are quantised as they come, in blocks of each row, so that a
    row's result does not depend on its neighbours in the batch (as it does after DynamicQuantizeLinear, whose one
    scale is the whole tensor's). The encoder's are made float when the graph is loaded: it has 49 rows a photo, too
    many for int8 to pay without dot-product instructions.
    """
    loaded = onnx.load_from_string(model)
    products = {"encoder": _stored_in_int8, "decoder": _multiplied_in_int8}[name]
    graph = loaded.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in weights:
            weight = onnx.numpy_helper.to_array(weights[node.input[1]])
            made, constants = products(node, weight)
            nodes += made
            graph.initializer.extend(onnx.numpy_helper.from_array(array, key) for key, array in constants.items())
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    loaded.opset_import.append(onnx.helper.make_opsetid(CONTRIB, 1))
    return _canonical(loaded, {}).SerializeToString(deterministic=True)


def _stored_in_int8(product: onnx.NodeProto, weight: np.ndarray) -> Rewritten:
    """A product by weight (K, N) with a scale per column; engines fold the conversion when they load the graph."""
    scales = np.maximum(np.abs(weight).max(axis=0), 1e-12) / 127  # (N,)
    name = product.input[1]
    constants = {f"{name}_int8": np.round(weight / scales).astype(np.int8), f"{name}_scales": scales.astype(np.float32)}
    nodes = [
        onnx.helper.make_node("Cast", [f"{name}_int8"], [f"{name}_cast"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("Mul", [f"{name}_cast", f"{name}_scales"], [f"{name}_float"]),
        onnx.helper.make_node("MatMul", [product.input[0], f"{name}_float"], product.output),
    ]
    return nodes, constants


def _multiplied_in_int8(product: onnx.NodeProto, weight: np.ndarray) -> Rewritten:
    """A product by weight (K, N) with a scale per column and block of K, as onnxruntime's MatMulNBits wants it."""
    inner, outer = weight.shape
    blocks = -(-inner // BLOCK)
    padded = np.zeros((blocks * BLOCK, outer), np.float32)
    padded[:inner] = weight
    grouped = padded.T.reshape(outer, blocks, BLOCK)
    scales = np.maximum(np.abs(grouped).max(axis=2), 1e-12) / 127  # (N, blocks)
    levels = np.round(grouped / scales[..., np.newaxis]) + 128  # unsigned, zero at 128
    name = product.input[1]
    constants = {f"{name}_uint8": levels.astype(np.uint8), f"{name}_scales": scales.astype(np.float32)}
    node = onnx.helper.make_node(
        "MatMulNBits",
        [product.input[0], *constants],
        product.output,
        domain=CONTRIB,
        K=inner,
        N=outer,
        bits=8,
        block_size=BLOCK,
        accuracy_level=4,  # multiply in int8
    )
    return [node], constants


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
    domains = {node.domain for node in tidy.node}
    opsets = [opset for opset in model.opset_import if opset.domain in domains]
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
