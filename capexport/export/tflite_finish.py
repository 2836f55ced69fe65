"""The finishing of TFLite models: small, and the same bytes every time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert.tools import flatbuffer_utils


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
