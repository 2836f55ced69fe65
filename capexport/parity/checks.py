"""Checks: what was found beside what is allowed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from ..image import Pixels
from ..manifest import Check
from ..recipes import Bounds
from ..runtime.captioner import Captioner
from ..runtime.options import DEFAULT
from .comparison import Parity

WHOLE_ERROR = 1e-3  # the same products, but not always by the same kernels


def within_bounds(parity: Parity, bounds: Bounds) -> list[Check]:
    """What a recipe's bounds say of a parity, in the order of the stages; what they do not bound is reported."""
    return [
        _error("relative error of features", parity.features_error, bounds.features_error),
        _error("largest error of a logit", parity.logits_error, bounds.logits_error),
        Check("rms error of logits", f"{parity.logits_rms:.2g}"),
        *_captions(parity, bounds.identical),
        _error("largest error of attention", parity.attention_error, bounds.attention_error),
        Check(
            "most attended cell the same",
            f"{parity.same_cell:.1%}",
            f"{bounds.same_cell:.0%} or more",
            parity.same_cell >= bounds.same_cell,
        ),
        Check("Jensen-Shannon divergence", f"{parity.jensen_shannon:.2g} bits a word"),
    ]


def whole_captions(captioner: Captioner, photos: Sequence[Pixels]) -> list[Check]:
    """Whether the graph for whole captions makes the captions that encoder and decoder make; nothing without one."""
    if captioner.greedy is None:
        return []
    steps = Captioner(captioner.bundle, captioner.backend)
    pairs = [[one.caption_pixels(pixels[np.newaxis], DEFAULT)[0] for one in (captioner, steps)] for pixels in photos]
    same = [(ours, theirs) for ours, theirs in pairs if ours.tokens == theirs.tokens]
    errors = [
        np.abs(np.subtract(*sides)).max()
        for ours, theirs in same
        for sides in (
            (ours.log_probabilities, theirs.log_probabilities),
            (ours.cross_attention, theirs.cross_attention),
        )
    ]
    largest = float(np.max(errors, initial=0))
    return [
        Check(
            "whole captions as step by step",
            f"{len(same)} of {len(pairs)}, log-probabilities and attention within {largest:.2g}",
            f"{len(pairs)}, within {WHOLE_ERROR:g}",
            len(same) == len(pairs) and largest <= WHOLE_ERROR,
        )
    ]


def compare_pixels(name: str, pairs: Iterable[tuple[Pixels, Pixels]], most: int | None = None) -> Check:
    """How far two readings of the same photos are from each other, in levels of 0 to 255; `most` are allowed."""
    differences = [np.abs(ours.astype(np.int16) - theirs) for ours, theirs in pairs]
    largest = max(int(difference.max()) for difference in differences)
    share = np.mean([np.count_nonzero(difference) / difference.size for difference in differences])
    found = f"{len(differences)} photos: {share:.1%} differ, by {largest} at most"
    return Check(name, found) if most is None else Check(name, found, f"by {most} at most", largest <= most)


def _error(name: str, value: float, most: float) -> Check:
    return Check(name, f"{value:.2g}", f"up to {most:g}", value <= most)


def _captions(parity: Parity, identical: float) -> list[Check]:
    count = len(parity.comparisons)
    least = count - math.ceil(round(count * (1 - identical), 9))  # in favour of few photos, not of rounding
    checks = [
        Check(
            "identical captions",
            f"{parity.identical} of {count}",
            f"{least} or more, near-ties counted in",
            parity.identical + parity.near_ties >= least,
        )
    ]
    if parity.divergences:
        steps, margins = parity.divergences, parity.margins
        checks += [
            Check("first divergent step", f"median {np.median(steps):g}, earliest {min(steps)}"),
            Check("top-two margin at that step", f"median {np.median(margins):.2g}, largest {max(margins):.2g}"),
            Check("near-ties among these steps", f"{parity.near_ties} of {len(steps)}"),
        ]
    return checks
