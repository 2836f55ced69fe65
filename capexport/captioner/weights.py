"""A captioner's weights by name, read from the tutorial's attributes, whoever's classes they are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from ..errors import SourceError

TOKENS, OUTPUT_KERNEL = "seq_embedding.token_embedding.embeddings", "output_layer.dense.kernel"
OUTPUT_BIAS = "output_layer.bias"  # a plain array in the tutorial, not a variable


def part(captioner: Any, path: str) -> Any:
    """What a captioner holds at a dotted path of the tutorial's attributes, e.g. "decoder_layers.0.ff.seq".

    Raises SourceError naming the first attribute on the way that is missing.
    """
    found, names = captioner, path.split(".")
    for count, name in enumerate(names, start=1):
        try:
            found = found[int(name)] if name.isdecimal() else getattr(found, name)
        except (AttributeError, IndexError, TypeError):
            raise SourceError(f"This is not the tutorial's captioner: it has no {'.'.join(names[:count])}.") from None
    return found


def decoder_variables(captioner: Any) -> dict[str, tf.Variable]:
    """The decoder's variables under stable names; raises SourceError naming the attribute that is missing."""
    named: dict[str, tf.Variable] = {}

    def collect(name: str, layer: Any, depth: int = 1) -> None:
        if not isinstance(layer, tf_keras.layers.Layer):
            raise SourceError(f"The captioner's {name} is no layer of tf_keras; Keras 3 has other ones.")
        if not layer.weights:
            raise SourceError(f"The captioner's {name} has no weights yet: call the model once first.")
        named.update({f"{name}.{_tail(variable.name, depth)}": variable for variable in layer.weights})

    for name in ("seq_embedding.token_embedding", "seq_embedding.pos_embedding"):
        collect(name, part(captioner, name))
    for i in layer_indices(captioner):
        for block in ("self_attention", "cross_attention"):
            name = f"decoder_layers.{i}.{block}"
            collect(f"{name}.mha", part(captioner, f"{name}.mha"), depth=2)
            collect(f"{name}.norm", part(captioner, f"{name}.layernorm"))
        name = f"decoder_layers.{i}.ff"
        for place, layer in zip(("first", "second"), feed_forward(captioner, i), strict=True):
            collect(f"{name}.{place}", layer)
        collect(f"{name}.norm", part(captioner, f"{name}.layernorm"))
    collect("output_layer.dense", part(captioner, "output_layer.dense"))
    return named


def decoder_arrays(captioner: Any) -> dict[str, np.ndarray]:
    """The decoder's weights under the same names, those of the logits also where embeddings are tied."""
    arrays = {name: variable.numpy() for name, variable in decoder_variables(captioner).items()}
    return {OUTPUT_KERNEL: arrays[TOKENS].T, **arrays}


def tied(captioner: Any) -> bool:
    """Whether the words' vectors are the weights of their logits, too."""
    return OUTPUT_KERNEL not in decoder_variables(captioner)


def layer_indices(captioner: Any) -> range:
    """0 up to the number of decoder layers, of which there is at least one."""
    part(captioner, "decoder_layers.0")
    return range(len(captioner.decoder_layers))


def feed_forward(captioner: Any, i: int) -> tuple[Any, Any]:
    """The two dense layers of decoder layer i's feed-forward block; raises SourceError for another number."""
    path = f"decoder_layers.{i}.ff.seq.layers"
    dense = [layer for layer in part(captioner, path) if layer.weights]
    if len(dense) != 2:
        raise SourceError(f"The captioner's {path} has {len(dense)} layers with weights; two are expected.")
    return dense[0], dense[1]


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
    bias = part(captioner, "output_layer.bias")
    if bias is None:
        raise SourceError("The captioner's output_layer has no bias yet: call its adapt() first.")
    return np.asarray(bias, np.float32)


def _tail(name: str, depth: int) -> str:
    return ".".join(name.split(":")[0].split("/")[-depth:])
