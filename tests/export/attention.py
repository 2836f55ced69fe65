"""Attention layers of a decoder with weights at random, and Keras' own with the same ones."""

import numpy as np

KINDS = ("query", "key", "value", "attention_output")


def made(shape, channels, seed, block):
    """Weights of a block, cross_attention or self_attention, of all layers, under their names."""
    rng, heads = np.random.default_rng(seed), (shape.heads, shape.key_dim)
    sizes = {"query": (shape.units, *heads), "key": (channels, *heads), "value": (channels, *heads)}
    weights = {}
    for i in range(shape.layers):
        name = f"decoder_layers.{i}.{block}.mha"
        for kind, size in sizes.items():
            weights[f"{name}.{kind}.kernel"] = rng.normal(0, size[0] ** -0.5, size)
            weights[f"{name}.{kind}.bias"] = rng.normal(0, 1, heads)
        weights[f"{name}.attention_output.kernel"] = rng.normal(0, 1, (*heads, shape.units))
        weights[f"{name}.attention_output.bias"] = rng.normal(0, 1, shape.units)
    return {name: values.astype(np.float32) for name, values in weights.items()}


def kerass(weights, shape, name, query, value):
    """Keras' layer with the weights of this name, built for such inputs."""
    import tf_keras

    layer = tf_keras.layers.MultiHeadAttention(shape.heads, shape.key_dim, output_shape=shape.units)
    layer(query, value)
    layer.set_weights([weights[f"{name}.{kind}.{part}"] for kind in KINDS for part in ("kernel", "bias")])
    return layer
