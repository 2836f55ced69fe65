"""A backend without an engine: its next words depend on the photo and on all words so far."""

from __future__ import annotations

import math

import numpy as np

from capexport import Caption, DecodingOptions
from capexport.manifest import Shape
from capexport.runtime.backend import Step
from capexport.runtime.decoding import decode
from capexport.vocabulary import Vocabulary

WORDS = ("", "[UNK]", "[START]", "[END]", "a", "dog", "runs", "far")
VOCABULARY = Vocabulary(WORDS)
END = 3
MAX_LENGTH = 8


class FakeBackend:
    """Random logits, the same for the same seed, photo and prefix. Checks that each row gets its own cache.

    words  how many of the vocabulary's words, [END] included, the model allows at all
    """

    def __init__(self, seed=0, vocabulary=VOCABULARY, words=None, spread=2.0, end_bias=0.0):
        self.vocabulary = vocabulary
        self._identity = (seed, words or len(vocabulary), spread, end_bias)
        self._known = {}
        self.batches = []

    def logits(self, photo, prefix):
        """Of the word after the prefix (ids, without [START]): float32 (V,)."""
        key = (int(photo), *map(int, prefix))
        if key not in self._known:
            seed, words, spread, end_bias = self._identity
            logits = np.random.default_rng([seed, *key]).normal(size=len(self.vocabulary)).astype(np.float32) * spread
            logits[END] += end_bias
            logits[:3] = logits[3 + words :] = -1e9
            self._known[key] = logits
        return self._known[key]

    def log_probabilities(self, photo, prefix):
        """As a list of Python floats."""
        logits = [float(value) for value in self.logits(photo, prefix)]
        total = math.log(sum(math.exp(value) for value in logits))
        return [value - total for value in logits]

    def encode(self, images):
        return {"photo": np.array([image[0, 0, 0] for image in images])}

    def empty_cache(self, batch):
        return {"seen": np.zeros((batch, 0), np.int32)}

    def step(self, tokens, position, features, cache):
        seen, photos = cache["seen"], features["photo"]
        assert len(tokens) == len(seen) == len(photos)
        assert seen.shape[1] == position
        self.batches.append(len(tokens))
        grown = np.concatenate([seen, tokens[:, np.newaxis]], axis=1)
        assert (grown[:, 0] == self.vocabulary.start).all()
        logits = np.stack([self.logits(photo, row[1:]) for photo, row in zip(photos, grown, strict=True)])
        return Step(logits, self.attention(photos, grown), {"seen": grown})

    def attention(self, photos, rows):
        """Says which photo, position and word it belongs to: (L, R, H, N) of 2 layers, 3 heads and 2x2 positions."""
        signature = np.stack([photos, [rows.shape[1] - 1] * len(rows), rows[:, -1], rows.sum(axis=1)], axis=1)
        scale = np.arange(1, 7).reshape(2, 1, 3, 1)
        return (signature[np.newaxis, :, np.newaxis] * scale).astype(np.float32)

    def shape(self):
        return Shape(2, 3, 4, 4, len(self.vocabulary), MAX_LENGTH, (2, 2))


def captions(backend, photos=1, **options) -> list[Caption]:
    """Captions of photos 0, 1, ... in one batch."""
    features = {"photo": np.arange(photos)}
    return decode(backend, features, backend.vocabulary, backend.shape(), DecodingOptions(**options))


def caption(backend, **options) -> Caption:
    return captions(backend, **options)[0]


def all_of(best) -> list[Caption]:
    return [best, *best.alternatives]
