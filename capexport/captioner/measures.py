"""A captioner's measures, read off its weights, whoever's classes they are."""

from __future__ import annotations

import math
from typing import Any

from ..errors import SourceError
from ..manifest import Shape
from .weights import OUTPUT_KERNEL, TOKENS, decoder_arrays, output_bias, part

HALF = {"float16", "bfloat16"}


def measure(captioner: Any) -> Shape:
    """The captioner's measures; raises SourceError if it is not the tutorial's model, or not ready to be used."""
    _check_precision(captioner)
    shapes = {name: array.shape for name, array in decoder_arrays(captioner).items()}
    feature_map = _fixed_shape(captioner, "output_shape")
    units, heads, key_dim = _sizes(shapes, "decoder_layers.0.self_attention.mha.query.kernel", 3)
    shape = Shape(
        layers=len(captioner.decoder_layers),
        heads=heads,
        key_dim=key_dim,
        units=units,
        vocabulary=_sizes(shapes, TOKENS, 2)[0],
        max_length=_sizes(shapes, "seq_embedding.pos_embedding.embeddings", 2)[0],
        feature_map=feature_map[:2],
    )
    for name, expected in _expected_shapes(shape, feature_map[2], shapes).items():
        if shapes.get(name) != expected:
            raise SourceError(
                f"The captioner's {name} should have the shape {expected}, but "
                + (f"it has {shapes[name]}." if name in shapes else "there is none.")
            )
    words, biases = len(part(captioner, "tokenizer.get_vocabulary")()), len(output_bias(captioner))
    if not words == biases == shape.vocabulary:
        raise SourceError(
            f"The captioner's tokenizer has {words} words and output_layer.bias {biases}, "
            f"but seq_embedding was made for {shape.vocabulary}."
        )
    return shape


def image_size(captioner: Any) -> tuple[int, int]:
    """(height, width) of the photos the feature extractor takes; raises SourceError if it takes any size."""
    height, width, _ = _fixed_shape(captioner, "input_shape")
    return height, width


def multiplications(model: Any) -> int:
    """By kernels, for one photo, of a Keras model of layers with static output shapes (None, height, width, C)."""
    total = 0
    for layer in model.layers:
        if hasattr(layer, "layers"):
            total += multiplications(layer)
        else:
            kernels = (variable for variable in layer.weights if variable.name.split(":")[0].endswith("kernel"))
            places = sum(math.prod(shape[1:-1]) for shape in _output_shapes(model, layer))
            total += sum(math.prod(kernel.shape) for kernel in kernels) * places
    return total


def _output_shapes(model: Any, layer: Any) -> list[tuple[int, ...]]:
    """One for each time that the model uses the layer, which other models may use, too."""
    own = {id(node) for nodes in getattr(model, "_nodes_by_depth", {}).values() for node in nodes}
    uses = [k for k, node in enumerate(layer.inbound_nodes) if id(node) in own]
    return [layer.get_output_shape_at(k) for k in uses] if own else [layer.output_shape]


def _check_precision(captioner: Any) -> None:
    """Raise SourceError for layers that compute in half precision, as under Keras' policy mixed_float16."""
    parts = ("feature_extractor", "seq_embedding", "decoder_layers.0", "output_layer")
    for name, model in ((name, part(captioner, name)) for name in parts):
        if not HALF.isdisjoint(
            getattr(layer, "compute_dtype", "") for layer in (model, *getattr(model, "submodules", ()))
        ):
            raise SourceError(
                f"The captioner's {name} computes in half precision: build it again under the policy float32, and give "
                "it the weights of this one with set_weights."
            )


def _fixed_shape(captioner: Any, side: str) -> tuple[int, int, int]:
    """(height, width, channels) of the feature extractor's input_shape or output_shape."""
    shape = part(captioner, f"feature_extractor.{side}")
    if not (isinstance(shape, tuple) and len(shape) == 4 and None not in shape[1:]):
        raise SourceError(
            f"The captioner's feature_extractor has the {side} {shape}; (None, height, width, channels) is expected, "
            "so build it with a fixed input_shape."
        )
    return shape[1:]


def _sizes(shapes: dict[str, tuple[int, ...]], name: str, rank: int) -> tuple[int, ...]:
    shape = shapes.get(name, ())
    if len(shape) != rank:
        raise SourceError(f"The captioner's {name} has the shape {shape}; {rank} dimensions are expected.")
    return shape


def _expected_shapes(shape: Shape, channels: int, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The shape of every variable of the decoder; the width of a feed-forward block is its own affair."""
    units, heads = shape.units, (shape.heads, shape.key_dim)
    expected: dict[str, tuple[int, ...]] = {
        TOKENS: (shape.vocabulary, units),
        "seq_embedding.pos_embedding.embeddings": (shape.max_length, units),
        OUTPUT_KERNEL: (units, shape.vocabulary),
        "output_layer.dense.bias": (shape.vocabulary,),
    }
    for i in range(shape.layers):
        layer = f"decoder_layers.{i}"
        for block, source in (("self_attention", units), ("cross_attention", channels)):
            for projection, size in (("query", units), ("key", source), ("value", source)):
                expected[f"{layer}.{block}.mha.{projection}.kernel"] = (size, *heads)
                expected[f"{layer}.{block}.mha.{projection}.bias"] = heads
            expected[f"{layer}.{block}.mha.attention_output.kernel"] = (*heads, units)
            expected[f"{layer}.{block}.mha.attention_output.bias"] = (units,)
        hidden = _sizes(shapes, f"{layer}.ff.first.kernel", 2)[1]
        expected[f"{layer}.ff.first.kernel"], expected[f"{layer}.ff.first.bias"] = (units, hidden), (hidden,)
        expected[f"{layer}.ff.second.kernel"], expected[f"{layer}.ff.second.bias"] = (hidden, units), (units,)
        for block in ("self_attention", "cross_attention", "ff"):
            for vector in ("gamma", "beta"):
                expected[f"{layer}.{block}.norm.{vector}"] = (units,)
    return expected
