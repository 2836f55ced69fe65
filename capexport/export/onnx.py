"""To ONNX, through tf2onnx, with the contract's names and the same bytes every time."""

from __future__ import annotations

import gc
import logging

import onnx
import tensorflow as tf
import tf2onnx
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from ..errors import SourceError
from .graphs import ONNX as DIALECT
from .graphs import DecoderGraph, symbol
from .layers import as_it_is as write
from .layers import no_companions as companions
from .onnx_fused import fuse
from .onnx_layers import layers, lower, observe
from .onnx_layers import lower as mimic
from .onnx_simplify import drop_idle_reshapes, fuse_attention, fuse_hard_activations, fuse_layer_norms, fuse_rescaling

__all__ = ["DIALECT", "TOOLS", "companions", "export", "finish", "fuse", "layers", "lower", "mimic", "observe", "write"]

TOOLS = ("tensorflow", "tf2onnx", "onnx", "onnxruntime")
OPSET, IR_VERSION = 23, 11  # the first that have Attention
WRITTEN = 17  # the opset that tf2onnx writes; from 18 on it takes encoders' averages out of onnxruntime's layout


def export(module: tf.Module) -> bytes:
    """A module's `function` (concrete, with named inputs and a dict of outputs) as an ONNX model."""
    function = module.function
    frozen = convert_variables_to_constants_v2(function)
    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
    model, _ = tf2onnx.convert.from_graph_def(
        frozen.graph.as_graph_def(),
        input_names=[tensor.name for tensor in frozen.inputs],
        output_names=[tensor.name for tensor in frozen.outputs],
        opset=WRITTEN,
    )
    unknown = {node.op_type for node in model.graph.node if not onnx.defs.has(node.op_type, node.domain)}
    if unknown:
        raise SourceError(
            f"The captioner computes {', '.join(sorted(unknown))}, which tf2onnx cannot write in ONNX; convert it to "
            "tflite, or build its encoder of other layers."
        )
    model = onnx.version_converter.convert_version(model, OPSET)
    model.ir_version = IR_VERSION
    drop_idle_reshapes(model.graph)
    fuse_rescaling(model.graph)
    fuse_hard_activations(model.graph)
    if isinstance(module, DecoderGraph):
        fuse_layer_norms(model.graph)
        fuse_attention(model.graph)
    names = {tensor.name: tensor.name.split(":")[0] for tensor in frozen.inputs}
    names |= {t.name: name for t, name in zip(frozen.outputs, sorted(function.structured_outputs), strict=True)}
    _rename(model.graph, names)
    gc.collect()  # tf2onnx leaves cycles that hold 0.8 GB
    return bytes(model.SerializeToString())


def finish(model: bytes) -> bytes:
    """The model in an order and with names that do not depend on the process that made it."""
    loaded = onnx.load_from_string(model)
    graph = loaded.graph
    names = {value.name: value.name for value in (*graph.input, *graph.output)}
    nodes, weights = _walk(graph)
    for i, weight in enumerate(weights):
        names[weight.name] = f"weight_{i}"
    for i, node in enumerate(nodes):
        node.name = f"{node.op_type}_{i}"
        for k, output in enumerate(node.output):
            names.setdefault(output, f"{node.name}_{k}" if output else "")
    outputs = sorted(graph.output, key=lambda value: value.name)
    tidy = onnx.helper.make_graph(nodes, "capexport", graph.input, outputs, initializer=weights)
    _rename(tidy, names)
    for message in (*tidy.node, *tidy.initializer, *tidy.input, *tidy.output):
        message.ClearField("doc_string")
    _name_dimensions(tidy)
    domains = {node.domain for node in tidy.node}
    opsets = [opset for opset in loaded.opset_import if opset.domain in domains]
    result = onnx.helper.make_model(tidy, opset_imports=opsets, ir_version=loaded.ir_version, producer_name="capexport")
    onnx.checker.check_model(result, full_check=True)
    return bytes(result.SerializeToString(deterministic=True))


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """Give tensors new names wherever they are named; those without a new one keep theirs."""
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = names.get(value.name, value.name)


def _walk(graph: onnx.GraphProto) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Nodes and weights in the order of a depth-first walk from the outputs; what nothing uses is left out."""
    makers = {output: node for node in graph.node for output in node.output}
    known = {tensor.name: tensor for tensor in graph.initializer}
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

    for output in sorted(value.name for value in graph.output):
        visit(output)
    return nodes, weights


def _name_dimensions(graph: onnx.GraphProto) -> None:
    for value in (*graph.input, *graph.output):
        for axis, dimension in enumerate(value.type.tensor_type.shape.dim):
            if not dimension.HasField("dim_value"):
                dimension.dim_param = symbol(value.name, axis)
