"""Layers of a TFLite model made ready for the quantizer: see layers.Rounding and compensation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils
from numpy.typing import NDArray

from ..recipes import INT8, Precision
from .compensation import LEVELS, Correlations
from .layers import Layer, Observation, Precisions, Rounding, least_scales

AXES = {("matmul", "in"): (1, -1), ("matmul", "out"): (-1, 1), ("conv", "in"): (-1,), ("conv", "out"): (-1, 1, 1, 1)}


def prepare(
    model: bytes, layers: Sequence[Layer], precisions: Precisions, observation: Observation
) -> tuple[bytes, Mapping[str, str], Mapping[str, tuple[float, float]]]:
    """Bring int8 weights to their levels, and divide what goes into and comes out of STATIC layers by its scales.

    Returns the model, the STATIC layers' new nodes by their old ones, and the extremes of activations to be rounded.
    """
    preparing = _Preparing(model, observation.correlations)
    extremes: dict[str, tuple[float, float]] = {}
    nodes: dict[str, str] = {}
    for layer in layers:
        precision = precisions.get(layer.node, Precision.FLOAT)
        if precision is Precision.STATIC:
            rounding = Rounding.of(layer, observation.ranges)
            before = observation.ranges[layer.source].extremes(rounding.source)
            source, result = preparing.divide(layer, rounding, step=(before[1] - before[0]) / 255)
            extremes[source] = before
            extremes[result] = observation.ranges[layer.result].extremes(rounding.result)
            nodes[layer.node] = result
        elif precision in INT8:
            preparing.bring_to_levels(layer)
    return preparing.model(), nodes, extremes


def rounded(model: bytes, layers: Sequence[Layer], precisions: Precisions, correlations: Correlations) -> bytes:
    """The model in float, with the weights of HALF and STORED layers as they are after rounding.

    They are written over those that are there, which takes a hundredth of the time that the quantizer takes.
    """
    content = bytearray(model)
    weights = _weights_by_node(content)
    for layer in layers:
        precision = precisions.get(layer.node, Precision.FLOAT)
        if precision is Precision.HALF:
            weights[layer.node][:] = weights[layer.node].astype(np.float16)
        elif precision is Precision.STORED:
            weights[layer.node][:] = on_levels(layer, weights[layer.node], correlations)
    return bytes(content)


def _weights_by_node(content: bytearray) -> Mapping[str, NDArray[np.float32]]:
    """The second operands of a model's operators, where they lie in it."""
    model = schema.Model.GetRootAs(content, 0)
    graph = model.Subgraphs(0)
    found = {}
    for k in range(graph.OperatorsLength()):
        operator = graph.Operators(k)
        if operator.InputsLength() > 1:
            kept = graph.Tensors(operator.Inputs(1))
            buffer = model.Buffers(kept.Buffer())
            if kept.Type() == schema.TensorType.FLOAT32 and buffer.DataLength():
                name = graph.Tensors(operator.Outputs(0)).Name().decode()
                found[name] = buffer.DataAsNumpy().view(np.float32).reshape(kept.ShapeAsNumpy())
    return found


def on_levels(
    layer: Layer,
    weights: NDArray[np.float32],
    correlations: Correlations,
    divisors: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """The weights brought to int8 levels, a scale per output channel, as of Correlations.levels."""
    rows, shape = _rows(layer, weights)
    scales = (np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-12) / LEVELS).astype(np.float32)
    return _of_rows(layer, correlations.levels(layer.node, rows, scales, divisors) * scales, shape)


