"""verify: whether a bundle is what it says, on the photos it carries or on others."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle import Bundle
from ..errors import OptionError
from ..image import Photo
from ..manifest import PARITY, Graph
from ..parity_vectors import ParityVector, unpack
from ..recipes import RECIPES
from ..runtime.backend import Tensors
from ..runtime.captioner import Captioner, load
from .parity import Parity, compare_all


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: what was found, what is allowed, and whether it holds."""

    name: str
    found: str
    allowed: str
    holds: bool


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

    Raises what load and load_captioner raise, OptionError for images without `against`.
    """
    captioner = load(bundle, threads)
    own = unpack(captioner.bundle.files[PARITY])
    if images and against is None:
        raise OptionError("Only Keras can tell what is right for other photos: name its captioner with against.")
    checks = [_contract(captioner, own[0])]
    references = own
    if against is not None:
        pixels = [captioner.preprocess(photo) for photo in images] or [vector.pixels for vector in own]
        references, fingerprint = _by_keras(against, pixels)
        same = fingerprint == captioner.bundle.manifest.source_sha256
        checks.append(Check("made from this captioner", "yes" if same else "no", "yes", same))
    parity = compare_all(captioner, references)
    return Verification((*checks, *_within_bounds(parity, captioner.bundle.manifest.recipe)), parity)


def _within_bounds(parity: Parity, recipe: str) -> list[Check]:
    bounds, count = RECIPES[recipe].bounds, len(parity.comparisons)
    least = count - math.ceil(count * (1 - bounds.identical))
    alike = parity.identical + parity.near_ties
    return [
        Check("identical captions", f"{alike} of {count}", f"{least} or more", alike >= least),
        *(
            Check(name, f"{value:.2g}", f"up to {most:g}", value <= most)
            for name, value, most in (
                ("largest error of a logit", parity.logits_error, bounds.logits_error),
                ("largest error of attention", parity.attention_error, bounds.attention_error),
            )
        ),
        Check(
            "most attended cell the same",
            f"{parity.same_cell:.1%}",
            f"{bounds.same_cell:.0%} or more",
            parity.same_cell >= bounds.same_cell,
        ),
    ]


def _contract(captioner: Captioner, vector: ParityVector) -> Check:
    """Whether the graphs give the tensors that the manifest names, of its types and shapes."""
    backend, graphs = captioner.backend, captioner.bundle.manifest.graphs
    features, cache = backend.encode(vector.pixels[np.newaxis]), backend.empty_cache(batch=1)
    step = backend.step(np.array([captioner.bundle.vocabulary.start], np.int32), 0, features, cache)
    grown = {name.replace("self_", "next_"): tensor for name, tensor in step.cache.items()}
    given = {"logits": step.logits, "attention": step.attention, **grown}
    odd = [*_odd(features, graphs["encoder"]), *_odd(given, graphs["decoder"])]
    return Check("tensors as in the manifest", ", ".join(odd) or "all", "all", not odd)


def _odd(tensors: Tensors, graph: Graph) -> list[str]:
    stated = {t.name: (t.dtype, tuple(1 if n in ("B", "P_next") else n for n in t.shape)) for t in graph.outputs}
    actual = {name: (tensor.dtype.name, tensor.shape) for name, tensor in tensors.items()}
    return sorted(name for name in stated.keys() | actual.keys() if stated.get(name) != actual.get(name))


def _by_keras(against: Any, pixels: Sequence[np.ndarray]) -> tuple[list[ParityVector], str]:
    """What Keras makes of the pixels, and the captioner's fingerprint."""
    from ..captioner.reference import references
    from ..captioner.storage import load_captioner
    from ..export.convert import source_fingerprint
    from ..progress import track

    captioner = load_captioner(Path(against)) if isinstance(against, str | os.PathLike) else against
    truth = list(track(references(captioner, pixels), len(pixels), "Keras"))
    return truth, source_fingerprint(captioner)
