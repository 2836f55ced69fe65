"""verify: whether a bundle is what it says, on the photos it carries or on others."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..bundle import Bundle
from ..errors import OptionError, SourceError
from ..image import Photo, Pixels
from ..manifest import CAPTIONER, PARITY, Check, Graph, Manifest, Preprocessing
from ..parity.checks import compare_pixels, whole_captions, within_bounds
from ..parity.comparison import Parity, compare_all
from ..parity.vectors import ParityVector, unpack
from ..recipes import RECIPES
from ..runtime.backend import Tensors
from ..runtime.captioner import Captioner, load
from ..shipped import sample_photos


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
    checks, references = [_contract(captioner, own[0])], own
    if against is not None:
        pixels = [captioner.preprocess(photo) for photo in images] or [vector.pixels for vector in own]
        references, fingerprint = _by_keras(against, manifest, pixels)
        same = fingerprint == manifest.source_sha256
        checks.append(Check("made from this captioner", "yes" if same else "no", "yes", same))
    checks += _own_pixels(captioner, own)
    checks += _pixels_by_tensorflow(manifest.preprocessing, images, references)
    checks += whole_captions(captioner, [reference.pixels for reference in references])
    parity = compare_all(captioner, references)
    return Verification((*checks, *within_bounds(parity, RECIPES[manifest.recipe].bounds)), parity)


def _contract(captioner: Captioner, vector: ParityVector) -> Check:
    """Whether the graphs give the tensors that the manifest names, of its types and shapes."""
    backend, graphs = captioner.backend, captioner.bundle.manifest.graphs
    features, cache = backend.encode(vector.pixels[np.newaxis]), backend.empty_cache(batch=1)
    step = backend.step(np.array([captioner.bundle.vocabulary.start], np.int32), 0, features, cache)
    grown = {name.replace("self_", "next_"): tensor for name, tensor in step.cache.items()}
    given = {"logits": step.logits, "attention": step.attention, **grown}
    odd = [*_odd(features, graphs["encoder"]), *_odd(given, graphs["decoder"])]
    if captioner.greedy is not None:
        odd += _odd(captioner.greedy.run(vector.pixels[np.newaxis]), graphs[CAPTIONER])
    return Check("tensors as in the manifest", ", ".join(odd) or "all", "all", not odd)


def _odd(tensors: Tensors, graph: Graph) -> list[str]:
    steps = tensors["tokens"].shape[-1] if "tokens" in tensors else 0
    lengths: dict[int | str, int] = {"B": 1, "P_next": 1, "T": steps}
    stated = {t.name: (t.dtype, tuple(lengths.get(n, n) for n in t.shape)) for t in graph.outputs}
    actual = {name: (tensor.dtype.name, tensor.shape) for name, tensor in tensors.items()}
    return sorted(name for name in stated.keys() | actual.keys() if stated.get(name) != actual.get(name))


def _own_pixels(captioner: Captioner, own: Sequence[ParityVector]) -> list[Check]:
    """This machine's preprocessing against the bundle's photos, as far as they are installed."""
    try:
        samples = {path.name: path for path in sample_photos()}
    except SourceError:
        return []
    pairs = [(captioner.preprocess(samples[one.photo]), one.pixels) for one in own if one.photo in samples]
    return [compare_pixels("pixels as when converted", pairs, most=1)] if pairs else []


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
