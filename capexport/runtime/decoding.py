"""The decoding loop: from photos' features to their captions, over any Backend.

R rows (hypotheses), V vocabulary, L layers, H heads, N image positions, T tokens said so far.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError
from ..manifest import Shape
from ..vocabulary import Vocabulary
from .backend import Backend, Tensors
from .caption import Caption
from .options import DecodingOptions
from .rules import Rules
from .search import Choice, Draw, Index, Place, start_search

HELD = 2**17  # logits that wait for their sums: between an engine's steps the same work takes twice as long


class Decoding:
    """One run of the loop over a batch of photos: iterate over it to the end, then ask for the captions.

    It yields the tokens (C,) chosen at each step. Rows whose hypothesis has ended are dropped out of the batch.

    held  logits at most that wait for their sums, and to be seen to be numbers; 0 for who shows words at once
    """

    def __init__(
        self,
        backend: Backend,
        features: Tensors,
        vocabulary: Vocabulary,
        shape: Shape,
        options: DecodingOptions,
        held: int = HELD,
    ) -> None:
        self._backend = backend
        self._held = held
        self._features = features
        self._vocabulary = vocabulary
        self._feature_map = shape.feature_map
        self._rules = Rules(options, vocabulary, shape.max_length)
        self._search = start_search(options, self._rules, photos=_rows(features))
        self._record: list[_Said] = []
        self._log_probabilities: list[NDArray[np.float64]] = []  # (C,) of the choices, step by step
        self._waiting: list[tuple[NDArray[np.float32], NDArray[np.int32]]] = []  # logits (R, V) and their largest (R,)

    def __iter__(self) -> Iterator[NDArray[np.int32]]:
        # A step of the smallest captioners takes a sixth of a millisecond: whatever this calls between steps, counts.
        every = np.arange(len(self._search.photos))  # the rows, in order
        features = self._features
        if len(every) != _rows(features):
            features = take(features, self._search.photos)
        cache = self._backend.empty_cache(len(every))
        tokens = np.full(len(every), self._vocabulary.start, np.int32)
        said = np.zeros((len(every), self._rules.max_length), np.int32)
        for position in range(self._rules.max_length):
            step = self._backend.step(tokens, position, features, cache)
            choice = self._choose(step.logits, said[:, :position])
            attention = step.attention if choice.parents is None else step.attention[:, choice.parents]
            self._record.append(_Said(choice, attention))
            yield choice.tokens
            going = choice.going
            if not len(going):
                break
            tokens, cache = choice.tokens[going], step.cache
            rows = going if choice.parents is None else choice.parents[going]
            if len(rows) != len(every) or (choice.parents is not None and (rows != every).any()):
                every = np.arange(len(rows))
                features, cache, said = take(features, rows), take(cache, rows), said[rows]
            said[:, position] = tokens
        self._normalise()

    def _choose(self, logits: NDArray[np.float32], said: NDArray[np.int32]) -> Choice:
        """What is said after the words (R, T)."""
        position = said.shape[1]
        likeliest = self._rules.likeliest(logits, position)
        if likeliest is not None and isinstance(self._search, Draw):
            self._waiting.append((logits, likeliest))
            if len(self._waiting) * logits.size >= self._held:
                self._normalise()
            return self._search.say(likeliest, position)
        self._normalise()
        log_probabilities = log_softmax(logits)
        choice = self._search.choose(self._rules.apply(log_probabilities, said), position)
        parents = np.arange(len(said)) if choice.parents is None else choice.parents
        self._log_probabilities.append(log_probabilities[parents, choice.tokens])
        return choice

    def _normalise(self) -> None:
        """Find the log-probabilities of the words that wait for it."""
        if not self._waiting:
            return
        logits, words = (np.concatenate(parts) for parts in zip(*self._waiting, strict=True))
        _, normaliser = _normalised(logits, logits[np.arange(len(words)), words][:, np.newaxis])
        found, end = 0 - normaliser, 0  # and never -0
        for _, some in self._waiting:
            self._log_probabilities.append(found[end : end + len(some)])
            end += len(some)
        self._waiting.clear()

    def caption(self, photo: int) -> Caption:
        """The photo's caption, counted from 0; the other ones, where several were asked for, as its alternatives."""
        best, *others = map(self._caption_at, self._search.best(photo))
        return dataclasses.replace(best, alternatives=tuple(others))

    def _caption_at(self, place: Place) -> Caption:
        """The caption that ends at a place of the record, read backwards."""
        index, parts = place.choice, []
        for step in range(place.step, -1, -1):
            choice, looked = self._record[step]
            parts.append((int(choice.tokens[index]), float(self._log_probabilities[step][index]), looked[:, index]))
            row = index if choice.parents is None else int(choice.parents[index])
            index = int(self._record[step - 1].choice.going[row]) if step else 0
        tokens, log_probabilities, attention = zip(*reversed(parts), strict=True)
        maps = np.stack(attention)  # (T, L, H, N)
        maps = maps.reshape(*maps.shape[:3], *self._feature_map)
        return Caption.of(self._vocabulary, tokens, log_probabilities, maps)


class _Said(NamedTuple):
    """One step's choices, and where each looked; C choices."""

    choice: Choice
    attention: NDArray[np.float32]  # (L, C, H, N)


def decode(
    backend: Backend, features: Tensors, vocabulary: Vocabulary, shape: Shape, options: DecodingOptions
) -> list[Caption]:
    """Caption the photos whose features these are, as Backend.encode gives them."""
    decoding = Decoding(backend, features, vocabulary, shape, options)
    for _ in decoding:
        pass
    return [decoding.caption(photo) for photo in range(_rows(features))]


def take(tensors: Tensors, rows: Index) -> Tensors:
    """These rows of each tensor."""
    return {name: tensor[rows] for name, tensor in tensors.items()}


def _rows(tensors: Tensors) -> int:
    return len(next(iter(tensors.values())))


def log_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Log-probabilities of logits (R, V), in float64. Raises BundleError for logits that are not numbers."""
    shifted, normaliser = _normalised(logits, logits.max(axis=1, keepdims=True))
    result: NDArray[np.float64] = shifted.astype(np.float64) - normaliser[:, np.newaxis]
    return result


def _normalised(
    logits: NDArray[np.floating], largest: NDArray[np.floating]
) -> tuple[NDArray[np.floating], NDArray[np.float64]]:
    """Logits (R, V) less their rows' largest (R, 1), and the logarithm (R,) of the sum of their exponentials."""
    with np.errstate(over="ignore", invalid="ignore"):  # of what is refused below, or so far off that it becomes -inf
        shifted = logits - largest
        normaliser: NDArray[np.float64] = np.log(np.exp(shifted).sum(axis=1, dtype=np.float64))
    if not normaliser.min() >= 0:  # one of the terms is 1
        raise BundleError("The decoder's logits are not numbers (NaN or infinite): its graph is damaged or unfit.")
    return shifted, normaliser
