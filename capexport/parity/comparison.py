"""Parity: a bundle against a Keras captioner, stage by stage: features, logits, captions, attention.

T tokens, V vocabulary, N image positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError
from ..runtime.backend import Tensors
from ..runtime.captioner import Captioner
from ..runtime.options import DEFAULT
from ..runtime.rules import FORBIDDEN
from .vectors import ParityVector, diagonal

NEAR_TIE = 1e-3  # logits: a margin between the two best words within which two engines may disagree

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Comparison:
    """One photo's caption by a bundle, against the reference's.

    The greedy captions are compared as wholes. Logits and attention are compared at every step of the reference's own
    words (teacher forcing), so that they say the same of a bundle whose words part early.

    features_error    what the encoder gives: the root mean square of its errors over that of the reference's own
    logits_error      the largest difference of any logit that is not banned
    logits_rms        the root mean square of those differences
    identical         the same tokens, to the last
    divergence        the first step with another token, counted from 0, None if identical
    margin            logits: how far the reference's best word is ahead of its second at that step
    attention_error   the largest difference of any attention weight
    same_cell         the share of words whose most attended cell is the reference's
    jensen_shannon    the mean divergence of the words' attention, in bits (Lin, 1991)
    """

    features_error: float
    logits_error: float
    logits_rms: float
    identical: bool
    divergence: int | None
    margin: float | None
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
    def divergences(self) -> list[int]:
        """The first other step of each caption that is not identical."""
        return [one.divergence for one in self.comparisons if one.divergence is not None]

    @property
    def margins(self) -> list[float]:
        """The reference's margin at each of these steps."""
        return [one.margin for one in self.comparisons if one.margin is not None]

    @property
    def features_error(self) -> float:
        return _largest(comparison.features_error for comparison in self.comparisons)

    @property
    def logits_error(self) -> float:
        return _largest(comparison.logits_error for comparison in self.comparisons)

    @property
    def logits_rms(self) -> float:
        return _rms([comparison.logits_rms for comparison in self.comparisons])

    @property
    def attention_error(self) -> float:
        return _largest(comparison.attention_error for comparison in self.comparisons)

    @property
    def same_cell(self) -> float:
        return float(np.mean([comparison.same_cell for comparison in self.comparisons]))

    @property
    def jensen_shannon(self) -> float:
        return float(np.mean([comparison.jensen_shannon for comparison in self.comparisons]))

    def __str__(self) -> str:
        return (
            f"{self.identical} of {len(self.comparisons)} captions identical, {self.near_ties} part at a near-tie; "
            f"relative error of features {self.features_error:.2e}; "
            f"largest error of logits {self.logits_error:.2e}, of attention {self.attention_error:.2e}; "
            f"most attended cell the same for {self.same_cell:.1%} of words"
        )


def compare(captioner: Captioner, reference: ParityVector) -> Comparison:
    """Hold a bundle against the reference on the reference's pixels.

    Raises BundleError for graphs whose tensors have not the reference's shapes.
    """
    features = captioner.backend.encode(reference.pixels[np.newaxis])
    logits, attention = _forced(captioner, features, reference)
    reference_attention = reference.attention.reshape(len(reference.tokens), -1)  # (T, N)
    logits_error = _difference("logits", logits, reference.logits)[:, reference.logits[0] > FORBIDDEN]
    attention_error = _difference("attention", attention, reference_attention)
    divergence = _divergence(captioner, reference)
    return Comparison(
        features_error=_features_error(features, reference),
        logits_error=float(np.abs(logits_error).max()),
        logits_rms=_rms(logits_error),
        identical=divergence is None,
        divergence=divergence,
        margin=None if divergence is None else margin(reference.logits[divergence]),
        attention_error=float(np.abs(attention_error).max()),
        same_cell=float((attention.argmax(axis=1) == reference_attention.argmax(axis=1)).mean()),
        jensen_shannon=_jensen_shannon(attention, reference_attention),
    )


def compare_all(captioner: Captioner, references: Sequence[ParityVector]) -> Parity:
    """Hold a bundle against references of many photos."""
    return Parity(tuple(compare(captioner, reference) for reference in references))


def _features_error(features: Tensors, reference: ParityVector) -> float:
    positions, errors, truth = diagonal(reference.attention.shape[1:]), [], []
    for name, ours in features.items():
        if name not in reference.memory:
            raise BundleError(f"The bundle's encoder gives {name}, of which the reference says nothing.")
        theirs = reference.memory[name]
        errors.append(_difference(name, ours[0][..., positions, :], theirs).ravel())
        truth.append(theirs.ravel())
    return _rms(np.concatenate(errors)) / (_rms(np.concatenate(truth)) or 1)


def _forced(captioner: Captioner, features: Tensors, reference: ParityVector) -> tuple[Floats, Floats]:
    """The bundle's logits (T, V) and mean attention (T, N) while it is fed the reference's words."""
    backend = captioner.backend
    cache = backend.empty_cache(batch=1)
    logits, attention = [], []
    for position, token in enumerate([captioner.bundle.vocabulary.start, *reference.tokens[:-1].tolist()]):
        step = backend.step(np.array([token], np.int32), position, features, cache)
        cache = step.cache
        logits.append(step.logits[0])
        attention.append(step.attention.mean(axis=(0, 1, 2)))  # (N,)
    return np.stack(logits), np.stack(attention)


def _divergence(captioner: Captioner, reference: ParityVector) -> int | None:
    [caption] = captioner.caption_pixels(reference.pixels[np.newaxis], DEFAULT)
    pairs = zip(caption.tokens, reference.tokens, strict=False)  # both end with [END], so they part before one is over
    return next((step for step, (ours, theirs) in enumerate(pairs) if ours != theirs), None)


def _difference(name: str, ours: Floats, theirs: Floats) -> NDArray[np.float64]:
    if ours.shape != theirs.shape:
        raise BundleError(f"The bundle's {name} have the shape {ours.shape}, the reference's {theirs.shape}.")
    return np.subtract(ours, theirs, dtype=np.float64)


def _largest(values: Iterable[float]) -> float:
    return float(np.max(list(values)))  # of which NaN is the largest, unlike of Python's max


def _rms(values: NDArray[np.floating] | list[float]) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def margin(logits: Floats) -> float:
    """By how much the best word's logit is above the second's; logits (V)."""
    second, best = np.sort(logits)[-2:]
    return float(best - second)


def _jensen_shannon(ours: Floats, theirs: Floats) -> float:
    """The mean over words of the Jensen-Shannon divergence of two attentions (T, N), in bits."""
    p, q = (np.maximum(maps.astype(np.float64), 1e-12) for maps in (ours, theirs))
    middle = (p + q) / 2
    return float((p * np.log2(p / middle) + q * np.log2(q / middle)).sum(axis=1).mean() / 2)
