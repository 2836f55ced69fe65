"""What the runtime makes of a photo."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError, OptionError
from ..vocabulary import END, Vocabulary

ROUNDING = 0.01  # by which attention may be below 0 or above 1


@dataclass(frozen=True)
class Caption:
    """A photo's caption. words, tokens, log_probabilities and the attention run side by side, [END] included.

    Captions are compared by all but their attention.

    text               the words as one line, without special tokens
    words              each token as a word; the last is "[END]"
    tokens             the ids
    log_probabilities  natural logarithms, under the model's own distribution (temperature 1, nothing banned)
    cross_attention    where the model looked for each word: float32 (words, layers, heads, h, w); each map sums to 1
    alternatives       the photo's other captions where several were asked for, the best first, or as drawn
    """

    text: str
    words: tuple[str, ...]
    tokens: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    cross_attention: NDArray[np.float32] = field(repr=False, compare=False)
    alternatives: tuple[Caption, ...] = ()

    @classmethod
    def of(
        cls,
        vocabulary: Vocabulary,
        tokens: Sequence[int],
        log_probabilities: Sequence[float],
        cross_attention: NDArray[np.float32],
    ) -> Caption:
        """The caption of these tokens, [END] included. Raises VocabularyError for a token that is no word's."""
        words = tuple(vocabulary.decode(tokens))
        text = " ".join(word for word in words if word != END)
        return cls(text, words, tuple(tokens), tuple(log_probabilities), cross_attention)

    @property
    def confidence(self) -> float:
        """The geometric mean of the tokens' probabilities, from 0 to 1."""
        return math.exp(sum(self.log_probabilities) / len(self.log_probabilities))

    @property
    def attention(self) -> NDArray[np.float32]:
        """The mean of cross_attention over layers and heads: float32 (words, h, w), each map sums to 1."""
        return self.attention_of()

    def attention_of(self, layer: int | None = None, head: int | None = None) -> NDArray[np.float32]:
        """One layer's or head's attention, or the mean over all of them (None): float32 (words, h, w).

        Raises OptionError for a layer or head, counted from 0, that the model has not.
        """
        maps = self.cross_attention
        for axis, (kind, chosen) in enumerate((("layer", layer), ("head", head)), start=1):
            if chosen is not None:
                if not 0 <= chosen < maps.shape[axis]:
                    raise OptionError(f"There is no {kind} {chosen}: the model has {maps.shape[axis]}, from 0.")
                maps = maps.take([chosen], axis)
        mean: NDArray[np.float32] = maps.mean(axis=(1, 2))
        return mean


def check_attention(caption: Caption) -> None:
    """Raise BundleError if a caption, or one of its alternatives, has attention that is no share, or no number."""
    for one in (caption, *caption.alternatives):
        maps = one.cross_attention
        if not -ROUNDING <= maps.min(initial=0) <= maps.max(initial=0) <= 1 + ROUNDING:
            raise BundleError("The graph's attention is not from 0 to 1: it is damaged or unfit.")
