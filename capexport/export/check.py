"""The split held against the live model, before anything is exported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ..errors import SourceError
from ..parity.vectors import ParityVector
from ..runtime.backend import GraphBackend, Runner
from .graphs import ONNX, DecoderGraph, EncoderGraph, describe


def check_split(captioner: Any, start: int, references: Sequence[ParityVector]) -> None:
    """Raise SourceError if the split's logits are not the references': some layer is not the tutorial's.

    Attributes alone do not tell what a live model's layers do with their weights; this does.
    """
    encoder, decoder = EncoderGraph(captioner), DecoderGraph(captioner, ONNX)
    backend = GraphBackend(describe(decoder, "decoder"), _runner(encoder.function), _runner(decoder.function))
    for reference in references:
        features, cache = backend.encode(reference.pixels[np.newaxis]), backend.empty_cache(batch=1)
        for position, token in enumerate([start, *reference.tokens[:-1]]):
            step = backend.step(np.array([token], np.int32), position, features, cache)
            cache = step.cache
            if not np.allclose(step.logits[0], reference.logits[position], rtol=1e-3, atol=1e-2):
                raise SourceError(
                    "The captioner has the tutorial's attributes, but its layers compute something else: "
                    "its own logits are not those of its weights in the tutorial's layers."
                )


def _runner(function: Any) -> Runner:
    names = [spec.name for spec in function.structured_input_signature[0]]

    def run(inputs: Any) -> dict[str, np.ndarray]:
        return {key: out.numpy() for key, out in function(*(tf.constant(inputs[name]) for name in names)).items()}

    return run
