"""Layers of an ONNX graph in other precisions, in the forms that onnxruntime computes as they are meant."""

from __future__ import annotations

from collections.abc import Sequence
from graphlib import TopologicalSorter
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ..recipes import Precision
from .compensation import LEVELS
from .layers import Layer, Observation, Rounding
from .onnx_simplify import readers

CONTRIB = "com.microsoft"  # the domain of onnxruntime's own operators
BLOCKS = (256, 128)  # of MatMulNBits: the larger the faster, where no input is left over; error hardly depends on it
OFFSET = 128  # of MatMulNBits' levels, which are above zero


def pointwise(node: onnx.NodeProto, weights: Sequence[int]) -> bool:
    """Whether a layer with weights of this shape is a convolution, and a product of each place's channels."""
    others = {attribute.name: list(attribute.ints) or [attribute.i] for attribute in node.attribute}
    steps = {*others.get("strides", ()), *others.get("group", ())}
    return node.op_type == "Conv" and tuple(weights[2:]) == (1, 1) and steps <= {1} and not any(others.get("pads", ()))


class Rewriting:
    """Changes layers of a graph in place, one after the other.

    What is made of weights has the name of the node that reads it: others may read the same weights.
    """

    def __init__(self, graph: onnx.GraphProto, observation: Observation) -> None:
        self._graph = graph
        self._ranges, self._correlations = observation.ranges, observation.correlations
        self._nodes = {node.name: node for node in graph.node}
        self._weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self._rounded: set[str] = set()  # sources of calibrated layers

    def lower(self, layer: Layer, precision: Precision) -> None:
        node = self._nodes[layer.node]
        embedding = self._tied(node)
        if precision is Precision.HALF:
            node.input[1] = self._half(node)
        elif precision is Precision.DYNAMIC and layer.kind == "matmul":
            self._multiply_in_int8(layer, node)
        elif precision is Precision.STATIC and layer.kind == "matmul":
            self._calibrated(layer, node)
        elif precision is Precision.STATIC and pointwise(node, self._weights[node.input[1]].shape):
            self._multiply_calibrated(layer, node)
        elif precision is not Precision.FLOAT:
            node.input[1] = self._stored(layer, node)
        if embedding is not None:
            self._embed(embedding, node)

    def sort(self) -> None:
        """Bring the nodes into an order in which they can be computed."""
        nodes = list(self._graph.node)
        makers = {name: k for k, node in enumerate(nodes) for name in node.output}
        before = {k: [makers[name] for name in node.input if name in makers] for k, node in enumerate(nodes)}
        del self._graph.node[:]
        self._graph.node.extend(nodes[k] for k in TopologicalSorter(before).static_order())

    def _tied(self, product: onnx.NodeProto) -> onnx.NodeProto | None:
        """The node, if there is one, that takes rows of a table that is the product's weights (U, V), transposed."""
        weights = self._weights[product.input[1]]
        for node in self._graph.node:
            table = self._weights.get(node.input[0]) if node.op_type == "Gather" else None
            if table is not None and table.shape == weights.shape[::-1] and np.array_equal(table, weights.T):
                return node
        return None

    def _embed(self, embedding: onnx.NodeProto, product: onnx.NodeProto) -> None:
        """Make the embedding (B, U) of the product's weights as they are stored now, so that there is no table."""
        [rows], tokens = embedding.output, embedding.input[1]
        self._graph.node.remove(embedding)
        if product.op_type == "MatMulNBits":
            self._unpack(product, tokens, rows)
        else:
            self._node("Transpose", [self._columns(product.input[1], tokens)], rows, perm=[1, 0])

    def _columns(self, name: str, tokens: str) -> str:
        """These columns of what is constant: it, or what nodes make of constants that have as many columns, or one."""
        makers = [node for node in self._graph.node if name in node.output]
        if not makers:
            return self._node("Gather", [name, tokens], f"{name}_columns", axis=1)
        copy = onnx.NodeProto()
        copy.CopyFrom(makers[0])
        copy.name = f"{name}_columns"
        copy.input[:] = [self._columns(source, tokens) for source in makers[0].input]
        copy.output[:] = [copy.name]
        self._graph.node.append(copy)
        return copy.name

    def _unpack(self, product: onnx.NodeProto, tokens: str, rows: str) -> None:
        """Rows of what MatMulNBits multiplies by: levels (V, blocks, inputs), the scales of blocks (V, blocks)."""
        _, levels, scales = product.input
        inner = next(attribute.i for attribute in product.attribute if attribute.name == "K")
        axes, shape, start, end, offset = self._constants(
            rows,
            axes=np.array([2]),
            shape=np.array([0, -1]),
            start=np.array([0]),
            end=np.array([inner]),
            offset=np.array(OFFSET, np.float32),
        )
        found = [self._node("Gather", [name, tokens], f"{rows}_{name}") for name in (levels, scales)]
        whole = self._node("Cast", [found[0]], to=onnx.TensorProto.FLOAT)
        centred = self._node("Sub", [whole, offset])
        blocks = self._node("Mul", [centred, self._node("Unsqueeze", [found[1], axes])])
        padded = self._node("Reshape", [blocks, shape])
        self._node("Slice", [padded, start, end, self._constants(rows, last=np.array([1]))[0]], rows)

    def _half(self, node: onnx.NodeProto) -> str:
        """Weights in half precision, which engines make float once, when they load the graph."""
        limit = np.finfo(np.float16).max
        half = np.clip(self._weights[node.input[1]], -limit, limit).astype(np.float16)
        return self._node("Cast", self._constants(node.name, half=half), to=onnx.TensorProto.FLOAT)

    def _stored(self, layer: Layer, node: onnx.NodeProto) -> str:
        """Weights in int8, which engines make float once, when they load the graph."""
        levels, scales = self._int8(layer, self._weights[node.input[1]])
        stored, scale = self._constants(node.name, int8=levels, scales=scales)
        return self._node("Mul", [self._node("Cast", [stored], to=onnx.TensorProto.FLOAT), scale])

    def _multiply_in_int8(self, layer: Layer, node: onnx.NodeProto) -> None:
        """A product by weight (K, N) with a scale per column and block of K, as onnxruntime's MatMulNBits wants it."""
        weight = self._weights[node.input[1]]
        inner, outer = weight.shape
        block = next((size for size in BLOCKS if inner % size == 0), BLOCKS[-1])
        blocks = -(-inner // block)
        padded = np.zeros((outer, blocks * block), np.float32)
        padded[:, :inner] = weight.T
        largest = np.abs(padded).reshape(outer, blocks, block).max(axis=2)
        scales = (np.maximum(largest, 1e-12) / LEVELS).astype(np.float32)  # (N, blocks)
        rows, steps = np.ascontiguousarray(weight.T), np.repeat(scales, block, axis=1)[:, :inner]
        padded[:, :inner] = self._correlations.levels(layer.node, rows, steps)
        unsigned = (padded + OFFSET).astype(np.uint8).reshape(outer, blocks, block)
        constants = self._constants(node.name, uint8=unsigned, scales=scales)
        node.CopyFrom(
            onnx.helper.make_node(
                "MatMulNBits",
                [node.input[0], *constants],
                node.output,
                name=node.name,
                domain=CONTRIB,
                K=inner,
                N=outer,
                bits=8,
                block_size=block,
                accuracy_level=4,  # multiply in int8
            )
        )

    def _multiply_calibrated(self, layer: Layer, node: onnx.NodeProto) -> None:
        """A pointwise convolution as a product, its weights and source rounded to levels; its result is not.

        onnxruntime multiplies the levels, more than twice as fast as it convolves in float, and gives floats at once.
        """
        name, scales = node.name, Rounding.of(layer, self._ranges).source
        rows = self._channels_last(layer, np.float32(1) / scales)  # (B, h, w, C)
        rounded = self._round(rows, f"{name}_rows", self._ranges[layer.source].extremes(scales))
        levels, steps = self._int8(layer, self._weights[node.input[1]] * scales.reshape(-1, 1, 1), scales)
        matrix = np.ascontiguousarray(levels.reshape(levels.shape[:2]).T)  # (C, columns)
        parts = self._constants(name, int8=matrix, scales=steps.ravel(), zeros=np.zeros(len(levels), np.int8))
        product = self._node("MatMul", [rounded, self._node("DequantizeLinear", parts, axis=1)], f"{name}_product")
        if len(node.input) > 2:
            product = self._node("Add", [product, node.input[2]], f"{name}_biased")
        self._graph.node.remove(node)
        self._turn_back(product, node.output[0])

    def _turn_back(self, rows: str, name: str) -> None:
        """Give maps (B, h, w, C) under this name, as (B, C, h, w); or their sum with others, if there is no other use.

        These others are turned for it: onnxruntime turns them, and the sum, along with what it does to them anyway.
        """
        reading = readers(self._graph, name)
        others = [other for node in reading for other in node.input if other != name]
        given = {*self._weights, *(value.name for value in self._graph.output)}
        if [node.op_type for node in reading] == ["Add"] and len(others) == 1 and not given & {name, *others}:
            [residual], [turned] = reading, self._turned(others, reading[0].name)
            self._graph.node.remove(residual)
            rows, name = self._node("Add", [turned, rows], f"{residual.name}_rows"), residual.output[0]
        self._node("Transpose", [rows], name, perm=[0, 3, 1, 2])

    def _turned(self, maps: Sequence[str], prefix: str) -> list[str]:
        """Maps (B, C, h, w) as (B, h, w, C)."""
        return [self._node("Transpose", [name], f"{prefix}_{name}", perm=[0, 2, 3, 1]) for name in maps]

    def _channels_last(self, layer: Layer, factors: NDArray[np.float32]) -> str:
        """The layer's source (B, C, h, w) as (B, h, w, C), its channels multiplied by factors.

        If it is a product itself, as of squeeze-excite's gate, its parts are turned around and the gate is multiplied,
        which takes less time: onnxruntime turns what comes out of a convolution without a further copy.
        """
        products = [node for node in self._graph.node if layer.source in node.output and node.op_type == "Mul"]
        gated = bool(products) and not self._weights.keys() & {*products[0].input}
        *others, last = products[0].input if gated else [layer.source]
        turned = self._turned([*others, last], layer.node)
        turned[-1] = self._node("Mul", [turned[-1], *self._constants(layer.node, factors=factors)])
        return self._node("Mul", turned, f"{layer.node}_gated") if gated else turned[0]

    def _calibrated(self, layer: Layer, node: onnx.NodeProto) -> None:
        """A product's weights and activations rounded to levels, a form that onnxruntime computes in integers."""
        rounding = Rounding.of(layer, self._ranges)
        weights = self._weights[node.input[1]] * rounding.source[:, np.newaxis] / rounding.result
        levels, scales = self._int8(layer, weights, rounding.source)
        node.input[0] = self._rounded_source(layer, rounding.source)
        parts = self._constants(node.name, int8=levels, scales=scales.ravel(), zeros=np.zeros(scales.size, np.int8))
        node.input[1] = self._node("DequantizeLinear", parts, axis=1)
        self._round_result(layer, rounding.result)

    def _int8(
        self, layer: Layer, weights: NDArray[np.float32], divisors: NDArray[np.float32] | None = None
    ) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        """The weights' levels, and a scale per output channel in a shape by which both can be multiplied."""
        channels = np.moveaxis(weights, _channels(layer), 0)
        rows = np.ascontiguousarray(channels.reshape(len(channels), -1))
        scales = (np.maximum(np.abs(rows).max(axis=1), 1e-12) / LEVELS).astype(np.float32)
        levels = self._correlations.levels(layer.node, rows, scales[:, np.newaxis], divisors)
        others = tuple(axis for axis in range(weights.ndim) if axis != _channels(layer))
        levels = np.moveaxis(levels.reshape(channels.shape), 0, _channels(layer))
        return levels.astype(np.int8), np.expand_dims(scales, others)

    def _rounded_source(self, layer: Layer, scales: NDArray[np.float32]) -> str:
        """The layer's source divided by its channels' scales and rounded, once for all layers that read it so."""
        name = f"{layer.source}_for_products"
        if name not in self._rounded:
            inverse = self._constants(name, inverse=np.float32(1) / scales)
            divided = self._node("Mul", [layer.source, *inverse])
            self._round(divided, name, self._ranges[layer.source].extremes(scales))
            self._rounded.add(name)
        return name

    def _round_result(self, layer: Layer, scales: NDArray[np.float32]) -> None:
        """Round the layer's result, which is divided by the scales, and multiply it for all that read it."""
        name = layer.result
        [maker] = [node for node in self._graph.node if name in node.output]
        maker.output[:] = [f"{name}_divided" if output == name else output for output in maker.output]
        extremes = self._ranges[name].extremes(scales)
        if np.all(scales == 1):
            self._round(f"{name}_divided", name, extremes)
            return
        rounded = self._round(f"{name}_divided", f"{name}_rounded", extremes)
        self._node("Mul", [rounded, *self._constants(name, scales=scales)], name)

    def _round(self, source: str, result: str, extremes: tuple[float, float]) -> str:
        step, zero = _steps(extremes)
        scale = self._constants(result, step=step, zero=zero)
        levels = self._node("QuantizeLinear", [source, *scale])
        return self._node("DequantizeLinear", [levels, *scale], result)

    def _node(self, kind: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        output = output or f"{inputs[0]}_{kind}"
        self._graph.node.append(onnx.helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def _constants(self, name: str, **arrays: NDArray[Any]) -> list[str]:
        named = {f"{name}_{suffix}": array for suffix, array in arrays.items()}
        self._graph.initializer.extend(onnx.numpy_helper.from_array(array, key) for key, array in named.items())
        return list(named)


def _channels(layer: Layer) -> int:
    """The axis of the output channels: a product's weights are (in, out), a convolution's (out, in, height, width)."""
    return 1 if layer.kind == "matmul" else 0


def _steps(extremes: tuple[float, float]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """The step between levels of an activation (uint8), and the level of 0."""
    low, high = extremes
    step = np.float32((high - low) / 255)
    return np.array(step), np.array(np.clip(np.round(-low / step), 0, 255), np.uint8)
