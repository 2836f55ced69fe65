"""capexport's graphs, but for cross-attention: with keys and values, projected once a photo, or anew at every step.

N image positions, C channels.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import tensorflow as tf

from capexport.export import onnx
from capexport.export.cross_attention import CrossAttention
from capexport.export.graphs import DecoderGraph, EncoderGraph
from capexport.manifest import FEATURES


class Anew(DecoderGraph):
    """One step that takes features (B, N, C) and projects them."""

    def __init__(self, captioner: Any) -> None:
        super().__init__(captioner, onnx.DIALECT, folded=True)

    @cached_property
    def function(self) -> Any:
        """The graph as a concrete function."""
        given = super().function.structured_input_signature[0]
        self._cross = CrossAttention(self._weights, self._shape, folded=False)

        def step(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
            named = dict(zip([spec.name for spec in given], tensors, strict=True))
            return self._step(named | self._cross.remember(named[FEATURES]))

        return tf.function(step, autograph=False).get_concrete_function(*given)


def export_features(captioner: Any, path: Path) -> None:
    """Write the encoder that gives features, as ONNX."""
    _write(EncoderGraph(captioner, folded=True), path)


def export_anew(captioner: Any, path: Path) -> None:
    """Write the decoder that projects them at every step, as ONNX."""
    _write(Anew(captioner), path)


def export_projections(captioner: Any, path: Path) -> None:
    """Write the encoder that gives keys and values, as ONNX."""
    _write(EncoderGraph(captioner, folded=False), path)


def export_attending(captioner: Any, path: Path) -> None:
    """Write the decoder that takes them, as ONNX."""
    _write(DecoderGraph(captioner, onnx.DIALECT, folded=False), path)


def _write(module: tf.Module, path: Path) -> None:
    path.write_bytes(onnx.finish(onnx.export(module)))
