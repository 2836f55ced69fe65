"""A captioner on disk: config.json, vocabulary.txt and weights.safetensors in one directory.

No pickle and no code: the model is rebuilt from this package's classes and its weights are filled in.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import tensorflow as tf

from ..atomic import check_absent, new_directory
from ..errors import OptionError, SourceError
from ..plain import open_bounded, read_plain
from ..shipped import shipped_captioner
from ..vocabulary import Vocabulary
from .adoption import adopt
from .backbone import build_backbone
from .config import CaptionerConfig
from .model import Captioner, build_captioner, build_weights
from .weights import OUTPUT_BIAS, TOKENS, decoder_variables, encoder_variables, output_bias

CONFIG, VOCABULARY, WEIGHTS = "config.json", "vocabulary.txt", "weights.safetensors"
MAX_WEIGHTS = 2**34  # bytes
TYPES = ("F16", "F32", "F64")  # of weights, in safetensors' words
Shapes = Mapping[str, tuple[int, ...]]


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
    stored = _stored(directory / WEIGHTS)
    _check_fits(_of_sizes(config), {name: stored[name] for name in _of_sizes(config) if name in stored}, directory)
    captioner = _built(config, vocabulary, directory)
    arrays = _fitting(captioner, directory)
    captioner.output_layer.bias = arrays[OUTPUT_BIAS]
    for name, variable in _variables(captioner).items():
        variable.assign(arrays.pop(name))
    return captioner


def assign_mean(captioner: Captioner, directories: Sequence[Path]) -> None:
    """Give a captioner the means of the weights of saved ones; raises SourceError for any that does not fit."""
    stored = [_fitting(captioner, directory) for directory in directories]
    for name, variable in _variables(captioner).items():
        variable.assign(np.mean([arrays.pop(name) for arrays in stored], axis=0))


def _built(config: CaptionerConfig, vocabulary: Vocabulary, directory: Path) -> Captioner:
    """A captioner with weights that are yet to be replaced."""
    try:
        encoder = build_backbone(config.backbone, config.image_size, None, config.include_preprocessing)
    except OptionError as error:
        raise SourceError(f"{directory}: {error}") from error
    captioner = build_captioner(config, vocabulary.words, encoder)
    captioner.output_layer.bias = np.zeros(config.vocabulary_size, np.float32)
    build_weights(captioner)
    return captioner


def live(source: str | os.PathLike[str] | Any) -> Any:
    """The captioner of a directory, the one that ships for None, and a live one as it is."""
    return load_captioner(source) if source is None or isinstance(source, str | os.PathLike) else source


def _variables(captioner: Captioner) -> dict[str, tf.Variable]:
    return encoder_variables(captioner.feature_extractor) | decoder_variables(captioner)


def _stored(path: Path) -> Shapes:
    """The shapes of a file's weights, of which none is read yet; raises SourceError."""
    try:
        with open_bounded(path, MAX_WEIGHTS), safetensors.safe_open(path, "np") as file:
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
            odd = [name for name, part in parts.items() if part.get_dtype() not in TYPES]
            if odd:
                raise ValueError(f"{odd[0]:.80} is of type {parts[odd[0]].get_dtype()}")
            return {name: tuple(part.get_shape()) for name, part in parts.items()}
    except (OSError, safetensors.SafetensorError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise SourceError(f"The weights {path} cannot be read: {error!s:.200}.") from error


def _of_sizes(config: CaptionerConfig) -> Shapes:
    """The shapes that the config itself says: they are looked at before anything of its sizes is built."""
    units, heads = config.units, (config.num_heads, config.key_dim or config.units)
    return {
        TOKENS: (config.vocabulary_size, units),
        "seq_embedding.pos_embedding.embeddings": (config.max_length, units),
        **{f"decoder_layers.{i}.self_attention.mha.query.kernel": (units, *heads) for i in range(config.num_layers)},
    }


def _check_fits(expected: Shapes, stored: Shapes, directory: Path) -> None:
    """Raise SourceError unless both are the same."""
    path = directory / WEIGHTS
    if expected.keys() != stored.keys():
        odd = sorted(expected.keys() ^ stored.keys())[0]
        raise SourceError(f"The weights {path} do not fit the config: {odd:.80} is in only one of them.")
    for name, shape in expected.items():
        if stored[name] != shape:
            raise SourceError(f"{path}: {name} has shape {stored[name]!s:.80}, the config asks for {shape}.")


def _fitting(captioner: Captioner, directory: Path) -> dict[str, np.ndarray]:
    """The weights in a directory, which have the captioner's names, shapes and types; raises SourceError."""
    variables = _variables(captioner)
    shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
    _check_fits(shapes | {OUTPUT_BIAS: (captioner.config.vocabulary_size,)}, _stored(directory / WEIGHTS), directory)
    types = {name: variable.dtype.as_numpy_dtype for name, variable in variables.items()} | {OUTPUT_BIAS: np.float32}
    arrays = _read_weights(directory / WEIGHTS)
    return {name: _numbers(arrays.pop(name), dtype, name, directory) for name, dtype in types.items()}


def _read_weights(path: Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load(read_plain(path, MAX_WEIGHTS))
    except (OSError, safetensors.SafetensorError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise SourceError(f"The weights {path} cannot be read: {error!s:.200}.") from error


def _numbers(array: np.ndarray, dtype: Any, name: str, directory: Path) -> np.ndarray:
    """The array in the type; raises SourceError if one of its values is no number in it."""
    with np.errstate(over="ignore"):
        converted = array.astype(dtype)
    if not np.isfinite(converted).all():
        raise SourceError(f"{directory / WEIGHTS}: {name} has values that are not numbers.")
    return converted
