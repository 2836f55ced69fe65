"""parity.npz: photos with what Keras made of them, from which a bundle can prove itself anywhere."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError
from ..manifest import Manifest
from ..plain import shortened
from ..runtime.rules import FORBIDDEN
from ..sense import expected_memory
from ..structure import check_archive

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True)
class ParityVector:
    """One photo's pixels and its greedy caption by Keras.

    T tokens, V vocabulary, n image positions (those of `diagonal`).
    """

    pixels: NDArray[np.uint8]  # (height, width, 3)
    memory: Mapping[str, NDArray[np.float32]]  # (..., n, channels) by name: what the encoder gives
    tokens: NDArray[np.int32]  # (T,)
    logits: NDArray[np.float32]  # (T, V)
    log_probabilities: NDArray[np.float64]  # (T,) of the tokens
    attention: NDArray[np.float32]  # (T, h, w)
    photo: str = ""  # the name of the sample photo that these are the pixels of, if it is one
    vocabulary: str = ""  # the hash (sha256, hexadecimal) of the words that the tokens stand for, if it is known


KEYS = [field.name for field in dataclasses.fields(ParityVector) if field.name != "memory"]
LATER = {"vocabulary"}  # what bundles made before it was there lack


def diagonal(feature_map: tuple[int, ...]) -> range:
    """The image positions whose memory a vector carries: the diagonal of a feature map (h, w)."""
    return range(0, math.prod(feature_map), feature_map[1] + 1)


def pack(vectors: list[ParityVector]) -> bytes:
    """The vectors as an .npz file: the k-th photo's arrays are named k.pixels, k.tokens and so on."""
    stream = io.BytesIO()
    arrays = {f"{k}.{key}": getattr(vector, key) for k, vector in enumerate(vectors) for key in KEYS}
    arrays |= {f"{k}.{name}": values for k, vector in enumerate(vectors) for name, values in vector.memory.items()}
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def unpack(data: bytes, manifest: Manifest) -> list[ParityVector]:
    """The inverse of pack; raises BundleError for anything but vectors that fit the manifest."""
    check_archive(data, "The bundle's file of parity vectors")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {name: np.asarray(array) for name, array in file.items()}
    except Exception as error:  # what zipfile, zlib and numpy raise for bytes made to do harm has no common base
        raise BundleError(f"The bundle's parity vectors cannot be read: {shortened(error)}.") from error
    count = max(1, sum(name.endswith(".tokens") for name in arrays))
    every = {f"{k}.{key}" for k in range(count) for key in (*KEYS, *expected_memory(manifest))}
    if not {name for name in every if name.split(".")[1] not in LATER} <= arrays.keys() <= every:
        raise BundleError("The bundle's parity vectors have missing or unknown arrays.")
    return [_vector(arrays, k, manifest) for k in range(count)]


def _vector(arrays: Mapping[str, NDArray[Any]], k: int, manifest: Manifest) -> ParityVector:
    shape, steps = manifest.shape, arrays[f"{k}.tokens"].size
    positions = len(diagonal(shape.feature_map))

    def array(key: str, kind: type[Scalar], *lengths: int | None) -> NDArray[Scalar]:
        found = arrays[f"{k}.{key}"]
        if found.dtype.type is not kind or found.shape != lengths:
            given, wanted = f"{found.dtype.name} {found.shape}", f"{kind.__name__} {lengths}"
            raise BundleError(f"The bundle's parity vector {k} has {key} of {given} where {wanted} belongs.")
        if issubclass(kind, np.floating) and not np.isfinite(found).all():
            raise BundleError(f"The bundle's parity vector {k} has {key} that are not numbers.")
        return found

    vector = ParityVector(
        pixels=array("pixels", np.uint8, *manifest.preprocessing.size, 3),
        memory={
            name: array(name, np.float32, *lengths[1:-2], positions, lengths[-1])
            for name, (_, lengths) in expected_memory(manifest).items()
        },
        tokens=array("tokens", np.int32, steps),
        logits=array("logits", np.float32, steps, shape.vocabulary),
        log_probabilities=array("log_probabilities", np.float64, steps),
        attention=array("attention", np.float32, steps, *shape.feature_map),
        photo=str(array("photo", np.str_)),
        vocabulary=str(array("vocabulary", np.str_)) if f"{k}.vocabulary" in arrays else "",
    )
    ends = np.flatnonzero(vector.tokens == manifest.special_tokens["end"])
    words = (vector.tokens >= 0) & (vector.tokens < shape.vocabulary)
    if ends.tolist() != [steps - 1] or steps > shape.max_length or not words.all():
        raise BundleError(f"The bundle's parity vector {k} has tokens that are no caption.")
    if vector.logits[0].max() <= FORBIDDEN:
        raise BundleError(f"The bundle's parity vector {k} has logits that ban every word.")
    return vector
