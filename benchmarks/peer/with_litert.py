"""LiteRT, with graphs that are not capexport's; it resizes its tensors as the prefix grows."""

from __future__ import annotations

from pathlib import Path

from ai_edge_litert.interpreter import Interpreter

from capexport.quiet import silenced_stderr

from . import without_cache


class _Opens:
    suffix = ".tflite"

    @staticmethod
    def open(path: Path, threads: int) -> without_cache.Run:
        with silenced_stderr():
            interpreter = Interpreter(model_path=str(path), num_threads=threads)
            call = interpreter.get_signature_runner()
        [output] = call.get_output_details()
        return lambda inputs: call(**inputs)[output]


class Whole(_Opens, without_cache.Whole):
    """The captioner as one graph."""


class Split(_Opens, without_cache.Split):
    """The encoder and the decoder."""
