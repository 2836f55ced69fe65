"""Which words may come next, whatever the way they are chosen. R rows, V vocabulary, T tokens said so far."""

from __future__ import annotations

import difflib

import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError
from ..vocabulary import BANNED, END, Vocabulary
from .options import DecodingOptions

FORBIDDEN = -1e8  # log-probability: below it, the model itself bans a word

Scores = NDArray[np.float64]  # log-probabilities after the rules, -inf where a word may not come


class Rules:
    """The options that bear on single words, as ids. Raises OptionError for words that the vocabulary has not."""

    def __init__(self, options: DecodingOptions, vocabulary: Vocabulary, max_length: int) -> None:
        self.max_length = options.max_length or max_length
        if max(self.max_length, options.min_length) > max_length:
            longest = max(self.max_length, options.min_length)
            raise OptionError(f"{longest} tokens are asked for, but this captioner was made for {max_length}.")
        self.end = vocabulary.end
        self.forced = _ids(options.forced_words, vocabulary)
        prefix = _ids(options.prefix.split(), vocabulary)
        self._given = dict(enumerate(prefix)) | {self.max_length - 1: self.end}  # tokens by position
        self._options = options
        self._banned = {*map(vocabulary.id, BANNED), *_ids(options.banned_words, vocabulary)}
        self._never = np.zeros(len(vocabulary), bool)
        self._never[list(self._banned)] = True
        allowed = len(vocabulary) - len(self._banned)
        if options.beams > allowed:
            raise OptionError(f"{options.beams} beams are more than the {allowed} words there are to choose from.")
        if len(prefix) + len(set(self.forced) - set(prefix)) >= self.max_length:
            raise OptionError(f"The prefix and the forced words do not fit into {self.max_length} tokens.")

    def likeliest(self, logits: NDArray[np.float32], position: int) -> NDArray[np.int32] | None:
        """The rows' largest logits (R, V) as ids (R,), where the options ask for these words and none is banned.

        None where scores decide. That which `apply` makes of log-probabilities takes as long as a small decoder's step.
        """
        options = self._options
        if position in self._given or options.drawn or options.searched:
            return None
        if position + 1 < options.min_length or options.repetition_penalty != 1 or options.no_repeat_ngram:
            return None
        likeliest: NDArray[np.int32] = logits.argmax(axis=1).astype(np.int32)
        return likeliest if self._banned.isdisjoint(likeliest.tolist()) else None

    def apply(self, log_probabilities: NDArray[np.float64], said: NDArray[np.int32]) -> Scores:
        """The scores (R, V) of the next words, given log-probabilities (R, V) and the words said (R, T)."""
        options, position = self._options, said.shape[1]
        scores = np.where(self._never | (log_probabilities < FORBIDDEN), -np.inf, log_probabilities)
        if position in self._given:
            scores[:, np.arange(scores.shape[1]) != self._given[position]] = -np.inf
        else:
            if position + 1 < options.min_length:
                scores[:, self.end] = -np.inf
            if options.repetition_penalty != 1 and position:
                scores[np.arange(len(said))[:, np.newaxis], said] *= options.repetition_penalty
            if options.no_repeat_ngram:
                for row, words in zip(scores, said.tolist(), strict=True):
                    row[_would_repeat(words, options.no_repeat_ngram)] = -np.inf
        return scores


def _ids(words: tuple[str, ...] | list[str], vocabulary: Vocabulary) -> list[int]:
    for word in words:
        if word in (*BANNED, END) or word not in vocabulary.words:
            near = difflib.get_close_matches(word.lower(), vocabulary.words, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise OptionError(f"The captioner has no word {word!r}.{hint}")
    return [vocabulary.id(word) for word in words]


def _would_repeat(words: list[int], n: int) -> list[int]:
    """The words that would complete a run of n that was said before."""
    start = len(words) - n + 1
    if start < 0:
        return []
    return [words[i + n - 1] for i in range(start) if words[i : i + n - 1] == words[start:]]
