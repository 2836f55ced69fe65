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
        shape = bundle.manifest.shape
        self._end, self._feature_map = bundle.vocabulary.end, shape.feature_map
        self._looked = (shape.heads, math.prod(shape.feature_map))

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
        said = outputs["tokens"].shape  # (B, T)
        looked = (said[-1], self._bundle.manifest.shape.layers, len(pixels), *self._looked)
        if len(said) != 2 or outputs["log_probabilities"].shape != said or outputs["attention"].shape != looked:
            raise BundleError("The captioner graph's tensors have other shapes than captions have.")
        return outputs

    def _caption(self, outputs: Tensors, row: int) -> Caption:
        """A row up to its [END], behind which there are zeros."""
        tokens, log_probabilities = (outputs[name][row].tolist() for name in ("tokens", "log_probabilities"))  # (T,)
        if self._end not in tokens:
            raise BundleError("The captioner graph never says [END]: it is damaged or unfit.")
        count = tokens.index(self._end) + 1
        maps = outputs["attention"][:count, :, row]  # (T, L, H, N)
        maps = maps.reshape(*maps.shape[:3], *self._feature_map)
        caption = Caption.of(self._bundle.vocabulary, tokens[:count], log_probabilities[:count], maps)
        if not all(map(math.isfinite, caption.log_probabilities)):
            raise BundleError("The captioner graph's log-probabilities are not numbers: it is damaged or unfit.")
        check_attention(caption)
        return caption
