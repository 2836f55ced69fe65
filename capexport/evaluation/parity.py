"""Parity: whole greedy generations of a bundle against those of a live Keras captioner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..image import Pixels
from ..parity_vectors import ParityVector
from ..runtime.backend import Step
from ..runtime.caption import Caption
from ..runtime.captioner import Captioner
from ..runtime.options import DecodingOptions

NEAR_TIE = 1e-3  # logits: a margin between the two best words within which two engines may disagree


@dataclass(frozen=True)
class Comparison:
    """One photo's generation by a bundle, against the reference's.

    identical        the same tokens, to the last
    divergence       the first step with another token, None if identical
    margin           logits: how far the reference's best word is ahead of its second at that step
    logits_error     the largest difference of any logit that is not banned, up to the divergence
    attention_error  likewise of any attention weight
    """

    identical: bool
    divergence: int | None
    margin: float | None
    logits_error: float
    attention_error: float

    @property
    def near_tie(self) -> bool:
        """Whether the generations part where the reference itself hardly prefers one word."""
        return self.margin is not None and self.margin < NEAR_TIE


@dataclass(frozen=True)
class Parity:
    """Comparisons of many photos, summed up."""

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

    def __str__(self) -> str:
        return (
            f"{self.identical} of {len(self.comparisons)} captions identical, {self.near_ties} part at a near-tie; "
            f"largest error of logits {self.logits_error:.2e}, of attention {self.attention_error:.2e}"
        )


def compare(captioner: Captioner, reference: ParityVector) -> Comparison:
    """Hold a bundle's greedy caption of the reference's pixels against the reference."""
    recorder = _Recorder(captioner)
    caption = recorder.caption(reference.pixels)
    ours, theirs = list(caption.tokens), reference.tokens.tolist()
    pairs = zip(ours, theirs, strict=False)
    divergence = next((step for step, (a, b) in enumerate(pairs) if a != b), None)
    steps = len(theirs) if divergence is None else divergence + 1  # the inputs are the same up to there
    logits = np.stack(recorder.logits[:steps])
    allowed = reference.logits[0] > -1e8
    second, best = np.sort(reference.logits[steps - 1])[-2:]
    return Comparison(
        identical=divergence is None,
        divergence=divergence,
        margin=None if divergence is None else float(best - second),
        logits_error=float(np.abs(logits - reference.logits[:steps])[:, allowed].max()),
        attention_error=float(np.abs(caption.attention[:steps] - reference.attention[:steps]).max()),
    )


class _Recorder:
    """A captioner whose every step's logits are kept."""

    def __init__(self, captioner: Captioner) -> None:
        self._captioner = Captioner(captioner.bundle, self)
        self._backend = captioner.backend
        self.encode, self.empty_cache = captioner.backend.encode, captioner.backend.empty_cache
        self.logits: list[np.ndarray] = []

    def caption(self, pixels: Pixels) -> Caption:
        [caption] = self._captioner.caption_pixels(pixels[np.newaxis], DecodingOptions())
        return caption

    def step(self, *inputs: Any) -> Step:
        step = self._backend.step(*inputs)
        self.logits.append(step.logits[0])
        return step


def compare_all(captioner: Captioner, references: Sequence[ParityVector]) -> Parity:
    """Hold a bundle against references of many photos."""
    return Parity(tuple(compare(captioner, reference) for reference in references))
