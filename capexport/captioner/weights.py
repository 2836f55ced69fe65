"""A captioner's weights by name, read from the tutorial's attributes, whoever's classes they are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from ..errors import SourceError

OUTPUT_BIAS = "output_layer.bias"  # a plain array in the tutorial, not a variable


def decoder_variables(captioner: Any) -> dict[str, tf.Variable]:
    """The decoder's variables under stable names; raises SourceError naming the attribute that is missing."""
    try:
        named = {
            **_variables("seq_embedding.token_embedding", captioner.seq_embedding.token_embedding),
            **_variables("seq_embedding.pos_embedding", captioner.seq_embedding.pos_embedding),
        }
        for i, layer in enumerate(captioner.decoder_layers):
            for attention in ("self_attention", "cross_attention"):
                block, name = getattr(layer, attention), f"decoder_layers.{i}.{attention}"
                named |= _variables(f"{name}.mha", block.mha, depth=2) | _variables(f"{name}.norm", block.layernorm)
            first, second = [sub for sub in layer.ff.seq.layers if sub.weights]
            name = f"decoder_layers.{i}.ff"
            named |= _variables(f"{name}.first", first) | _variables(f"{name}.second", second)
            named |= _variables(f"{name}.norm", layer.ff.layernorm)
        return named | _variables("output_layer.dense", captioner.output_layer.dense)
    except AttributeError as error:
        raise SourceError(f"This is not the tutorial's captioner: {error}.") from error
    except ValueError as error:
        raise SourceError(f"This is not the tutorial's feed-forward block: {error}.") from error


def encoder_variables(feature_extractor: Any) -> dict[str, tf.Variable]:
    """The encoder's variables; numbered, since Keras counts layers' names up with every model it builds."""
    return {
        f"feature_extractor.{i:03d}.{variable.name.split('/')[-1].split(':')[0]}": variable
        for i, variable in enumerate(feature_extractor.weights)
    }


def fingerprint(variables: Mapping[str, tf.Variable], *others: bytes) -> str:
    """A hash (sha256, hexadecimal) of variables, by name, and of whatever else makes the difference."""
    digest = hashlib.sha256()
    for name, variable in sorted(variables.items()):
        digest.update(name.encode() + variable.numpy().tobytes())
    for other in others:
        digest.update(other)
    return digest.hexdigest()


def output_bias(captioner: Any) -> np.ndarray:
    """The bias of each token's logit (V,) float32; raises SourceError before adapt()."""
    bias = getattr(captioner.output_layer, "bias", None)
    if bias is None:
        raise SourceError("The captioner's output_layer has no bias yet: call its adapt() first.")
    return np.asarray(bias, np.float32)


def _variables(name: str, layer: Any, depth: int = 1) -> dict[str, tf.Variable]:
    if not layer.weights:
        raise SourceError(f"The captioner's {name} has no weights yet: call the model once first.")
    return {f"{name}.{_tail(variable.name, depth)}": variable for variable in layer.weights}


def _tail(name: str, depth: int) -> str:
    return ".".join(name.split(":")[0].split("/")[-depth:])
