"""Bundles of one captioner side by side: which variant to ship."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle, read_bundle
from ..datasets import CaptionedPhoto
from ..errors import BundleError, MissingExtraError, OptionError
from ..progress import track
from ..runtime.caption import Caption
from ..runtime.captioner import Captioner, load
from ..runtime.options import DEFAULT, DecodingOptions
from ..timing.cold import cold_start, cold_starts
from ..timing.latency import Latencies, latencies
from .evaluate import caption_all, quality_of
from .quality import check_installed

COLD_STARTS = 5


@dataclass(frozen=True)
class Measures:
    """What one bundle's captions are worth, and what they cost.

    scores        by metric, as score gives them
    identical     the share of captions that are the reference's, word for word
    same_cell     the share of words whose most attended cell is the reference's, while the bundle is made to say the
                  reference's captions
    latencies     of the two graphs at batch 1
    caption_ms    milliseconds of the encoder, and of the decoder for as many tokens as the reference's median caption
    cold_start    seconds of a new process up to its first caption, the median of COLD_STARTS
    memory_bytes  of such a process at its peak, the least of them
    """

    scores: dict[str, float]
    identical: float
    same_cell: float
    latencies: Latencies
    caption_ms: float
    cold_start: float
    memory_bytes: int


@dataclass(frozen=True)
class Row:
    """One bundle: its directory, what it is called, the bytes of its two graphs and of all its files, its measures.

    Where it could not be measured there is an error instead, one sentence.
    """

    bundle: str
    label: str
    format: str
    graph_bytes: int
    bundle_bytes: int
    measures: Measures | None
    error: str


@dataclass(frozen=True)
class Comparison:
    """A row a bundle; the directory of the reference among them; and what they were measured with."""

    rows: tuple[Row, ...]
    reference: str
    photos: int
    options: DecodingOptions
    threads: int | None
    cores: int | None

    @property
    def complete(self) -> bool:
        """Whether every bundle could be measured."""
        return not any(row.error for row in self.rows)


@dataclass(frozen=True)
class _Captioned:
    captioner: Captioner
    captions: list[Caption]
    scores: dict[str, float]


def compare(
    bundles: Sequence[str | os.PathLike[str] | Bundle],
    photos: Sequence[CaptionedPhoto],
    options: DecodingOptions | None = None,
    against: str | os.PathLike[str] | Bundle | None = None,
    batch: int = 16,
    threads: int | None = None,
) -> Comparison:
    """Measure bundles of one captioner: size, quality, likeness to a reference, latency, memory and cold start.

    options  how words are chosen for the captions that are scored; those that are timed are greedy
    against  the reference, which becomes the last row unless it is one; None: the first bundle of the recipe fp32 that
             can be measured, or else the first one that can

    A bundle whose engine is missing or refuses it becomes a row with an error, but the reference must work. Raises
    OptionError where there is nothing to compare, or bundles are of several captioners; and what read_bundle, load and
    score raise, ImageError for a photo that cannot be read.
    """
    check_installed()
    options = options or DEFAULT
    chosen, anchor = _read(bundles, against)
    if not chosen or not photos:
        raise OptionError("A comparison needs a bundle and a photo at least.")
    _check_same_captioner(chosen)
    working: dict[Path, _Captioned] = {}
    errors: dict[Path, BundleError | MissingExtraError] = {}
    for bundle in chosen:
        try:
            cold_start(bundle.directory, photos[0].path, threads)  # first, for an engine may end its whole process
            captioner = load(bundle, threads)
            captions = caption_all(captioner, photos, options, batch, f"captions of {bundle.directory.name}")
        except (BundleError, MissingExtraError) as error:
            errors[bundle.directory] = error
        else:
            working[bundle.directory] = _Captioned(captioner, captions, quality_of(captions, photos).scores)
    candidates = [anchor] if anchor else sorted(chosen, key=lambda bundle: bundle.manifest.recipe != "fp32")
    reference = next((bundle.directory for bundle in candidates if bundle.directory in working), None)
    if reference is None:
        raise errors[candidates[0].directory]
    measures = _measure(working, reference, photos, threads)
    rows = tuple(_row(bundle, measures.get(bundle.directory), errors.get(bundle.directory)) for bundle in chosen)
    return Comparison(rows, str(reference), len(photos), options, threads, os.cpu_count())


def _read(
    bundles: Sequence[str | os.PathLike[str] | Bundle], against: str | os.PathLike[str] | Bundle | None
) -> tuple[list[Bundle], Bundle | None]:
    """All bundles, each directory once, and the one of them that is the reference if that was chosen."""
    read: dict[Path, Bundle] = {}
    for one in bundles if against is None else (*bundles, against):
        bundle = one if isinstance(one, Bundle) else read_bundle(Path(one))
        anchor = read.setdefault(bundle.directory.resolve(), bundle)
    return list(read.values()), None if against is None else anchor


def _check_same_captioner(bundles: Sequence[Bundle]) -> None:
    first, *others = bundles
    for other in others:
        if other.manifest.source_sha256 != first.manifest.source_sha256:
            raise OptionError(
                f"{first.directory} and {other.directory} are of two captioners; compare bundles of one captioner."
            )


def _measure(
    working: dict[Path, _Captioned], reference: Path, photos: Sequence[CaptionedPhoto], threads: int | None
) -> dict[Path, Measures]:
    captioners = [one.captioner for one in working.values()]
    truth = working[reference].captions
    tokens = statistics.median(len(caption.tokens) for caption in truth)
    cells = _same_cells(captioners, photos, truth)
    timed = latencies(captioners, [photo.path for photo in photos])
    cold = cold_starts(list(working), photos[0].path, COLD_STARTS, threads)
    return {
        directory: Measures(
            scores=one.scores,
            identical=float(np.mean([a.text == b.text for a, b in zip(one.captions, truth, strict=True)])),
            same_cell=same_cell,
            latencies=latency,
            caption_ms=latency.encode.median + tokens * latency.token.median,
            cold_start=statistics.median(start.seconds for start in starts),
            memory_bytes=min(start.peak_bytes for start in starts),
        )
        for (directory, one), same_cell, latency, starts in zip(working.items(), cells, timed, cold, strict=True)
    }


def _same_cells(
    captioners: Sequence[Captioner], photos: Sequence[CaptionedPhoto], captions: Sequence[Caption]
) -> list[float]:
    """Each captioner's share of words whose most attended cell is that of the caption, which it is made to say."""
    same, words = np.zeros(len(captioners)), 0
    for photo, caption in track(zip(photos, captions, strict=True), len(photos), "attention"):
        forced = DecodingOptions(prefix=caption.text, max_length=len(caption.tokens))
        theirs = _cells(caption)
        ours = np.stack([_cells(captioner.caption(photo.path, forced)) for captioner in captioners])  # (captioners, T)
        same += (ours == theirs).sum(axis=1)
        words += len(theirs)
    shares: list[float] = (same / words).tolist()
    return shares


def _cells(caption: Caption) -> NDArray[np.intp]:
    """The most attended cell of each word, (T,)."""
    cells: NDArray[np.intp] = caption.attention.reshape(len(caption.tokens), -1).argmax(axis=1)
    return cells


def _row(bundle: Bundle, measures: Measures | None, error: Exception | None) -> Row:
    return Row(
        bundle=str(bundle.directory),
        label=bundle.label,
        format=bundle.manifest.format,
        graph_bytes=bundle.graph_bytes,
        bundle_bytes=bundle.size,
        measures=measures,
        error=str(error or ""),
    )
