"""Graphs' files, taken apart, changed and put together again."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


def edit_tflite(data: bytes, change: Callable[[Any], None]) -> bytes:
    """The file after a change of its ModelT (the object that TFLite's schema generates)."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    change(model)
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def edit_onnx(data: bytes, change: Callable[[Any], None]) -> bytes:
    """The file after a change of its ModelProto."""
    import onnx

    model = onnx.load_from_string(data)
    change(model)
    return model.SerializeToString()


def ort_graph(data: bytes | bytearray) -> Any:
    """The graph of a file in ORT's format, read in place."""
    importlib.import_module("onnxruntime.tools.ort_format_model")  # which makes the next one found
    from ort_flatbuffers_py.fbs import InferenceSession

    return InferenceSession.InferenceSession.GetRootAs(data, 0).Model().Graph()


def unknown_operator(model: Any) -> None:
    """Make the first operator of a ModelT one that no engine knows: the file is in order, but cannot be loaded."""
    model.operatorCodes[0].deprecatedBuiltinCode = 127
    model.operatorCodes[0].builtinCode = 399
