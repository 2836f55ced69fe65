"""The decoding loop: from one photo's features to its caption, over any Backend."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError
from ..vocabulary import END, Vocabulary
from .backend import Backend, Tensors


@dataclass(frozen=True)
class DecodingOptions:
    """How words are chosen. Raises OptionError for values that make no sense.

    temperature  0 takes the likeliest word at each step (greedy); above, words are drawn from
                 softmax(logits / temperature)
    seed         of the draws; the same seed gives the same words on every backend
    max_length   the most tokens of a caption, [END] included; None: what the captioner was made for
    """

    temperature: float = 0.0
    seed: int | None = None
    max_length: int | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise OptionError(f"The temperature must be a number from 0 up, not {self.temperature}.")
        if self.seed is not None and self.seed < 0:
            raise OptionError(f"The seed must be a whole number from 0 up, not {self.seed}.")
        if self.max_length is not None and self.max_length < 1:
            raise OptionError(f"The maximal length must be at least 1, not {self.max_length}.")


@dataclass(frozen=True)
class Caption:
    """A photo's caption. words, tokens, log_probabilities and the attention run side by side, [END] included.

    text               the words as one line, without special tokens
    words              each token as a word; the last is "[END]" unless the caption was cut at its maximal length
    tokens             the ids
    log_probabilities  natural logarithms, under the model's own distribution (temperature 1)
    cross_attention    where the model looked for each word: float32 (words, layers, heads, h, w); each map sums to 1
    """

    text: str
    words: tuple[str, ...]
    tokens: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    cross_attention: NDArray[np.float32]

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

    @property
    def confidence(self) -> float:
        """The geometric mean of the tokens' probabilities, from 0 to 1."""
        return math.exp(sum(self.log_probabilities) / len(self.log_probabilities))


def decode(
    backend: Backend,
    features: Tensors,
    vocabulary: Vocabulary,
    feature_map: tuple[int, int],
    max_length: int,
    options: DecodingOptions,
) -> Caption:
    """Caption the one photo whose features these are (batch 1); max_length is the captioner's own limit."""
    longest = options.max_length or max_length
    if longest > max_length:
        raise OptionError(f"The maximal length is {longest}, but this captioner was made for {max_length} tokens.")
    choose = _Chooser(options)
    cache = backend.empty_cache(batch=1)
    token = vocabulary.start
    tokens: list[int] = []
    log_probabilities: list[float] = []
    attention: list[NDArray[np.float32]] = []
    while token != vocabulary.end and len(tokens) < longest:
        step = backend.step(np.array([token], np.int32), len(tokens), features, cache)
        cache = step.cache
        token = choose(step.logits[0])
        tokens.append(token)
        log_probabilities.append(float(log_softmax(step.logits[0])[token]))
        attention.append(step.attention[:, 0])  # (L, H, N)
    words = tuple(vocabulary.decode(tokens))
    return Caption(
        text=" ".join(word for word in words if word != END),
        words=words,
        tokens=tuple(tokens),
        log_probabilities=tuple(log_probabilities),
        cross_attention=np.stack(attention).reshape(*np.shape(attention)[:3], *feature_map),
    )


class _Chooser:
    """Picks a token from logits (V,): the likeliest, or a draw.

    A draw takes the likeliest after adding Gumbel noise (Gumbel, 1954; the "Gumbel-max trick"), which is exact
    sampling and, unlike inverting the cumulative sum, moves with an engine's rounding only in near-ties.
    """

    def __init__(self, options: DecodingOptions) -> None:
        self._temperature = options.temperature
        self._random = np.random.default_rng(options.seed)

    def __call__(self, logits: NDArray[np.float32]) -> int:
        if self._temperature == 0:
            return int(logits.argmax())
        noise = self._random.gumbel(size=logits.shape)
        return int((logits.astype(np.float64) / self._temperature + noise).argmax())


def log_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Log-probabilities of logits (..., V), in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result
