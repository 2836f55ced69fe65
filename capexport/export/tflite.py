"""To TFLite, through TensorFlow's converter; other precisions than float through ai-edge-quantizer."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from functools import lru_cache
from typing import Any

import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools import flatbuffer_utils
from ai_edge_quantizer import algorithm_manager, qtyping, quantizer
from numpy.typing import NDArray
from tensorflow.lite.python.convert_phase import ConverterError

from ..errors import SourceError
from ..plain import shortened
from ..quiet import silenced_stderr
from ..recipes import INT8, Precision
from ..runtime.backend import Runner, Tensors
from .graphs import TFLITE as DIALECT
from .layers import KNOWN, Layer, Observation, Observer, Precisions, layer_name
from .layers import as_it_is as write
from .layers import no_companions as companions
from .tflite_finish import finish
from .tflite_fused import fuse
from .tflite_rounding import prepare, rounded

__all__ = ["DIALECT", "TOOLS", "companions", "export", "finish", "fuse", "layers", "lower", "mimic", "observe", "write"]

TOOLS = ("tensorflow", "ai-edge-litert", "ai-edge-quantizer")
KINDS = {
    qtyping.TFLOperationName.CONV_2D: "conv",
    qtyping.TFLOperationName.DEPTHWISE_CONV_2D: "depthwise",
    qtyping.TFLOperationName.FULLY_CONNECTED: "matmul",
}

IN_FLOAT = {Precision.FLOAT, Precision.HALF, Precision.STORED}  # of what layers compute in
HOMOGENEOUS = (schema.ActivationFunctionType.NONE, schema.ActivationFunctionType.RELU)


def export(module: tf.Module) -> bytes:
    """A module's `function` (concrete, with named inputs and a dict of outputs) as a TFLite model.

    Its caches, if it has any, have so many `places` unless the program asks for others.
    """
    function, variables = module.function, tf.Module()
    variables.kept = function.graph.variables  # the module itself would be saved with each of its Keras layers
    with silenced_stderr():
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function], variables)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        try:
            model = bytes(converter.convert())
        except ConverterError as error:
            raise SourceError(
                "TFLite cannot say what the captioner computes; convert it to onnx, or build its encoder of other "
                f"layers: {shortened(error)}."
            ) from error
    content = flatbuffer_utils.read_model_from_bytearray(bytearray(model))
    _part_weights(content)
    if module.places is not None:
        _give_places(content, module.places)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(content))


def _part_weights(content: Any) -> None:
    """Give each use of a layer weights of its own, which may differ in precision; `finish` stores equal ones once."""
    tensors, seen = content.subgraphs[0].tensors, set()
    for operator, _ in _operators(content):
        weights = tensors[operator.inputs[1]]
        if weights.buffer in seen:
            own = copy(weights)
            own.name = tensors[operator.outputs[0]].name + b";" + weights.name
            own.buffer = len(content.buffers)
            content.buffers.append(copy(content.buffers[weights.buffer]))
            operator.inputs[1] = len(tensors)
            tensors.append(own)
        seen.add(weights.buffer)


def _give_places(content: Any, places: int) -> None:
    """Give caches so many places, for programs that ask for no other number."""
    [graph] = content.subgraphs
    for cache in (graph.tensors[number] for number in graph.inputs):
        if cache.shapeSignature is not None and -1 in cache.shapeSignature[1:]:
            shape = [*cache.shape[:1], *(places if n == -1 else n for n in cache.shapeSignature[1:])]
            for tensor in graph.tensors:
                if tensor.shapeSignature is not None and list(tensor.shapeSignature) == list(cache.shapeSignature):
                    tensor.shape = shape


@lru_cache(KNOWN)
def layers(model: bytes) -> Sequence[Layer]:
    """The model's convolutions and products by constant weights, in the order in which they are computed."""
    content = flatbuffer_utils.read_model_from_bytearray(bytearray(model))
    return tuple(_layer(content.subgraphs[0].tensors, operator, kind) for operator, kind in _operators(content))


def observe(model: bytes, outputs: Sequence[str], use: Callable[[Runner], object]) -> Observation:
    """Watch each layer's source and result while `use` runs the graph."""
    seen = layers(model)
    watched = {name for layer in seen for name in (layer.source, layer.result)}
    with silenced_stderr():
        interpreter = Interpreter(model_content=model, experimental_preserve_all_tensors=True)
        runner = interpreter.get_signature_runner()
    observer = Observer()

    def observed(inputs: Mapping[str, NDArray[Any]]) -> Tensors:
        given: Tensors = {name: values.copy() for name, values in runner(**inputs).items() if name in outputs}
        details = interpreter.get_tensor_details()
        values = {each["name"]: interpreter.get_tensor(each["index"]) for each in details if each["name"] in watched}
        for name, activation in values.items():
            observer.see(name, activation, -1, rows=len(next(iter(inputs.values()))))
        for layer in seen:
            observer.correlate(layer, values[layer.source])
        return given

    use(observed)
    return observer.observation()


def lower(model: bytes, precisions: Precisions, observation: Observation) -> bytes:
    """An exported model with its layers in these precisions."""
    if all(precision is Precision.FLOAT for precision in precisions.values()):
        return model
    renamed: Mapping[str, str] = {}
    extremes: Mapping[str, tuple[float, float]] = {}
    if INT8.intersection(precisions.values()):
        model, renamed, extremes = prepare(model, layers(model), precisions, observation)
    calibration = {name: {"min": np.array([low]), "max": np.array([high])} for name, (low, high) in extremes.items()}
    said = io.StringIO()
    with silenced_stderr(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        quant = quantizer.Quantizer(model)
        for precision in set(precisions.values()):
            nodes = [renamed.get(node, node) for node, wanted in precisions.items() if wanted is precision]
            for operation in KINDS:
                _configure(quant, f"^({'|'.join(map(re.escape, nodes))});?$", operation, precision)
        return bytes(quant.quantize(calibration or None, enable_progress_report=False).quantized_model)


def mimic(model: bytes, precisions: Precisions, observation: Observation) -> bytes:
    """A model that computes what the lowered one does."""
    if IN_FLOAT.issuperset(precisions.values()):
        return rounded(model, layers(model), precisions, observation.correlations)
    return lower(model, precisions, observation)


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


def _operators(content: Any) -> Iterator[tuple[Any, str]]:
    """The operators with constant weights, and their kind."""
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
