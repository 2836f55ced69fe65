"""ONNX graphs under onnxruntime."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError, OptionError
from ..onnxruntime_setup import onnxruntime
from ..plain import shortened
from ..quiet import silenced_stderr
from .backend import Declared, Runner, Tensors

PARALLEL = True  # a graph may run in several threads at once
DECODED = 16  # photos together
KEPT = ("cross_", "next_")  # outputs that only the next step reads
DTYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8", "tensor(int32)": "int32"}  # those of captioners
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
PROVIDER_OPTIONS = {
    "cuda": {
        "use_tf32": "0",  # TensorFloat-32 keeps 10 bits of what it multiplies
        "cudnn_conv_algo_search": "HEURISTIC",  # else all algorithms are tried first on each number of photos
    }
}
PROBE = bytes.fromhex(  # a graph: y = Abs(x)
    "08083a320a0b0a017812017922034162731201675a0f0a0178120a0a08080112040a020801620f0a0179"
    "120a0a08080112040a02080142040a00100d"
)


@functools.cache
def check_device(device: str) -> None:
    """Raise OptionError unless this onnxruntime was built with the device, one of PROVIDERS, and finds it here."""
    if PROVIDERS[device] not in onnxruntime.get_available_providers():
        raise OptionError(
            f"onnxruntime has no {device} here; for an NVIDIA GPU with CUDA install capexport[gpu] instead of "
            "capexport[onnx]."
        )
    with silenced_stderr(), contextlib.redirect_stdout(io.StringIO()):  # both loaders say at length what is missing
        onnxruntime.preload_dlls()  # CUDA and cuDNN from their Python packages, which no system's loader finds
        found = _session(PROBE, 1, device).get_providers()  # it falls back to the CPU without a word
    if PROVIDERS[device] not in found:
        raise OptionError(
            f"onnxruntime finds no {device} device that works here: that takes an NVIDIA GPU with its driver, and CUDA "
            "and cuDNN as capexport[gpu] installs them."
        )


def _session(model: bytes, threads: int | None, device: str) -> Any:
    # Its fallback would print to standard output, and load once more what it has just refused.
    providers = [(PROVIDERS[device], PROVIDER_OPTIONS.get(device, {}))]
    return onnxruntime.InferenceSession(model, session_options(threads), providers=providers, enable_fallback=0)


def session_options(threads: int | None) -> Any:
    """The engine's options for a graph; None leaves the threads to it."""
    options = onnxruntime.SessionOptions()
    if not _multiplies_exactly():
        options.add_session_config_entry("session.x64quantprecision", "1")
    options.log_severity_level = 4  # its log has names of nodes as they are; what goes wrong it raises, too
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


def _multiplies_exactly() -> bool:
    """Whether the processor is known to have AVX-512's dot products of int8.

    On x64 processors without, sums of int8 products saturate at 16 bits, unless onnxruntime takes its other way, by
    which those with are a twentieth slower.
    """
    found = np.show_config(mode="dicts").get("SIMD Extensions", {}).get("found", [])
    return "AVX512_ICL" in found


class Model:
    """A file of one graph: see backend.Model."""

    def __init__(self, model: bytes, threads: int | None, what: str, device: str = "cpu") -> None:
        self._what, self._device = what, device
        try:
            self._session = _session(model, threads, device)
        except Exception as error:  # the engine's exceptions have no common base of their own
            raise BundleError(f"onnxruntime cannot load {what}: {shortened(error)}.") from error

    def runner(self, outputs: Sequence[str], signature: str | None = None) -> Runner:
        """A runner of the graph, which has no signature."""
        names = list(outputs)
        missing = {*names} - {output.name for output in self._session.get_outputs()}
        if missing or signature:
            raise BundleError(
                f"The graph of {self._what} gives no {signature or min(missing)}: it is another than the manifest "
                "describes."
            )

        def on_cpu(inputs: Mapping[str, NDArray[Any]]) -> Tensors:
            return dict(zip(names, self._session.run(names, dict(inputs)), strict=True))

        compute = on_cpu if self._device == "cpu" else bound(self._session, names, self._device)

        def run(inputs: Mapping[str, NDArray[Any]]) -> Tensors:
            try:
                return compute(inputs)
            except Exception as error:  # as above
                raise BundleError(f"onnxruntime cannot run {self._what}: {shortened(error)}.") from error

        return run

    def declared(self, signature: str | None = None) -> tuple[Declared, Declared]:
        """What goes into the graph and what comes out."""
        return _declared(self._session.get_inputs()), _declared(self._session.get_outputs())


def _declared(arguments: Sequence[Any]) -> Declared:
    return {
        one.name: (DTYPES.get(one.type, one.type), tuple(n if isinstance(n, int) else None for n in one.shape))
        for one in arguments
    }


class OnDevice:
    """A tensor that stays in a device's memory until rows of it are asked for, as of an array."""

    def __init__(self, value: Any) -> None:
        self.value = value  # an OrtValue

    def __len__(self) -> int:
        return int(self.value.shape()[0])

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.value.shape())

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        taken: NDArray[Any] = self.value.numpy()[rows]
        return taken


def bound(session: Any, outputs: Sequence[str], device: str) -> Runner:
    """A runner whose tensors for the next step alone never leave the device."""

    def run(inputs: Mapping[str, Any]) -> Tensors:
        binding = session.io_binding()
        for name, values in inputs.items():
            if isinstance(values, OnDevice):
                binding.bind_ortvalue_input(name, values.value)
            else:
                binding.bind_cpu_input(name, values)
        for name in outputs:
            binding.bind_output(name, device if name.startswith(KEPT) else "cpu")
        session.run_with_iobinding(binding)
        values = dict(zip(outputs, binding.get_outputs(), strict=True))
        return {
            name: cast("NDArray[Any]", OnDevice(value)) if name.startswith(KEPT) else value.numpy()
            for name, value in values.items()
        }

    return run
