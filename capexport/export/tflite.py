"""To TFLite, through TensorFlow's converter; other precisions than float through ai-edge-quantizer."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools import flatbuffer_utils
from ai_edge_quantizer import algorithm_manager, qtyping, quantizer
from numpy.typing import NDArray

from ..quiet import silenced_stderr
from ..recipes import Precision
from ..runtime.backend import Runner, Tensors
from .graphs import TFLITE as DIALECT
from .layers import Layer, Observation, Observer, Precisions, Ranges, layer_name
from .layers import as_it_is as write
from .layers import no_companions as companions
from .tflite_rounding import prepare

__all__ = ["DIALECT", "TOOLS", "companions", "export", "finish", "layers", "lower", "observe", "write"]

TOOLS = ("tensorflow", "ai-edge-litert", "ai-edge-quantizer")
KINDS = {
    qtyping.TFLOperationName.CONV_2D: "conv",
    qtyping.TFLOperationName.DEPTHWISE_CONV_2D: "depthwise",
    qtyping.TFLOperationName.FULLY_CONNECTED: "matmul",
}

HOMOGENEOUS = (schema.ActivationFunctionType.NONE, schema.ActivationFunctionType.RELU)


def export(module: tf.Module) -> bytes:
    """A module's `function` (concrete, with named inputs and a dict of outputs) as a TFLite model."""
    function, variables = module.function, tf.Module()
    variables.kept = function.graph.variables  # the module itself would be saved with each of its Keras layers
    with silenced_stderr():
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function], variables)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        return bytes(converter.convert())


def layers(model: bytes) -> list[Layer]:
    """The model's convolutions and products by constant weights, in the order in which they are computed."""
    graph = flatbuffer_utils.read_model_from_bytearray(bytearray(model)).subgraphs[0]
    return [_layer(graph.tensors, operator, kind) for operator, kind in _operators(model)]


def observe(model: bytes, outputs: Sequence[str], use: Callable[[Runner], object]) -> Observation:
    """Watch each layer's source and result while `use` runs the graph."""
    watched = {name for layer in layers(model) for name in (layer.source, layer.result)}
    with silenced_stderr():
        interpreter = Interpreter(model_content=model, experimental_preserve_all_tensors=True)
        runner = interpreter.get_signature_runner()
    observer = Observer()

    def observed(inputs: Mapping[str, NDArray[Any]]) -> Tensors:
        given: Tensors = {name: values.copy() for name, values in runner(**inputs).items() if name in outputs}
        for detail in interpreter.get_tensor_details():
            if detail["name"] in watched:
                values = interpreter.get_tensor(detail["index"])
                observer.see(detail["name"], values, -1, rows=len(next(iter(inputs.values()))))
        return given

    use(observed)
    return observer.observation()


def lower(model: bytes, precisions: Precisions, ranges: Ranges) -> bytes:
    """An exported model with its layers in these precisions."""
    if all(precision is Precision.FLOAT for precision in precisions.values()):
        return model
    renamed: Mapping[str, str] = {}
    extremes: Mapping[str, tuple[float, float]] = {}
    if Precision.STATIC in precisions.values():
        calibrated = [layer for layer in layers(model) if precisions.get(layer.node) is Precision.STATIC]
        model, renamed, extremes = prepare(model, calibrated, ranges)
    calibration = {name: {"min": np.array([low]), "max": np.array([high])} for name, (low, high) in extremes.items()}
    with silenced_stderr(), contextlib.redirect_stdout(io.StringIO()):
        quant = quantizer.Quantizer(model)
        for precision in set(precisions.values()):
            nodes = [renamed.get(node, node) for node, wanted in precisions.items() if wanted is precision]
            for operation in KINDS:
                _configure(quant, f"^({'|'.join(map(re.escape, nodes))});?$", operation, precision)
        return bytes(quant.quantize(calibration or None, enable_progress_report=False).quantized_model)


