"""Whether a manifest makes sense in itself, with the bundle's vocabulary, and for the runtime that will believe it.

B batch, P past length, T steps: dimensions that may vary, and are None here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from .errors import BundleError
from .image import MAX_PIXELS, RESIZERS
from .manifest import CAPTIONER, FEATURES, STATES, Manifest, Shape, Tensor
from .plain import quoted
from .recipes import FORMATS, RECIPES
from .vocabulary import END, PAD, START, UNKNOWN, Vocabulary

ROLES = {PAD: "pad", UNKNOWN: "unknown", START: "start", END: "end"}
MOST = {"layers": 256, "heads": 1024, "key_dim": 2**16, "units": 2**16, "vocabulary": 2**20, "max_length": 2**14}
MAX_POSITIONS = 2**16  # of a feature map
MAX_TEXT = 1000  # characters of a name or a finding
MAX_ELEMENTS = 2**28  # of a tensor that goes in or comes out

SYMBOLS = {"B", "P", "P_next", "T"}

Expected = dict[str, tuple[str, tuple[int | None, ...]]]


def special_tokens(vocabulary: Vocabulary) -> dict[str, int]:
    """The ids of the special tokens by their role, as they stand in a manifest."""
    return {role: vocabulary.words.index(word) for word, role in ROLES.items()}


def check_sense(manifest: Manifest, vocabulary: Vocabulary) -> None:
    """Raise BundleError for a manifest that contradicts itself or the vocabulary, or whose sizes are absurd."""
    if manifest.format not in FORMATS or manifest.recipe not in RECIPES:
        named = f"{quoted(manifest.format)}, {quoted(manifest.recipe)}"
        raise BundleError(f"The bundle is of an unknown format or recipe: {named}.")
    if manifest.preprocessing.resize not in RESIZERS:
        named = quoted(manifest.preprocessing.resize)
        raise BundleError(f"The bundle's photos are resized in an unknown way: {named}.")
    for text in _texts(dataclasses.asdict(manifest)):
        if not text.isprintable() or len(text) > MAX_TEXT:  # they are printed on terminals
            raise BundleError(f"The bundle's manifest has a text that cannot be printed or is too long: {text[:80]!r}.")
    _check_sizes(manifest)
    if len(vocabulary) != manifest.shape.vocabulary or special_tokens(vocabulary) != manifest.special_tokens:
        raise BundleError("The bundle's vocabulary is not the one its manifest describes.")
    for name, (inputs, outputs) in _expected(manifest).items():
        graph = manifest.graphs.get(name)
        if graph is not None:
            _check_tensors(name, graph.inputs, inputs)
            _check_tensors(name, graph.outputs, outputs)


def _texts(value: Any) -> Iterator[str]:
    """All strings within a manifest, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _texts(item)


def _check_sizes(manifest: Manifest) -> None:
    shape, (height, width) = manifest.shape, manifest.preprocessing.size
    odd = [name for name, most in MOST.items() if not 1 <= getattr(shape, name) <= most]
    if not 1 <= math.prod(shape.feature_map) <= MAX_POSITIONS:
        odd.append("feature_map")
    if not 1 <= height * width <= MAX_PIXELS:
        odd.append("size of photos")
    if odd:
        raise BundleError(f"The bundle's manifest has an impossible {odd[0]}.")


def _expected(manifest: Manifest) -> dict[str, tuple[Expected, Expected]]:
    """What goes into each graph and comes out of it, by the captioner's shape."""
    shape = manifest.shape
    positions = math.prod(shape.feature_map)
    image: Expected = {"image": ("uint8", (None, *manifest.preprocessing.size, 3))}
    cross = expected_memory(manifest)
    given: Expected = {"tokens": ("int32", (None,)), "position": ("int32", ())}
    said: Expected = {
        "logits": ("float32", (None, shape.vocabulary)),
        "attention": ("float32", (shape.layers, None, shape.heads, positions)),
    }
    caption: Expected = {
        "tokens": ("int32", (None, None)),
        "log_probabilities": ("float32", (None, None)),
        "attention": ("float32", (None, shape.layers, None, shape.heads, positions)),
    }
    return {
        "encoder": (image, cross),
        "decoder": (
            {**given, **cross, **_expected_cache("self", manifest)},
            {**said, **_expected_cache("next", manifest)},
        ),
        CAPTIONER: (image, caption),
    }


def expected_memory(manifest: Manifest) -> Expected:
    """What goes from the encoder to the decoder: features, of the channels that the encoder states, or keys and values.

    Each is of positions and channels in the end.
    """
    encoder, positions = manifest.graphs.get("encoder"), math.prod(manifest.shape.feature_map)
    stated = [tensor.shape[-1:] for tensor in encoder.outputs if tensor.name == FEATURES] if encoder else []
    for channels in stated:
        if channels and isinstance(channels[0], int) and channels[0] > 0:
            return {FEATURES: ("float32", (None, positions, channels[0]))}
    return _keys_and_values("cross", manifest.shape, positions)


def _expected_cache(kind: str, manifest: Manifest) -> Expected:
    """What goes from step to step: states, if the decoder states any, or keys and values."""
    decoder, shape = manifest.graphs.get("decoder"), manifest.shape
    if decoder and any(tensor.name.startswith(STATES) for tensor in decoder.inputs):
        return {f"{kind}_states_{layer}": ("float32", (None, 1, None, shape.units)) for layer in range(shape.layers)}
    return _keys_and_values(kind, shape, None)


def _keys_and_values(kind: str, shape: Shape, positions: int | None) -> Expected:
    names = [f"{kind}_{part}_{layer}" for layer in range(shape.layers) for part in ("keys", "values")]
    return dict.fromkeys(names, ("float32", (None, shape.heads, positions, shape.key_dim)))


def _check_tensors(graph: str, tensors: tuple[Tensor, ...], expected: Expected) -> None:
    if sorted(tensor.name for tensor in tensors) != sorted(expected):
        raise BundleError(f"The bundle's {graph} has other inputs or outputs than a captioner's.")
    for tensor in tensors:
        dtype, dims = expected[tensor.name]
        fits = len(dims) == len(tensor.shape) and all(
            given in (SYMBOLS if wanted is None else {wanted}) or (wanted is None and isinstance(given, int))
            for given, wanted in zip(tensor.shape, dims, strict=True)
        )
        fits = fits and not (tensor.name.startswith("self_") and {"T", "P_next"}.intersection(map(str, tensor.shape)))
        if tensor.dtype != dtype or not fits:
            raise BundleError(f"The bundle's {graph} has {tensor.name!r} of another type or shape than the captioner.")
        if math.prod(n for n in tensor.shape if isinstance(n, int)) > MAX_ELEMENTS:
            raise BundleError(f"The bundle's {graph} has {tensor.name!r} of more than {MAX_ELEMENTS} elements.")