class _Preparing:
    """Changes layers of a model in place, one after the other."""

    def __init__(self, model: bytes, correlations: Correlations) -> None:
        self._correlations = correlations
        self._content = flatbuffer_utils.read_model_from_bytearray(bytearray(model))
        self._graph = self._content.subgraphs[0]
        self._tensors = {tensor.name.decode(): k for k, tensor in enumerate(self._graph.tensors)}
        self._operators = {self._graph.tensors[op.outputs[0]].name.decode(): op for op in self._graph.operators}
        self._multiply = self._opcode(schema.BuiltinOperator.MUL)

    def model(self) -> bytes:
        return bytes(flatbuffer_utils.convert_object_to_bytearray(self._content))

    def bring_to_levels(self, layer: Layer) -> None:
        """The quantizer finds the same scales again, and has nothing left to round."""
        operator = self._operators[layer.node]
        weights = self._array(operator.inputs[1])
        array = on_levels(layer, weights, self._correlations)
        operator.inputs[1] = self._constant(f"{layer.result}/weights", array)
        if layer.kind == "matmul":
            self._tie(weights, array)

    def _tie(self, weights: NDArray[np.float32], rounded: NDArray[np.float32]) -> None:
        """Give a table of embeddings that has the weights' nearest levels those that they got, to be stored once."""
        scales = np.maximum(np.abs(weights).max(axis=1, keepdims=True), 1e-12) / LEVELS
        nearest, levels = (np.round(each / scales).astype(np.int8) for each in (weights, rounded))
        for tensor in self._graph.tensors:
            if tensor.type == schema.TensorType.INT8 and tuple(tensor.shape) == weights.shape:
                buffer = self._content.buffers[tensor.buffer]
                if buffer.data is not None and bytes(buffer.data) == nearest.tobytes():
                    buffer.data = np.frombuffer(levels.tobytes(), np.uint8)

    def divide(self, layer: Layer, rounding: Rounding, step: float) -> tuple[str, str]:
        """The names of the activations before and after the layer that are to be rounded.

        step  between two levels of the activation before it
        """
        operator = self._operators[layer.node]
        source, weights, result = operator.inputs[0], operator.inputs[1], operator.outputs[0]
        divided = f"{layer.source}/for_{layer.kind}"
        if divided not in self._tensors:
            inverse = self._constant(f"{divided}/scales", 1 / rounding.source)
            self._insert(operator, source, inverse, self._like(source, divided))
        operator.inputs[0] = self._tensors[divided]
        array = self._array(weights) * _along(layer, "in", rounding.source) / _along(layer, "out", rounding.result)
        if len(operator.inputs) > 2 and operator.inputs[2] >= 0:
            bias = self._array(operator.inputs[2]) / rounding.result
            operator.inputs[2] = self._constant(f"{layer.result}/bias", bias)
            array = _raised(layer, array, least_scales(bias, step))
        array = on_levels(layer, array, self._correlations, rounding.source)
        operator.inputs[1] = self._constant(f"{layer.result}/weights", array)
        if np.all(rounding.result == 1):
            return divided, layer.result
        operator.outputs[0] = self._like(result, f"{layer.result}/divided")
        scales = self._constant(f"{layer.result}/scales", rounding.result)
        self._insert(operator, operator.outputs[0], scales, result, after=True)
        return divided, f"{layer.result}/divided"

    def _insert(self, beside: Any, tensor: int, factors: int, product: int, after: bool = False) -> None:
        multiply = schema.OperatorT()
        multiply.opcodeIndex = self._multiply
        multiply.inputs, multiply.outputs = [tensor, factors], [product]
        multiply.builtinOptionsType, multiply.builtinOptions = schema.BuiltinOptions.MulOptions, schema.MulOptionsT()
        place = next(k for k, operator in enumerate(self._graph.operators) if operator is beside)
        self._graph.operators.insert(place + after, multiply)

    def _like(self, tensor: int, name: str) -> int:
        """A new activation of another's shape."""
        model = self._graph.tensors[tensor]
        made = schema.TensorT()
        made.shape, made.shapeSignature, made.type, made.buffer = model.shape, model.shapeSignature, model.type, 0
        return self._add(made, name)

    def _constant(self, name: str, array: NDArray[np.floating[Any]]) -> int:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(array, np.float32).tobytes(), np.uint8)
        self._content.buffers.append(buffer)
        made = schema.TensorT()
        made.shape, made.type = list(array.shape), schema.TensorType.FLOAT32
        made.buffer = len(self._content.buffers) - 1
        return self._add(made, name)

    def _add(self, tensor: Any, name: str) -> int:
        tensor.name = name.encode()
        self._graph.tensors.append(tensor)
        self._tensors[name] = len(self._graph.tensors) - 1
        return self._tensors[name]

    def _array(self, tensor: int) -> NDArray[np.float32]:
        kept = self._graph.tensors[tensor]
        return np.frombuffer(bytes(self._content.buffers[kept.buffer].data), np.float32).reshape(kept.shape)

    def _opcode(self, builtin: int) -> int:
        for k, known in enumerate(self._content.operatorCodes):
            if max(known.builtinCode, known.deprecatedBuiltinCode) == builtin:
                return k
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = builtin
        code.version = 1
        self._content.operatorCodes.append(code)
        return len(self._content.operatorCodes) - 1


def _along(layer: Layer, side: str, scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scales of channels in or out, in a shape by which the weights can be multiplied; depthwise they are the last."""
    several = layer.columns // len(scales) if layer.kind == "depthwise" else 1  # kernels of a channel in
    return scales.repeat(several).reshape(AXES.get((layer.kind, side), (-1,)))


def _raised(layer: Layer, weights: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """The weights, one of each channel raised to the largest level of the channel's least scale.

    The quantizer makes the scale of a channel's largest weight. What is raised adds at most 3e-5 of the bias.
    """
    rows, shape = _rows(layer, weights)
    least = scales * LEVELS
    tiny = np.abs(rows).max(axis=1) < least
    rows[tiny, 0] = least[tiny]
    return _of_rows(layer, rows, shape)


def _rows(layer: Layer, weights: NDArray[np.float32]) -> tuple[NDArray[np.float32], tuple[int, ...]]:
    """The weights of each output channel, and the shape that they have together."""
    channels = np.moveaxis(weights, _channels(layer), 0)
    return channels.reshape(len(channels), -1).copy(), channels.shape


def _of_rows(layer: Layer, rows: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.moveaxis(rows.reshape(shape), 0, _channels(layer))


def _channels(layer: Layer) -> int:
    """The axis of the output channels."""
    return -1 if layer.kind == "depthwise" else 0
