"""A bundle held against the vectors that it carries: whether its files belong together and say here what they said."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import BundleError, SourceError
from ..manifest import CAPTIONER, PARITY, Check, Graph
from ..recipes import RECIPES
from ..runtime.backend import Tensors
from ..runtime.captioner import Captioner
from ..shipped import sample_photos
from .checks import compare_pixels, whole_captions, within_bounds
from .comparison import compare_all
from .vectors import ParityVector, unpack


def check_itself(captioner: Captioner) -> None:
    """Raise BundleError unless a loaded bundle's words, logits and attention are within its recipe's bounds."""
    manifest = captioner.bundle.manifest
    own = unpack(captioner.bundle.files[PARITY], manifest)
    checks = own_checks(captioner, own)
    if all(check.holds for check in checks):  # otherwise the graphs may be unfit for what follows
        checks += whole_captions(captioner, [vector.pixels for vector in own])
        checks += within_bounds(compare_all(captioner, own), RECIPES[manifest.recipe].bounds)
    failed = [f"{check.name}: {check.found} (allowed: {check.allowed})" for check in checks if not check.holds]
    if failed:
        raise BundleError(
            f"The bundle {captioner.bundle.directory} does not say what it said when it was made: {'; '.join(failed)}."
        )


def own_checks(captioner: Captioner, own: Sequence[ParityVector]) -> list[Check]:
    """What can be said before any caption: its tensors, its vocabulary, and this machine's preprocessing."""
    return [_contract(captioner, own[0]), *_vocabulary(captioner, own), *_pixels(captioner, own)]


def _contract(captioner: Captioner, vector: ParityVector) -> Check:
    """Whether the graphs give the tensors that the manifest names, of its types and shapes."""
    backend, graphs = captioner.backend, captioner.bundle.manifest.graphs
    features, cache = backend.encode(vector.pixels[np.newaxis]), backend.empty_cache(batch=1)
    step = backend.step(np.array([captioner.bundle.vocabulary.start], np.int32), 0, features, cache)
    grown = {name.replace("self_", "next_"): tensor for name, tensor in step.cache.items()}
    given = {"logits": step.logits, "attention": step.attention, **grown}
    past = next(iter(cache.values())).shape[2]
    odd = [*_odd(features, graphs["encoder"]), *_odd(given, graphs["decoder"], past)]
    if captioner.greedy is not None:
        odd += _odd(captioner.greedy.run(vector.pixels[np.newaxis]), graphs[CAPTIONER])
    return Check("tensors as in the manifest", ", ".join(odd) or "all", "all", not odd)


def _odd(tensors: Tensors, graph: Graph, past: int = 0) -> list[str]:
    steps = tensors["tokens"].shape[-1] if "tokens" in tensors else 0
    lengths: dict[int | str, int] = {"B": 1, "P": past, "P_next": past + 1, "T": steps}
    stated = {t.name: (t.dtype, tuple(lengths.get(n, n) for n in t.shape)) for t in graph.outputs}
    actual = {name: (tensor.dtype.name, tensor.shape) for name, tensor in tensors.items()}
    return sorted(name for name in stated.keys() | actual.keys() if stated.get(name) != actual.get(name))


def _vocabulary(captioner: Captioner, own: Sequence[ParityVector]) -> list[Check]:
    """A failed check if the words are not those of the captioner that made the vectors, which alone are numbers."""
    known = {vector.vocabulary for vector in own} - {""}
    another = known - {captioner.bundle.vocabulary.sha256}
    return [Check("vocabulary as when converted", "no", "yes", False)] if another else []


def _pixels(captioner: Captioner, own: Sequence[ParityVector]) -> list[Check]:
    """This machine's preprocessing against the bundle's photos, as far as they are installed."""
    try:
        samples = {path.name: path for path in sample_photos()}
    except SourceError:
        return []
    pairs = [(captioner.preprocess(samples[one.photo]), one.pixels) for one in own if one.photo in samples]
    return [compare_pixels("pixels as when converted", pairs, most=1)] if pairs else []
