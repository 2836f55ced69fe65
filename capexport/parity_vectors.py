"""parity.npz: photos with what Keras made of them, from which a bundle can prove itself anywhere."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import BundleError

KEYS = ("pixels", "tokens", "logits", "log_probabilities", "attention")


@dataclass(frozen=True)
class ParityVector:
    """One photo's pixels and its greedy caption by Keras; T tokens."""

    pixels: NDArray[np.uint8]  # (height, width, 3)
    tokens: NDArray[np.int32]  # (T,)
    logits: NDArray[np.float32]  # (T, V)
    log_probabilities: NDArray[np.float64]  # (T,) of the tokens
    attention: NDArray[np.float32]  # (T, h, w)


def pack(vectors: list[ParityVector]) -> bytes:
    """The vectors as an .npz file: the k-th photo's arrays are named k.pixels, k.tokens and so on."""
    stream = io.BytesIO()
    arrays = {f"{k}.{key}": getattr(vector, key) for k, vector in enumerate(vectors) for key in KEYS}
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def unpack(data: bytes) -> list[ParityVector]:
    """The inverse of pack; raises BundleError if data is not such a file."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return [_vector(arrays, k) for k in range(len(arrays.files) // len(KEYS))]
    except (ValueError, KeyError, OSError, EOFError) as error:
        raise BundleError(f"The bundle's parity vectors cannot be read: {error}.") from error


def _vector(arrays: Mapping[str, NDArray[np.generic]], k: int) -> ParityVector:
    return ParityVector(**{key: arrays[f"{k}.{key}"] for key in KEYS})  # type: ignore[arg-type]
