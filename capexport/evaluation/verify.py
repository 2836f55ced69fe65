"""verify: whether a bundle is what it says, on the photos it carries or on others."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..bundle import Bundle
from ..errors import OptionError, SourceError
from ..image import Photo, Pixels
from ..manifest import PARITY, Check, Manifest, Preprocessing
from ..parity.checks import compare_pixels, whole_captions, within_bounds
from ..parity.comparison import Parity, compare_all
from ..parity.own import own_checks
from ..parity.vectors import ParityVector, unpack
from ..recipes import RECIPES
from ..runtime.captioner import load


@dataclass(frozen=True)
class Verification:
    """All the checks of one bundle, and the comparisons behind them."""

    checks: tuple[Check, ...]
    parity: Parity

    @property
    def holds(self) -> bool:
        """Whether every check does."""
        return all(check.holds for check in self.checks)


def verify(
    bundle: str | os.PathLike[str] | Bundle,
    against: str | os.PathLike[str] | Any | None = None,
    images: Sequence[Photo] = (),
    threads: int | None = None,
) -> Verification:
    """Hold a bundle against Keras, within the bounds of its recipe.

    against  a source captioner's directory or a live captioner; None: the vectors that Keras left in the bundle, for
             which no TensorFlow is needed
    images   the photos to caption; those of the bundle's own vectors, if there are none

    Raises what load and load_captioner raise, OptionError for images without `against`, SourceError for a captioner
    of another shape than the bundle's.
    """
    captioner = load(bundle, threads)
    manifest = captioner.bundle.manifest
    own = unpack(captioner.bundle.files[PARITY], manifest)
    if images and against is None:
        raise OptionError("Only Keras can tell what is right for other photos: name its captioner with against.")
    checks, references = own_checks(captioner, own), own
    if against is not None:
        pixels = [captioner.preprocess(photo) for photo in images] or [vector.pixels for vector in own]
        references, fingerprint = _by_keras(against, manifest, pixels)
        same = fingerprint == manifest.source_sha256
        checks.append(Check("made from this captioner", "yes" if same else "no", "yes", same))
    checks += _pixels_by_tensorflow(manifest.preprocessing, images, references)
    checks += whole_captions(captioner, [reference.pixels for reference in references])
    parity = compare_all(captioner, references)
    return Verification((*checks, *within_bounds(parity, RECIPES[manifest.recipe].bounds)), parity)


def _pixels_by_tensorflow(
    preprocessing: Preprocessing, images: Sequence[Photo], references: Sequence[ParityVector]
) -> list[Check]:
    """The photos' pixels against TensorFlow's own; reported alone, since image.py is meant to do some things better."""
    if not images:
        return []
    from ..captioner.reading import read_with_tensorflow

    read = [read_with_tensorflow(photo, preprocessing) for photo in images]
    pairs = [(one.pixels, pixels) for one, pixels in zip(references, read, strict=True) if pixels is not None]
    return [compare_pixels("pixels beside TensorFlow's", pairs)] if pairs else []


def _by_keras(against: Any, manifest: Manifest, pixels: Sequence[Pixels]) -> tuple[list[ParityVector], str]:
    """What Keras makes of the pixels, and the captioner's fingerprint."""
    from ..captioner.measures import image_size, measure
    from ..captioner.reference import references
    from ..captioner.storage import live
    from ..export.exporter import source_fingerprint
    from ..progress import track

    captioner = live(against)
    if (measure(captioner), image_size(captioner)) != (manifest.shape, manifest.preprocessing.size):
        raise SourceError("The captioner has another shape than the bundle, which was not made from it.")
    truth = list(track(references(captioner, pixels), len(pixels), "Keras"))
    return truth, source_fingerprint(captioner)
