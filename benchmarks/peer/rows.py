"""From what peers said to the rows of the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .registry import BASELINE, Entry
from .turns import Outcome, Said

HEADER = ("peer", "words equal", "caption p50, ms", "p90, ms", "encode, ms", "per token, ms", f"times {BASELINE}")


@dataclass(frozen=True)
class Measures:
    """What one peer's captions cost; times in seconds.

    captions, equal  how many were timed, and how many of them have Keras' words
    differing        of how many photos some caption has other words
    p50, p90         of whole captions, from pixels to words
    encode           median, None where that is no step of its own
    per_token        median of what a caption takes but for encoding, over its tokens, [END] included
    ratio            the sum of each photo's median over the baseline's of the same photos, None without one
    """

    captions: int
    equal: int
    differing: int
    p50: float
    p90: float
    encode: float | None
    per_token: float
    ratio: float | None


@dataclass(frozen=True)
class Row:
    """A peer: its name, what it is and how it runs here; its measures, or why it has none."""

    name: str
    what: str
    note: str
    measures: Measures | None
    error: str = ""


def build_rows(
    entries: Sequence[Entry], outcomes: Mapping[str, Outcome], expected: Sequence[Sequence[int]]
) -> list[Row]:
    """The rows in the entries' order; a peer that failed, even late, keeps its place with the reason.

    expected  Keras' words for each photo, as ids without [START] and [END]
    """
    baseline = outcomes.get(BASELINE)
    base = _by_photo(baseline.said) if baseline and not baseline.error else None
    rows = []
    for entry in entries:
        outcome = outcomes[entry.name]
        measures = None if outcome.error else measure(outcome.said, expected, base)
        rows.append(Row(entry.name, entry.what, outcome.note, measures, outcome.error))
    return rows


def measure(said: Sequence[Said], expected: Sequence[Sequence[int]], base: Mapping[int, float] | None) -> Measures:
    """The measures of captions, of which there is at least one; base is the baseline's median caption of each photo."""
    p50, p90 = np.percentile([one.caption for one in said], [50, 90]).tolist()
    different = [one.photo for one in said if list(one.tokens) != list(expected[one.photo])]
    by_photo = _by_photo(said)
    encodes = [one.encode for one in said if one.encode is not None]
    return Measures(
        captions=len(said),
        equal=len(said) - len(different),
        differing=len(set(different)),
        p50=p50,
        p90=p90,
        encode=_median(encodes) if encodes else None,
        per_token=_median([(one.caption - (one.encode or 0)) / (len(one.tokens) + 1) for one in said]),
        ratio=sum(by_photo.values()) / sum(base[photo] for photo in by_photo) if base else None,
    )


def _by_photo(said: Sequence[Said]) -> dict[int, float]:
    """The median caption of each photo: peers that are slow say fewer of them."""
    return {
        photo: _median([one.caption for one in said if one.photo == photo]) for photo in {one.photo for one in said}
    }


def cells(row: Row) -> list[str]:
    """A row of the table; one without measures ends with its reason."""
    one = row.measures
    if one is None:
        return [row.name, row.error]
    equal = f"{one.equal} of {one.captions}"
    if one.differing:
        equal += f"; {one.differing} photo{'s differ' if one.differing > 1 else ' differs'}"
    return [
        row.name,
        equal,
        f"{1000 * one.p50:.1f}",
        f"{1000 * one.p90:.1f}",
        "" if one.encode is None else f"{1000 * one.encode:.2f}",
        f"{1000 * one.per_token:.2f}",
        "" if one.ratio is None else f"{one.ratio:.2f}",
    ]


def legend(rows: Sequence[Row]) -> str:
    """What each row is, as a Markdown list."""
    return "\n".join(f"- {row.name}: {row.what}" + (f" ({row.note})" if row.note else "") for row in rows)


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))
