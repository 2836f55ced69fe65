"""The decoding loop: from photos' features to their captions, over any Backend.

R rows (hypotheses), V vocabulary, L layers, H heads, N image positions, T tokens said so far.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError
from ..manifest import Shape
from ..vocabulary import Vocabulary
from .backend import Backend, Tensors
from .caption import Caption
from .options import DecodingOptions
from .rules import Rules
from .search import Choice, Draw, Index, Place, check_words_left, start_search


class Decoding:
    """One run of the loop over a batch of photos: iterate over it to the end, then ask for the captions.

    It yields the tokens (C,) chosen at each step. Rows whose hypothesis has ended are dropped out of the batch.
    """

    def __init__(
        self,
        backend: Backend,
        features: Tensors,
        vocabulary: Vocabulary,
        shape: Shape,
        options: DecodingOptions,
    ) -> None:
        self._backend = backend
        self._features = features
        self._vocabulary = vocabulary
        self._feature_map = shape.feature_map
        self._rules = Rules(options, vocabulary, shape.max_length)
        self._search = start_search(options, self._rules, photos=_rows(features))
        self._record: list[_Said] = []

    def __iter__(self) -> Iterator[NDArray[np.int32]]:
        features = take(self._features, self._search.photos)
        rows = len(self._search.photos)
        cache = self._backend.empty_cache(rows)
        tokens = np.full(rows, self._vocabulary.start, np.int32)
        said = np.zeros((rows, 0), np.int32)
        for position in range(self._rules.max_length):
            step = self._backend.step(tokens, position, features, cache)
            choice, log_probabilities = self._choose(step.logits, said)
            self._record.append(
                _Said(
                    came_from=np.flatnonzero(self._record[-1].goes_on)[choice.parents] if position else None,
                    tokens=choice.tokens,
                    log_probabilities=log_probabilities,
                    attention=step.attention[:, choice.parents],
                    goes_on=choice.goes_on,
                )
            )
            yield choice.tokens
            if not choice.goes_on.any():
                return
            parents, tokens = choice.parents[choice.goes_on], choice.tokens[choice.goes_on]
            features, cache = take(features, parents), take(step.cache, parents)
            said = np.concatenate([said[parents], tokens[:, np.newaxis]], axis=1)

    def _choose(self, logits: NDArray[np.float32], said: NDArray[np.int32]) -> tuple[Choice, NDArray[np.float64]]:
        """What is said after the words (R, T), and the log-probabilities (C,) of it."""
        position, largest = said.shape[1], _largest(logits)
        likeliest = self._rules.likeliest(logits, position)
        if likeliest is not None and isinstance(self._search, Draw):
            chosen = _log_softmax_at(logits, largest, likeliest)
            check_words_left(chosen, position)
            return self._search.say(likeliest, position), chosen
        log_probabilities = log_softmax(logits)
        choice = self._search.choose(self._rules.apply(log_probabilities, said), position)
        return choice, log_probabilities[choice.parents, choice.tokens]

    def caption(self, photo: int) -> Caption:
        """The photo's caption, counted from 0; the other ones, where several were asked for, as its alternatives."""
        best, *others = map(self._caption_at, self._search.best(photo))
        return dataclasses.replace(best, alternatives=tuple(others))

    def _caption_at(self, place: Place) -> Caption:
        """The caption that ends at a place of the record, read backwards."""
        index, parts = place.choice, []
        for said in reversed(self._record[: place.step + 1]):
            parts.append((int(said.tokens[index]), float(said.log_probabilities[index]), said.attention[:, index]))
            index = 0 if said.came_from is None else int(said.came_from[index])
        tokens, log_probabilities, attention = zip(*reversed(parts), strict=True)
        maps = np.stack(attention)  # (T, L, H, N)
        maps = maps.reshape(*maps.shape[:3], *self._feature_map)
        return Caption.of(self._vocabulary, tokens, log_probabilities, maps)


@dataclasses.dataclass(frozen=True)
class _Said:
    """What one step's choices said; C choices."""

    came_from: Index | None  # (C,) index among the choices of the step before; None at the first
    tokens: NDArray[np.int32]  # (C,)
    log_probabilities: NDArray[np.float64]  # (C,)
    attention: NDArray[np.float32]  # (L, C, H, N)
    goes_on: NDArray[np.bool_]  # (C,)


def decode(
    backend: Backend, features: Tensors, vocabulary: Vocabulary, shape: Shape, options: DecodingOptions
) -> list[Caption]:
    """Caption the photos whose features these are, as Backend.encode gives them."""
    decoding = Decoding(backend, features, vocabulary, shape, options)
    for _ in decoding:
        pass
    return [decoding.caption(photo) for photo in range(_rows(features))]


def take(tensors: Tensors, rows: Index) -> Tensors:
    """These rows of each tensor; the same tensors, not copies, if that is all of them in order."""
    if np.array_equal(rows, np.arange(_rows(tensors))):
        return tensors
    return {name: tensor[rows] for name, tensor in tensors.items()}


def _rows(tensors: Tensors) -> int:
    return len(next(iter(tensors.values())))


def log_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Log-probabilities of logits (R, V), in float64. Raises BundleError if they are not numbers."""
    shifted, normaliser = _normalised(logits, _largest(logits))
    result: NDArray[np.float64] = shifted.astype(np.float64) - normaliser
    return result


def _log_softmax_at(
    logits: NDArray[np.floating], largest: NDArray[np.floating], tokens: NDArray[np.int32]
) -> NDArray[np.float64]:
    """log_softmax of one token (R,) a row alone, given the rows' largest logits (R, 1)."""
    shifted, normaliser = _normalised(logits, largest)
    result: NDArray[np.float64] = shifted[np.arange(len(tokens)), tokens].astype(np.float64) - normaliser[:, 0]
    return result


def _largest(logits: NDArray[np.floating]) -> NDArray[np.floating]:
    """The rows' largest logits (R, 1). Raises BundleError if they are not numbers; NaN is the largest of any."""
    largest: NDArray[np.floating] = logits.max(axis=1, keepdims=True)
    if not np.isfinite(largest).all():
        raise BundleError("The decoder's logits are not numbers (NaN or infinite): its graph is damaged or unfit.")
    return largest


def _normalised(
    logits: NDArray[np.floating], largest: NDArray[np.floating]
) -> tuple[NDArray[np.floating], NDArray[np.float64]]:
    """Logits (R, V) less their rows' largest (R, 1), and the logarithm (R, 1) of the sum of their exponentials."""
    with np.errstate(over="ignore"):  # a difference that is too large for a float is -inf, and its exponential 0
        shifted = logits - largest
    normaliser: NDArray[np.float64] = np.log(np.exp(shifted).sum(axis=1, dtype=np.float64, keepdims=True))
    return shifted, normaliser
