"""Figures (matplotlib, the extra `plot`): where the model looked while it said each word."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from .atomic import new_file
from .errors import MissingExtraError
from .image import Photo, load_image
from .runtime.caption import Caption

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANEL_PIXELS = 336
DARKEST = 0.85  # how much of the photo's light is taken away where the model did not look at all


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches; raises MissingExtraError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot") from error
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, path: Path, force: bool = True) -> None:
    """Write a figure as PNG, whole or not at all; raises OutputError."""
    with new_file(path, force=force) as partial:
        figure.savefig(partial, format="png", dpi=120)


def draw_attention(photo: Photo, caption: Caption, path: Path, force: bool = False) -> None:
    """Draw the photo once for each word, lit where the model looked, the caption above: the tutorial's figure.

    The light of each panel is relative to its own largest weight. Raises OutputError if `path` exists, unless
    force, and MissingExtraError without matplotlib.
    """
    pixels = load_image(photo, (PANEL_PIXELS, PANEL_PIXELS))
    columns = min(len(caption.words), max(4, math.ceil(math.sqrt(1.6 * len(caption.words)))))
    rows = math.ceil(len(caption.words) / columns)
    figure = new_figure(2.2 * columns, 2.45 * rows + 0.6)
    figure.suptitle(textwrap.fill(caption.text, width=20 * columns), fontsize=14)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, word, weights in zip(axes, caption.words, caption.attention, strict=False):
        axis.imshow(_lit(pixels, weights))
        axis.set_title(word, fontsize=12)
    save_figure(figure, path, force)


def _lit(pixels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The pixels (S, S, 3), darkened where the weights (h, w) are small."""
    relative = Image.fromarray((weights / weights.max()).astype(np.float32))
    light = np.asarray(relative.resize(pixels.shape[1::-1], Image.Resampling.BICUBIC)).clip(0, 1)  # (S, S)
    return (pixels * (1 - DARKEST * (1 - light[..., np.newaxis]))).astype(np.uint8)
