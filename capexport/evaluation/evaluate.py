"""Captions of a data set's photos, held against people's."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ..bundle import Bundle
from ..datasets import CaptionedPhoto
from ..errors import SourceError
from ..manifest import MANIFEST
from ..progress import track
from ..runtime.caption import Caption
from ..runtime.captioner import Captioner, load
from ..runtime.options import DecodingOptions
from .quality import Quality, check_installed, score


@dataclass(frozen=True)
class Evaluation:
    """The quality of one captioner's captions of so many photos, and the seconds that captioning took."""

    quality: Quality
    photos: int
    seconds: float


def evaluate(
    captioner: str | Path | Bundle | Captioner,
    photos: Sequence[CaptionedPhoto],
    options: DecodingOptions | None = None,
    batch: int = 16,
    threads: int | None = None,
) -> Evaluation:
    """Caption the photos and score the captions.

    captioner  a bundle or its directory, a runtime captioner, or the directory of a source captioner, which is
               converted to a passing ONNX bundle of float32 first

    Raises what load, convert and score raise, ImageError for a photo that cannot be read.
    """
    check_installed()
    with tempfile.TemporaryDirectory() as folder:
        runtime = _runtime(captioner, threads, Path(folder))
        started = time.monotonic()
        captions = caption_all(runtime, photos, options, batch)
        seconds = time.monotonic() - started
    return Evaluation(quality_of(captions, photos), len(photos), seconds)


def caption_all(
    captioner: Captioner,
    photos: Sequence[CaptionedPhoto],
    options: DecodingOptions | None = None,
    batch: int = 16,
    description: str = "captioning",
) -> list[Caption]:
    """The captioner's captions of the photos; raises ImageError for a photo that cannot be read."""
    captions = cast("Iterator[Caption]", captioner.caption_each([p.path for p in photos], options, batch=batch))
    return list(track(captions, len(photos), description))


def quality_of(captions: Sequence[Caption], photos: Sequence[CaptionedPhoto]) -> Quality:
    """The captions, one of each photo, held against people's; raises what score raises."""
    candidates = {str(photo.path): caption.text for photo, caption in zip(photos, captions, strict=True)}
    return score({str(photo.path): photo.captions for photo in photos}, candidates)


def _runtime(captioner: Any, threads: int | None, folder: Path) -> Captioner:
    if isinstance(captioner, Captioner):
        return captioner
    if isinstance(captioner, Bundle) or (Path(captioner) / MANIFEST).exists():
        return load(captioner, threads)
    if not (Path(captioner) / "config.json").exists():
        raise SourceError(f"There is neither a bundle nor a captioner at {captioner}.")
    from ..export.convert import convert

    return load(convert(captioner, folder / "bundle"), threads)
