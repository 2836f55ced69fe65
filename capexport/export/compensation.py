"""Weights rounded so that what one of them loses, those after it make up for.

Weights that are each brought to the nearest level lose more than they must where a layer's inputs go together: what
counts is the error of their products' sum. So a row's weights are rounded one after the other, and the error that the
inputs are known to cause is taken from those that are not rounded yet (Frantar et al., 2023, "GPTQ: Accurate
Post-Training Quantization for Generative Pre-trained Transformers", after Hassibi and Stork, 1993).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

LEVELS = 127  # of int8 weights, either side of zero
DAMPING = 0.01  # of the inputs' mean square, as noise of their own: calibration photos go together more than others
PLACES = 14  # of a kernel along each side of a photo, about
BLOCK = 64  # inputs, after which the errors are handed on to all that follow

Gram = NDArray[np.float64]


class Correlations:
    """How the inputs of a graph's layers go together.

    grams  by node: sums over rows of products of two inputs (K, K), or of a depthwise layer's channels each (N, K, K)
    """

    def __init__(self, grams: Mapping[str, Gram] | None = None) -> None:
        self._grams = grams or {}
        self._known: dict[bytes, NDArray[np.float32]] = {}

    def levels(
        self,
        node: str,
        rows: NDArray[np.float32],
        scales: NDArray[np.float32],
        divisors: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """Whole numbers within LEVELS by which the scales are multiplied, one for each weight.

        The largest weight of a scale keeps its level, so that the scale can be found again.

        rows      weights (N, K): N output channels with K inputs
        scales    what can be broadcast to them
        divisors  what the layer's inputs (K,) will be divided by
        """
        gram = self._grams.get(node)
        if gram is None:
            return _nearest(rows / scales)
        given = (rows, scales) if divisors is None else (rows, scales, divisors)
        key = hashlib.sha256(b"".join((node.encode(), *(array.tobytes() for array in given)))).digest()
        if key not in self._known:
            if divisors is not None and gram.ndim == 2:
                gram = gram / np.multiply.outer(divisors, divisors)
            self._known[key] = _compensated(rows, np.broadcast_to(scales, rows.shape), gram)
        return self._known[key]


class Correlating:
    """Gathers Correlations."""

    def __init__(self) -> None:
        self._grams: dict[str, Gram] = {}

    def see(self, node: str, inputs: NDArray[np.float32]) -> None:
        """A layer's inputs: rows (R, K), or of a depthwise layer each channel's (N, R, K)."""
        gram = np.matmul(np.swapaxes(inputs, -1, -2), inputs, dtype=np.float64)
        self._grams[node] = self._grams[node] + gram if node in self._grams else gram

    def correlations(self) -> Correlations:
        """Of all that was seen so far."""
        return Correlations(self._grams)


def windows(image: NDArray[np.float32], inputs: int) -> NDArray[np.float32]:
    """What a square depthwise kernel of so many inputs sees of each channel of (height, width, C): (C, R, inputs).

    Edges, and where it stops, make no odds for how neighbours go together; some hundred places tell.
    """
    side, every = math.isqrt(inputs), max(image.shape[0] // PLACES, 1)
    short = [max(side - length, 0) for length in image.shape[:2]]  # of a map that is smaller than the kernel
    image = np.pad(image, ((0, short[0]), (0, short[1]), (0, 0)))
    seen = np.lib.stride_tricks.sliding_window_view(image, (side, side), axis=(0, 1))[::every, ::every]
    return np.moveaxis(seen, 2, 0).reshape(image.shape[2], -1, side * side)


def _compensated(rows: NDArray[np.float32], scales: NDArray[np.float32], gram: Gram) -> NDArray[np.float32]:
    # Those that are rounded last make up for the others, and bear it best where their inputs are small.
    order = np.argsort(-np.diagonal(gram, axis1=-2, axis2=-1).reshape(-1, rows.shape[1]).sum(axis=0), kind="stable")
    shares = _shares(gram[..., order, :][..., order]).reshape(-1, len(order), len(order))
    shares = np.ascontiguousarray(np.moveaxis(shares, 0, -1))  # (K, K, 1 or N)
    # An input's weights lie side by side, and are rounded at once.
    left = np.ascontiguousarray((rows / scales).T[order], np.float64)  # (K, N)
    steps = np.ascontiguousarray(scales.T[order], np.float64)
    pinned = np.abs(np.round(left)) >= LEVELS
    levels = _nearest(left)
    block = BLOCK if gram.ndim == 2 else len(left)
    for start in range(0, len(left), block):
        end = min(start + block, len(left))
        errors = np.zeros((end - start, len(rows)))
        for k in range(start, end):
            levels[k] = np.where(pinned[k], levels[k], _nearest(left[k]))
            errors[k - start] = error = (left[k] - levels[k]) * steps[k] / shares[k, k]
            left[k:end] -= error * shares[k, k:end] / steps[k:end]
        if end < len(left):
            left[end:] -= shares[start:end, end:, 0].T @ errors / steps[end:]
    restored = np.empty(rows.shape, np.float32)
    restored[:, order] = levels.T
    return restored


def _shares(gram: Gram) -> Gram:
    """Of each input's error, what the inputs after it take: the upper Cholesky factor of the inverse."""
    mean = np.trace(gram, axis1=-2, axis2=-1)[..., np.newaxis, np.newaxis] / gram.shape[-1]
    damped = gram + np.eye(gram.shape[-1]) * np.maximum(DAMPING * mean, 1e-12)
    return np.swapaxes(np.linalg.cholesky(np.linalg.inv(damped)), -1, -2)


def _nearest(levels: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.clip(np.round(levels), -LEVELS, LEVELS)
