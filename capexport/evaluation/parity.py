"""Parity: a bundle's captions, logits and attention against those of a Keras captioner.

T tokens, V vocabulary, L layers, H heads, N image positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..parity_vectors import ParityVector
from ..runtime.captioner import Captioner
from ..runtime.options import DecodingOptions
from ..runtime.rules import FORBIDDEN

NEAR_TIE = 1e-3  # logits: a margin between the two best words within which two engines may disagree


@dataclass(frozen=True)
class Comparison:
    """One photo's caption by a bundle, against the reference's.

    The greedy captions are compared as wholes. Logits and attention are compared at every step of the reference's own
    words (teacher forcing), so that they say the same of a bundle whose words part early.

    identical         the same tokens, to the last
    divergence        the first step with another token, None if identical
    margin            logits: how far the reference's best word is ahead of its second at that step
    logits_error      the largest difference of any logit that is not banned
    attention_error   the largest difference of any attention weight
    same_cell         the share of words whose most attended cell is the reference's
    jensen_shannon    the mean divergence of the words' attention, in bits (Lin, 1991)
    """

    identical: bool
    divergence: int | None
    margin: float | None
    logits_error: float
    attention_error: float
    same_cell: float
    jensen_shannon: float

    @property
    def near_tie(self) -> bool:
        """Whether the generations part where the reference itself hardly prefers one word."""
        return self.margin is not None and self.margin < NEAR_TIE


@dataclass(frozen=True)
class Parity:
    """Comparisons of many photos, summed up: counts, largest errors, and means over the photos."""

    comparisons: tuple[Comparison, ...]

    @property
    def identical(self) -> int:
        return sum(comparison.identical for comparison in self.comparisons)

    @property
    def near_ties(self) -> int:
        return sum(comparison.near_tie for comparison in self.comparisons)

    @property
    def logits_error(self) -> float:
        return max(comparison.logits_error for comparison in self.comparisons)

    @property
    def attention_error(self) -> float:
        return max(comparison.attention_error for comparison in self.comparisons)

    @property
    def same_cell(self) -> float:
        return float(np.mean([comparison.same_cell for comparison in self.comparisons]))

    @property
    def jensen_shannon(self) -> float:
        return float(np.mean([comparison.jensen_shannon for comparison in self.comparisons]))

    def __str__(self) -> str:
        return (
            f"{self.identical} of {len(self.comparisons)} captions identical, {self.near_ties} part at a near-tie; "
            f"largest error of logits {self.logits_error:.2e}, of attention {self.attention_error:.2e}; "
            f"most attended cell the same for {self.same_cell:.1%} of words"
        )


def compare(captioner: Captioner, reference: ParityVector) -> Comparison:
    """Hold a bundle against the reference on the reference's pixels."""
    [caption] = captioner.caption_pixels(reference.pixels[np.newaxis], DecodingOptions())
    theirs = reference.tokens.tolist()
    pairs = enumerate(zip(caption.tokens, theirs, strict=False))  # both end with [END], so they part before one is over
    divergence = next((step for step, (a, b) in pairs if a != b), None)
    logits, attention = forced(captioner, reference)
    allowed = reference.logits[0] > FORBIDDEN
    return Comparison(
        identical=divergence is None,
        divergence=divergence,
        margin=None if divergence is None else _margin(reference.logits[divergence]),
        logits_error=float(np.abs(logits - reference.logits)[:, allowed].max()),
        attention_error=float(np.abs(attention - reference.attention).max()),
        same_cell=float((_cells(attention) == _cells(reference.attention)).mean()),
        jensen_shannon=_jensen_shannon(attention, reference.attention),
    )


def forced(captioner: Captioner, reference: ParityVector) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The bundle's logits (T, V) and mean attention (T, h, w) while it is fed the reference's words."""
    backend = captioner.backend
    features, cache = backend.encode(reference.pixels[np.newaxis]), backend.empty_cache(batch=1)
    logits, attention = [], []
    for position, token in enumerate([captioner.bundle.vocabulary.start, *reference.tokens[:-1].tolist()]):
        step = backend.step(np.array([token], np.int32), position, features, cache)
        cache = step.cache
        logits.append(step.logits[0])
        attention.append(step.attention.mean(axis=(0, 1, 2)))  # (N,)
    return np.stack(logits), np.stack(attention).reshape(reference.attention.shape)


def compare_all(captioner: Captioner, references: Sequence[ParityVector]) -> Parity:
    """Hold a bundle against references of many photos."""
    return Parity(tuple(compare(captioner, reference) for reference in references))


def _margin(logits: NDArray[np.float32]) -> float:
    second, best = np.sort(logits)[-2:]
    return float(best - second)


def _cells(attention: NDArray[np.float32]) -> NDArray[np.intp]:
    cells: NDArray[np.intp] = attention.reshape(len(attention), -1).argmax(axis=1)
    return cells


def _jensen_shannon(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    """The mean over words of the Jensen-Shannon divergence of two attentions (T, h, w), in bits."""
    p, q = (np.maximum(maps.reshape(len(maps), -1).astype(np.float64), 1e-12) for maps in (ours, theirs))
    middle = (p + q) / 2
    return float((p * np.log2(p / middle) + q * np.log2(q / middle)).sum(axis=1).mean() / 2)
