"""Attention as light: what the figure (plot.py) and the page (attention_page.py, in JavaScript) draw over a photo.

A weight is read as its share: how many times an even share of the attention it is, 1 where the model favours
nothing. The light is logarithmic and symmetric about 1, and its range is one for all words of a caption, so a map that
is nearly even looks even, and two words can be compared.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEAST_RANGE = 2.0  # shares from 1/2 to 2 span the light at least: what is nearly even must not be drawn as a focus
# Light from -1 (dark) over 0 (an even share) to 1; red, green and blue laid over the grey photo; how much they cover.
# A black spot in full light is brighter than a white one at an even share: photos of any brightness read alike.
PALETTE = (
    (-1.0, 6, 8, 18, 0.78),
    (0.0, 32, 42, 66, 0.58),
    (0.35, 176, 86, 46, 0.56),
    (0.7, 246, 150, 52, 0.57),
    (1.0, 255, 228, 135, 0.66),
)

Field = NDArray[np.float64]


def shares(weights: NDArray[np.floating], size: tuple[int, int]) -> Field:
    """Attention weights (..., h, w), each map of sum 1, as shares over the photo (..., height, width).

    A quadratic B-spline makes them smooth; its weights are positive and sum to 1, so nothing rings, an even map stays
    even, and at the edges the outermost cells go on.
    """
    height, width = size
    rows, columns = weights.shape[-2:]
    field: Field = _spline(height, rows) @ (weights * (rows * columns)) @ _spline(width, columns).T
    return field


def light(field: NDArray[np.floating], extent: float) -> Field:
    """The light, -1 to 1, of shares in a range of 1 / extent to extent."""
    exponents: Field = np.log(np.maximum(field, 1 / extent)) / np.log(extent)
    return exponents.clip(-1, 1)


def light_range(fields: NDArray[np.floating]) -> float:
    """The largest share of all the maps that are shown together, at least LEAST_RANGE."""
    return max(LEAST_RANGE, float(fields.max()))


def lit(grey: NDArray[np.floating], lights: NDArray[np.floating]) -> NDArray[np.uint8]:
    """A grey photo (H, W), 0 to 255, under its lights (H, W): RGB (H, W, 3)."""
    stops, *colours, covers = np.transpose(PALETTE)
    cover = np.interp(lights, stops, covers)[..., np.newaxis]
    colour = np.stack([np.interp(lights, stops, channel) for channel in colours], axis=-1)
    blended: NDArray[np.uint8] = (grey[..., np.newaxis] * (1 - cover) + colour * cover + 0.5).astype(np.uint8)
    return blended


def _spline(length: int, cells: int) -> Field:
    """Quadratic B-spline weights (length, cells) of each cell at `length` places along an axis."""
    places = (np.arange(length) + 0.5) * cells / length - 0.5
    nearest = np.floor(places + 0.5)
    offset = places - nearest  # -1/2 to 1/2
    weights = np.zeros((length, cells))
    for step, weight in ((-1, (0.5 - offset) ** 2 / 2), (0, 0.75 - offset**2), (1, (0.5 + offset) ** 2 / 2)):
        cell = np.clip(nearest + step, 0, cells - 1).astype(np.intp)
        weights[np.arange(length), cell] += weight
    return weights
