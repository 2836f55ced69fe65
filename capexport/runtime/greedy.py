"""A graph that makes whole captions by itself, as the decoding loop does with default options.

B batch, T steps, L layers, H heads, N image positions.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from ..errors import BundleError
from ..manifest import CAPTIONER
from .backend import Runner, Tensors
from .caption import Caption, check_attention


class GreedyGraph:
    """Runs the captioner graph of a bundle and makes captions of what it gives."""

    def __init__(self, bundle: Bundle, run: Runner) -> None:
        self._bundle = bundle
        self._run = run
        [image] = bundle.manifest.graphs[CAPTIONER].inputs
        self._batch = image.shape[0] if isinstance(image.shape[0], int) else None  # where its graph takes no other

    def caption(self, pixels: NDArray[np.uint8]) -> list[Caption]:
        """The captions of photos (B, height, width, 3).

        Raises BundleError if the graph gives anything else than captions.
        """
        count = self._batch or len(pixels)
        parts = (self.run(pixels[start : start + count]) for start in range(0, len(pixels), count))
        return [self._caption(outputs, row) for outputs in parts for row in range(len(outputs["tokens"]))]

    def run(self, pixels: NDArray[np.uint8]) -> Tensors:
        """The graph's own tensors: tokens (B, T), log_probabilities (B, T) and attention (T, L, B, H, N).

        Raises BundleError if they have other shapes.
        """
        outputs = self._run({"image": pixels})
        shape, said = self._bundle.manifest.shape, outputs["tokens"].shape  # (B, T)
        positions = math.prod(shape.feature_map)
        looked = (said[-1], shape.layers, len(pixels), shape.heads, positions)
        if len(said) != 2 or outputs["log_probabilities"].shape != said or outputs["attention"].shape != looked:
            raise BundleError("The captioner graph's tensors have other shapes than captions have.")
        return outputs

    def _caption(self, outputs: Tensors, row: int) -> Caption:
        """A row up to its [END], behind which there are zeros."""
        shape, vocabulary = self._bundle.manifest.shape, self._bundle.vocabulary
        ends = np.flatnonzero(outputs["tokens"][row] == vocabulary.end)
        if not len(ends):
            raise BundleError("The captioner graph never says [END]: it is damaged or unfit.")
        said = slice(int(ends[0]) + 1)
        log_probabilities = outputs["log_probabilities"][row, said]  # (T,)
        maps = outputs["attention"][said, :, row]  # (T, L, H, N)
        if not np.isfinite(log_probabilities).all():
            raise BundleError("The captioner graph's log-probabilities are not numbers: it is damaged or unfit.")
        caption = Caption.of(
            vocabulary,
            outputs["tokens"][row, said].tolist(),
            log_probabilities.tolist(),
            maps.reshape(*maps.shape[:3], *shape.feature_map),
        )
        check_attention(caption)
        return caption
