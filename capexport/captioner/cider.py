"""CIDEr-D (Vedantam et al., 2015) of sequences of token ids, quick enough to be a reward at every training step.

The same number as pycocoevalcap's, for the same words: n-grams of one to four words weighed by how few photos' captions
have them, counts clipped to the reference's, and a Gaussian penalty of the difference in length.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import chain

LONGEST = 4  # words in an n-gram
SIGMA = 6.0  # of the length penalty, in words

Words = Sequence[Hashable]
Gram = tuple[Hashable, ...]


class Cider:
    """Scores candidates against the references of photos, which also say how frequent n-grams are.

    references  for each photo, its captions as words or ids
    """

    def __init__(self, references: Sequence[Sequence[Words]]) -> None:
        counts = [[_counts(words) for words in captions] for captions in references]
        frequencies = Counter(chain.from_iterable(set().union(*captions) for captions in counts))
        self._unseen = math.log(len(references))
        self._rarity = {gram: self._unseen - math.log(count) for gram, count in frequencies.items()}
        self._references = [[self._weighed(count) for count in captions] for captions in counts]

    def score(self, photo: int, words: Words) -> float:
        """From 0 to 10, for the photo of that index."""
        weights, norms, length = self._weighed(_counts(words))
        total = 0.0
        for theirs, their_norms, their_length in self._references[photo]:
            similarity = [0.0] * LONGEST
            for gram, weight in weights.items():
                other = theirs.get(gram)
                if other is not None:
                    similarity[len(gram) - 1] += min(weight, other) * other
            alike = sum(s / (a * b) for s, a, b in zip(similarity, norms, their_norms, strict=True) if a and b)
            total += alike * math.exp(-((length - their_length) ** 2) / (2 * SIGMA**2))
        return 10.0 * total / LONGEST / len(self._references[photo])

    def _weighed(self, counts: Counter[Gram]) -> tuple[dict[Gram, float], list[float], int]:
        """The n-grams' weights, their norm for each n, and the caption's length as pycocoevalcap has it, in bigrams."""
        weights = {gram: count * self._rarity.get(gram, self._unseen) for gram, count in counts.items()}
        squares, length = [0.0] * LONGEST, 0
        for gram, weight in weights.items():
            squares[len(gram) - 1] += weight * weight
            length += counts[gram] if len(gram) == 2 else 0
        return weights, [math.sqrt(square) for square in squares], length


def _counts(words: Words) -> Counter[Gram]:
    return Counter(
        chain.from_iterable(zip(*(words[i:] for i in range(n)), strict=False) for n in range(1, LONGEST + 1))
    )
