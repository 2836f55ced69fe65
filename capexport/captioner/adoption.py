"""A live captioner of anyone's classes, made again of this package's own, so that it can be saved."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from ..errors import SourceError
from ..vocabulary import Vocabulary
from .backbone import recognise_backbone
from .config import CaptionerConfig
from .measures import image_size, measure
from .model import Captioner, build_captioner, build_weights
from .weights import decoder_variables, output_bias, part, tied


def adopt(captioner: Any) -> Captioner:
    """The same captioner, of this package's classes and with a config; the live one stays as it is.

    Photos are resized by "bilinear", the tutorial's way. Raises SourceError for a captioner that no config describes.
    """
    shape, size = measure(captioner), image_size(captioner)
    backbone, include_preprocessing, encoder = recognise_backbone(captioner.feature_extractor, size)
    vocabulary = Vocabulary.from_words(captioner.tokenizer.get_vocabulary())
    config = CaptionerConfig(
        backbone=backbone,
        include_preprocessing=include_preprocessing,
        image_size=size,
        resize="bilinear",
        num_layers=shape.layers,
        num_heads=shape.heads,
        key_dim=None if shape.key_dim == shape.units else shape.key_dim,
        units=shape.units,
        max_length=shape.max_length,
        vocabulary_size=shape.vocabulary,
        dropout_rate=_dropout_rate(captioner),
        tied_embeddings=tied(captioner),
    )
    adopted = build_captioner(config, vocabulary.words, encoder)
    adopted.output_layer.bias = output_bias(captioner)
    build_weights(adopted)
    theirs = decoder_variables(captioner)
    for name, variable in decoder_variables(adopted).items():
        if theirs[name].shape != variable.shape:
            raise SourceError(
                f"The captioner's {name} has the shape {tuple(theirs[name].shape)}, the tutorial's is "
                f"{tuple(variable.shape)}, so it cannot be saved; convert takes the live captioner as it is."
            )
        variable.assign(theirs[name])
    _check_same(captioner, adopted)
    return adopted


def _dropout_rate(captioner: Any) -> float:
    rates = [layer.rate for layer in part(captioner, "decoder_layers.0.ff.seq.layers") if hasattr(layer, "rate")]
    return float(rates[-1]) if rates else 0.0


def _check_same(captioner: Any, adopted: Captioner) -> None:
    rng = np.random.default_rng(0)
    features = tf.constant(rng.normal(size=(1, *adopted.feature_extractor.output_shape[1:])), tf.float32)
    tokens = rng.integers(2, adopted.config.vocabulary_size, (1, adopted.config.max_length))
    theirs, ours = (model((features, tf.constant(tokens)), training=False) for model in (captioner, adopted))
    if not np.allclose(ours, theirs, rtol=1e-3, atol=1e-3):
        raise SourceError("The captioner's layers compute something else than the tutorial's, so it cannot be saved.")
