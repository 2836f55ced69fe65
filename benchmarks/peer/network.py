"""The captioner's weights for frameworks in which its model is written anew: MobileNetV3Small and the decoder.

Batch norms are folded into the convolutions before them, as every engine does that knows the graph beforehand.

C channels, U units, H heads, D key dim, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[np.float32]]
BACKBONE = "MobileNetV3Small"
STRIDES = (2, 2, 1, 2, 1, 1, 1, 1, 2, 1, 1)  # of its blocks (Howard et al., 2019, table 2)
RELU_BLOCKS = 3  # the first of them have ReLU, the others hard-swish
BLOCKS = tuple(f"expanded_conv_{i}" if i else "expanded_conv" for i in range(len(STRIDES)))


@dataclass(frozen=True)
class Network:
    """The weights by name, and what is not a weight.

    Convolutions are `{layer}.kernel` (height, width, in, out; a depthwise one (height, width, 1, C)) and
    `{layer}.bias`. The decoder's arrays have the names of capexport.captioner.weights, but that self-attention has one
    `qkv` for its three projections, cross-attention one `kv` for its two, that `query` is scaled by 1/sqrt(D), that
    projections are matrices, and that `output.bias` is the sum of both biases of the logits.
    """

    arrays: Arrays
    rescaled: bool  # the encoder brings pixels to -1..1
    layers: int
    heads: int
    epsilon: float

    @classmethod
    def read(cls, folder: Path) -> Network:
        with np.load(folder / "network.npz") as stored:
            arrays = dict(stored)
        rescaled, layers, heads = (int(arrays.pop(name)) for name in ("rescaled", "layers", "heads"))
        return cls(arrays, bool(rescaled), layers, heads, float(arrays.pop("epsilon")))


def save_network(captioner: Any, path: Path) -> None:
    """Write network.npz; raises SourceError for another backbone than MobileNetV3Small."""
    from capexport.captioner.measures import measure
    from capexport.errors import SourceError

    if captioner.config.backbone != BACKBONE:
        raise SourceError(
            f"The model is written for {BACKBONE}; this captioner's encoder is {captioner.config.backbone}."
        )
    shape = measure(captioner)
    described = {
        "rescaled": captioner.config.include_preprocessing,
        "layers": shape.layers,
        "heads": shape.heads,
        "epsilon": captioner.decoder_layers[0].ff.layernorm.epsilon,
    }
    np.savez(path, **_convolutions(captioner.feature_extractor), **_decoder(captioner), **described)


def _convolutions(extractor: Any) -> Arrays:
    found: Arrays = {}
    norms = {layer.name: layer for layer in extractor.layers if layer.name.endswith("/BatchNorm")}
    for layer in extractor.layers:
        if layer.name in norms or not layer.weights:
            continue
        kernel, *bias = layer.get_weights()
        if layer.name.endswith("/depthwise"):
            kernel = kernel.transpose(0, 1, 3, 2)  # (height, width, 1, C)
        if norm := norms.get(f"{layer.name}/BatchNorm"):
            gamma, beta, mean, variance = norm.get_weights()
            scale = gamma / np.sqrt(variance + norm.epsilon)
            kernel, bias = kernel * scale, [beta - mean * scale]
        found |= {f"{layer.name}.kernel": kernel, f"{layer.name}.bias": bias[0]}
    return found


def _decoder(captioner: Any) -> Arrays:
    from capexport.captioner.measures import measure
    from capexport.captioner.weights import decoder_arrays, output_bias

    shape = measure(captioner)
    given = decoder_arrays(captioner)

    def projection(name: str, kinds: tuple[str, ...]) -> Arrays:
        kernels, biases = [], []
        for kind in kinds:
            scale = np.float32(1 / np.sqrt(shape.key_dim) if kind == "query" else 1)
            kernel = given[f"{name}.{kind}.kernel"]
            kernels.append(kernel.reshape(len(kernel), -1) * scale)
            biases.append(given[f"{name}.{kind}.bias"].reshape(-1) * scale)
        return {"kernel": np.concatenate(kernels, axis=1), "bias": np.concatenate(biases)}

    found = {
        "tokens": given["seq_embedding.token_embedding.embeddings"],  # (V, U)
        "positions": given["seq_embedding.pos_embedding.embeddings"],
        "output.kernel": given["output_layer.dense.kernel"],
        "output.bias": given["output_layer.dense.bias"] + output_bias(captioner),
    }
    for i in range(shape.layers):
        layer = f"decoder_layers.{i}"
        joined = {
            "self.qkv": projection(f"{layer}.self_attention.mha", ("query", "key", "value")),
            "cross.query": projection(f"{layer}.cross_attention.mha", ("query",)),
            "cross.kv": projection(f"{layer}.cross_attention.mha", ("key", "value")),
        }
        for block, name in (("self", "self_attention"), ("cross", "cross_attention")):
            kernel = given[f"{layer}.{name}.mha.attention_output.kernel"]  # (H, D, U)
            bias = given[f"{layer}.{name}.mha.attention_output.bias"]
            joined[f"{block}.output"] = {"kernel": kernel.reshape(-1, kernel.shape[-1]), "bias": bias}
            joined[f"{block}.norm"] = {part: given[f"{layer}.{name}.norm.{part}"] for part in ("gamma", "beta")}
        for place in ("first", "second"):
            joined[f"ff.{place}"] = {part: given[f"{layer}.ff.{place}.{part}"] for part in ("kernel", "bias")}
        joined["ff.norm"] = {part: given[f"{layer}.ff.norm.{part}"] for part in ("gamma", "beta")}
        found |= {f"{i}.{name}.{part}": array for name, parts in joined.items() for part, array in parts.items()}
    return found