def finish(model: bytes) -> bytes:
    """The model without unused tensors and without TensorFlow's names, which count up with every model of a process."""
    content = flatbuffer_utils.read_model_from_bytearray(bytearray(model))
    for k, graph in enumerate(content.subgraphs):
        signatures = [signature for signature in content.signatureDefs if signature.subgraphIndex == k]
        _keep_used_tensors(graph, [entry for each in signatures for entry in (*each.inputs, *each.outputs)])
    _keep_used_buffers(content)
    _to_arrays(content)
    builder = _SharingBuilder()
    builder.Finish(content.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _keep_used_tensors(graph: Any, entries: Sequence[Any]) -> None:
    """Drop tensors that no operator knows and number the others, by which the signatures' entries name them, too."""
    operands = [operands for operator in graph.operators for operands in (operator.inputs, operator.outputs)]
    named = {*graph.inputs, *graph.outputs}
    used = sorted(named | {index for indices in operands for index in indices if index >= 0})
    numbers = {index: number for number, index in enumerate(used)} | {-1: -1}
    for operator in graph.operators:
        operator.inputs = [numbers[index] for index in operator.inputs]
        operator.outputs = [numbers[index] for index in operator.outputs]
        if operator.intermediates is not None:
            operator.intermediates = [numbers[index] for index in operator.intermediates]
    for entry in entries:
        entry.tensorIndex = numbers[entry.tensorIndex]
    for index in set(used) - named:
        graph.tensors[index].name = str(numbers[index])
    graph.tensors = [graph.tensors[index] for index in used]
    graph.inputs, graph.outputs = ([numbers[index] for index in side] for side in (graph.inputs, graph.outputs))


def _keep_used_buffers(content: Any) -> None:
    """Drop what no tensor and no metadata is stored in; buffer 0 stands for nothing, by the format."""
    holders = [tensor for graph in content.subgraphs for tensor in graph.tensors] + list(content.metadata or [])
    used = sorted({0, *(holder.buffer for holder in holders)})
    for holder in holders:
        holder.buffer = used.index(holder.buffer)
    content.buffers = [content.buffers[index] for index in used]


def _to_arrays(content: Any) -> None:
    """Make lists of numbers arrays, which the builder can share."""
    kinds = {
        "data": np.uint8,
        "scale": np.float32,
        "zeroPoint": np.int64,
        "shape": np.int32,
        "shapeSignature": np.int32,
    }
    tensors = [tensor for graph in content.subgraphs for tensor in graph.tensors]
    scales = [tensor.quantization for tensor in tensors if tensor.quantization is not None]
    for holder in (*content.buffers, *tensors, *scales):
        for name, kind in kinds.items():
            numbers = getattr(holder, name, None)
            if numbers is not None:
                setattr(holder, name, np.array(numbers, kind))


class _SharingBuilder(flatbuffers.Builder):
    """Writes weights at multiples of 16 bytes, as the schema asks and its Python code does not, and equal arrays once.

    Every channel of weights in int8 has a zero point of 8 bytes, always 0; written once for each length they are a
    tenth of what they would be.
    """

    def __init__(self) -> None:
        super().__init__()
        self._written: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: np.ndarray) -> int:  # noqa: N802
        key = x.dtype.str, x.tobytes()
        if key not in self._written:
            self.Prep(16, x.nbytes)
            self._written[key] = super().CreateNumpyVector(x)
        return self._written[key]


def _configure(quant: Any, nodes: str, operation: qtyping.TFLOperationName, precision: Precision) -> None:
    if precision is Precision.HALF:
        weights = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
        config = qtyping.OpQuantizationConfig(
            weight_tensor_config=weights,
            compute_precision=qtyping.ComputePrecision.FLOAT,
            explicit_dequantize=True,
        )
        casting = algorithm_manager.AlgorithmName.FLOAT_CASTING
        quant.update_quantization_recipe(nodes, operation, config, algorithm_key=casting)
    elif precision is Precision.STORED:
        quant.add_weight_only_config(nodes, operation, num_bits=8)
    elif precision is Precision.DYNAMIC:
        quant.add_dynamic_config(nodes, operation, num_bits=8)
    elif precision is Precision.STATIC:
        quant.add_static_config(nodes, operation, activation_num_bits=8, weight_num_bits=8)


def _operators(model: bytes) -> Iterator[tuple[Any, str]]:
    """The operators with constant weights, and their kind."""
    content = flatbuffer_utils.read_model_from_bytearray(bytearray(model))
    names = {f"{operation.value}": kind for operation, kind in KINDS.items()}
    for operator in content.subgraphs[0].operators:
        name = flatbuffer_utils.opcode_to_name(content, operator.opcodeIndex)
        weights = content.subgraphs[0].tensors[operator.inputs[1]] if name in names else None
        if weights is not None and content.buffers[weights.buffer].data is not None:
            yield operator, names[name]


def _layer(tensors: Any, operator: Any, kind: str) -> Layer:
    source, weights, result = (tensors[k] for k in (*operator.inputs[:2], operator.outputs[0]))
    name = result.name.decode()
    return Layer(
        name=layer_name(f"{name};{weights.name.decode()}"),
        kind=kind,
        node=name,
        source=source.name.decode(),
        result=name,
        weights=int(np.prod(weights.shape)),
        columns=int(weights.shape[-1 if kind == "depthwise" else 0]),
        homogeneous=operator.builtinOptions.fusedActivationFunction in HOMOGENEOUS,
    )
