"""To onnxruntime's own format, which its reduced builds for phones load: ONNX graphs, optimised and written by it."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from flatbuffers import encode, packer
from onnx import GraphProto, load_from_string, numpy_helper

from ..onnxruntime_setup import onnxruntime

# isort: split
from onnxruntime.tools.ort_format_model import create_config_from_models

from . import onnx
from .onnx import DIALECT, export, finish, fuse, layers, lower, mimic, observe

__all__ = ["DIALECT", "TOOLS", "companions", "export", "finish", "fuse", "layers", "lower", "mimic", "observe", "write"]

TOOLS = onnx.TOOLS
OPERATORS = "required_operators.config"
ALIGNMENT = 8  # of flatbuffers with numbers of 64 bits, from whose ends the rest is counted


def write(model: bytes) -> bytes:
    """The model as an ORT file for any processor: with what onnxruntime fuses, but no layout of one kind of processor.

    Stored weights are not folded into floats, which would undo their storing.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(Path(folder) / "graph.ort")
        options.add_session_config_entry("session.save_model_format", "ORT")
        onnxruntime.InferenceSession(
            _unsigned(model), options, providers=["CPUExecutionProvider"], disabled_optimizers=["ConstantFolding"]
        )
        return _in_order(Path(options.optimized_model_filepath).read_bytes())


def _unsigned(model: bytes) -> bytes:
    """The model with the weights of products in integers as uint8, the same numbers with 128 for zero.

    On x64 processors without dot products of int8, sums of products by int8 saturate at 16 bits; what has onnxruntime
    do without for ONNX graphs has no effect on those that it has arranged already.
    """
    loaded = load_from_string(model)
    _raise_weights(loaded.graph)
    return bytes(loaded.SerializeToString())


def _raise_weights(graph: GraphProto) -> None:
    """Make a graph's stored int8 weights uint8 in place, and those of the graphs within it, as of a loop."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            for name in (node.input[0], node.input[2]):
                levels = numpy_helper.to_array(constants[name])
                if levels.dtype == np.int8:
                    raised = (levels.astype(np.int16) + 128).astype(np.uint8)
                    constants[name].CopyFrom(numpy_helper.from_array(raised, name))
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _raise_weights(attribute.g)


def companions(graphs: Mapping[str, bytes]) -> dict[str, bytes]:
    """The list of operators that a build of onnxruntime needs for these graphs (--include_ops_by_config)."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{name}.ort" for name in graphs]
        for path, graph in zip(paths, graphs.values(), strict=True):
            path.write_bytes(graph)
        config = Path(folder) / OPERATORS
        logging.getLogger("ort_format_model.utils").setLevel(logging.WARNING)
        create_config_from_models(paths, config, enable_type_reduction=False)
        lines = [line for line in config.read_text().splitlines() if not line.startswith("#")]
    return {OPERATORS: "".join(f"{line}\n" for line in lines).encode()}


def _in_order(data: bytes) -> bytes:
    """The same ORT file with its list of kernels in a fixed order: onnxruntime writes it in a hash table's.

    That list and the root are what the file begins with. They are written anew, and the root is pointed to the model,
    which stays as it is, behind them.
    """
    from ort_flatbuffers_py.fbs import InferenceSession  # found once onnxruntime's tools are imported

    session = InferenceSession.InferenceSession.GetRootAs(data, 0)
    table = session.Model()._tab
    model = min(table.Pos, table.Pos - encode.Get(packer.soffset, data, table.Pos))  # where its vtable or it begins
    begin = model - model % ALIGNMENT
    builder = flatbuffers.Builder()
    version, kernels = builder.CreateString(session.OrtVersion()), _kernels(builder, session.KernelTypeStrResolver())
    builder.StartObject(0)
    stand_in = builder.EndObject()
    InferenceSession.Start(builder)
    InferenceSession.AddOrtVersion(builder, version)
    InferenceSession.AddModel(builder, stand_in)
    InferenceSession.AddKernelTypeStrResolver(builder, kernels)
    builder.Finish(InferenceSession.End(builder), file_identifier=b"ORTM")
    head = bytes(builder.Output())
    head += bytes(-len(head) % ALIGNMENT)
    root = InferenceSession.InferenceSession.GetRootAs(head, 0)._tab
    pointer = root.Pos + root.Offset(6)
    to_model = len(head) + table.Pos - begin - pointer
    head = head[:pointer] + to_model.to_bytes(4, "little") + head[pointer + 4 :]
    return head + bytes(model - begin) + data[model:]


def _kernels(builder: flatbuffers.Builder, resolver: Any) -> int:
    """Write a list of kernels, sorted by operator, and of each operator's types, sorted by name."""
    from ort_flatbuffers_py.fbs import (
        ArgTypeAndIndex,
        KernelTypeStrArgsEntry,
        KernelTypeStrResolver,
        OpIdKernelTypeStrArgsEntry,
    )

    def argument(one: Any) -> int:
        ArgTypeAndIndex.Start(builder)
        ArgTypeAndIndex.AddArgType(builder, one.ArgType())
        ArgTypeAndIndex.AddIndex(builder, one.Index())
        return int(ArgTypeAndIndex.End(builder))

    def kind(one: Any) -> int:
        arguments = _vector(builder, [argument(one.Args(k)) for k in range(one.ArgsLength())])
        name = builder.CreateString(one.KernelTypeStr())
        KernelTypeStrArgsEntry.Start(builder)
        KernelTypeStrArgsEntry.AddKernelTypeStr(builder, name)
        KernelTypeStrArgsEntry.AddArgs(builder, arguments)
        return int(KernelTypeStrArgsEntry.End(builder))

    def operator(one: Any) -> int:
        kinds = [one.KernelTypeStrArgs(k) for k in range(one.KernelTypeStrArgsLength())]
        written = _vector(builder, [kind(each) for each in sorted(kinds, key=lambda each: each.KernelTypeStr())])
        name = builder.CreateString(one.OpId())
        OpIdKernelTypeStrArgsEntry.Start(builder)
        OpIdKernelTypeStrArgsEntry.AddOpId(builder, name)
        OpIdKernelTypeStrArgsEntry.AddKernelTypeStrArgs(builder, written)
        return int(OpIdKernelTypeStrArgsEntry.End(builder))

    operators = [resolver.OpKernelTypeStrArgs(k) for k in range(resolver.OpKernelTypeStrArgsLength())]
    entries = _vector(builder, [operator(one) for one in sorted(operators, key=lambda one: one.OpId())])
    KernelTypeStrResolver.Start(builder)
    KernelTypeStrResolver.AddOpKernelTypeStrArgs(builder, entries)
    return int(KernelTypeStrResolver.End(builder))


def _vector(builder: flatbuffers.Builder, offsets: list[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())
