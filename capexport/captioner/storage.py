"""A captioner on disk: config.json, vocabulary.txt and weights.safetensors in one directory.

No pickle and no code: the model is rebuilt from this package's classes and its weights are filled in.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import tensorflow as tf

from ..atomic import check_absent, new_directory
from ..errors import SourceError
from ..plain import read_plain
from ..shipped import shipped_captioner
from ..vocabulary import Vocabulary
from .adoption import adopt
from .backbone import build_backbone
from .config import CaptionerConfig
from .model import Captioner, build_captioner, build_weights
from .weights import OUTPUT_BIAS, decoder_variables, encoder_variables, output_bias

CONFIG, VOCABULARY, WEIGHTS = "config.json", "vocabulary.txt", "weights.safetensors"
MAX_WEIGHTS = 2**34  # bytes


def save_captioner(captioner: Any, directory: str | os.PathLike[str], half: bool = False, force: bool = False) -> None:
    """Write a captioner to a new directory; with half, its matrices and kernels in half precision.

    captioner  one of load_captioner or capexport train, or a live one with the tutorial's attributes

    Vectors (biases, norms, the banned tokens' logits) stay in float32: they weigh nothing and need the range.
    Raises OutputError if the directory exists, unless force, and SourceError for a live captioner that lacks an
    attribute or that no config describes.
    """
    check_absent(Path(directory), force)
    if not isinstance(captioner, Captioner):
        captioner = adopt(captioner)
    arrays = {name: variable.numpy() for name, variable in _variables(captioner).items()}
    arrays[OUTPUT_BIAS] = output_bias(captioner)
    if half:
        arrays = {name: array.astype(np.float16) if array.ndim > 1 else array for name, array in arrays.items()}
    with new_directory(Path(directory), mark=CONFIG, force=force) as partial:
        (partial / CONFIG).write_text(captioner.config.to_json(), encoding="utf-8")
        vocabulary = Vocabulary.from_words(captioner.tokenizer.get_vocabulary())
        (partial / VOCABULARY).write_text(vocabulary.to_text(), encoding="utf-8", newline="\n")
        (partial / WEIGHTS).write_bytes(safetensors.numpy.save(arrays))


def load_captioner(directory: str | os.PathLike[str] | None = None) -> Captioner:
    """Rebuild a captioner from its directory (None: the one that ships).

    Raises SourceError for anything missing or not fitting.
    """
    directory = shipped_captioner() if directory is None else Path(directory)
    if not directory.is_dir():
        raise SourceError(f"There is no captioner at {directory}.")
    config = CaptionerConfig.read(directory / CONFIG)
    vocabulary = Vocabulary.read(directory / VOCABULARY)
    if len(vocabulary) != config.vocabulary_size:
        raise SourceError(
            f"{directory}: the config says {config.vocabulary_size} words, the vocabulary has {len(vocabulary)}."
        )
    arrays = _read_weights(directory / WEIGHTS)
    encoder = build_backbone(config.backbone, config.image_size, None, config.include_preprocessing)
    captioner = build_captioner(config, vocabulary.words, encoder)
    captioner.output_layer.bias = arrays.pop(OUTPUT_BIAS, np.zeros(0)).astype(np.float32)
    build_weights(captioner)
    _assign(_variables(captioner), arrays, directory / WEIGHTS)
    return captioner


def live(source: str | os.PathLike[str] | Any) -> Any:
    """The captioner of a directory, the one that ships for None, and a live one as it is."""
    return load_captioner(source) if source is None or isinstance(source, str | os.PathLike) else source


def _variables(captioner: Captioner) -> dict[str, tf.Variable]:
    return encoder_variables(captioner.feature_extractor) | decoder_variables(captioner)


def _read_weights(path: Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load(read_plain(path, MAX_WEIGHTS))
    except (OSError, safetensors.SafetensorError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise SourceError(f"The weights {path} cannot be read: {error}.") from error


def _assign(variables: dict[str, tf.Variable], arrays: dict[str, np.ndarray], path: Path) -> None:
    if variables.keys() != arrays.keys():
        odd = sorted(variables.keys() ^ arrays.keys())[0]
        raise SourceError(f"The weights {path} do not fit the config: {odd} is in only one of them.")
    for name, variable in variables.items():
        array = arrays[name]
        if not (array.dtype.kind == "f" and np.isfinite(array).all()):
            raise SourceError(f"{path}: {name} has values that are not numbers.")
        if array.shape != tuple(variable.shape):
            raise SourceError(f"{path}: {name} has shape {array.shape}, the config asks for {tuple(variable.shape)}.")
        variable.assign(array.astype(variable.dtype.as_numpy_dtype))
