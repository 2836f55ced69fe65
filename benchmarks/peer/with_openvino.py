"""OpenVINO, under capexport's own decoding loop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import openvino
from numpy.typing import NDArray

import capexport
from capexport.manifest import Graph
from capexport.runtime.backend import GraphBackend, Runner, Tensors

from .base import Task
from .with_capexport import Capexport


class OpenVino(Capexport):
    """The ONNX graphs of the fp32 bundle, compiled by OpenVINO for latency."""

    def __init__(self) -> None:
        super().__init__("onnx-fp32")

    def load(self, folder: Path, threads: int) -> None:
        directory = Path(Task.read(folder).bundles) / self._name
        bundle = capexport.read_bundle(directory)
        core = openvino.Core()
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",  # where a processor has bf16, that is its choice otherwise
        }

        def opened(name: str) -> tuple[Graph, Runner]:
            graph = bundle.manifest.graphs[name]
            compiled = core.compile_model(core.read_model(directory / graph.file), "CPU", settings)
            return graph, runner(compiled, [tensor.name for tensor in graph.outputs])

        (_, encode), (graph, decode) = opened("encoder"), opened("decoder")
        self.use(bundle, GraphBackend(graph, encode, decode))


def runner(compiled: Any, outputs: list[str]) -> Runner:
    """A compiled model as the runtime wants a graph: inputs by name to outputs by name."""
    request = compiled.create_infer_request()

    def run(inputs: Mapping[str, NDArray[Any]]) -> Tensors:
        given = request.infer(dict(inputs), share_inputs=True)
        return {name: given[name] for name in outputs}

    return run
