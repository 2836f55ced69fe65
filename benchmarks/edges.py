"""What int8 inputs and outputs would cost: what the encoder gives and the caches of a bundle rounded between graphs.

    python benchmarks/edges.py BUNDLE REFERENCE --data FLICKR8K [--limit 500]

Prints, for the bundle as it is, with one scale for each of these tensors, and with one for each channel of them: the
share of captions that are the reference's (its fp32 bundle's), and of words whose most attended cell is the same.
Scales are the largest values of 200 train photos, and a quarter more.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import capexport
from capexport.datasets import load_dataset
from capexport.runtime.backend import Backend, Step, Tensors
from capexport.runtime.caption import Caption
from capexport.runtime.captioner import Captioner

CALIBRATION, BATCH, HEADROOM, LEVELS = 200, 16, 1.25, 127


class Watched:
    """A backend that remembers the largest value of each channel, (C,) or (H, D), of what goes from graph to graph."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.largest: dict[str, np.ndarray] = {}

    def encode(self, images):
        return self._seen(self._backend.encode(images))

    def empty_cache(self, batch: int) -> Tensors:
        return self._backend.empty_cache(batch)

    def step(self, tokens, position, features, cache) -> Step:
        step = self._backend.step(tokens, position, features, cache)
        return Step(step.logits, step.attention, self._seen(step.cache))

    def _seen(self, tensors: Tensors) -> Tensors:
        for name, values in tensors.items():  # (B, N, C) or (B, H, N or P, D)
            self.largest[name] = np.maximum(self.largest.get(name, 0), np.abs(values).max(axis=(0, -2)))
        return tensors


class Rounded(Watched):
    """A backend whose graphs hand on whole numbers of a channel's steps, or of one step a tensor, within LEVELS."""

    def __init__(self, backend: Backend, steps: dict[str, np.ndarray]) -> None:
        super().__init__(backend)
        self._steps = steps

    def _seen(self, tensors: Tensors) -> Tensors:
        return {name: self._rounded(values, self._steps[name]) for name, values in tensors.items()}

    def _rounded(self, values, steps):
        steps = np.expand_dims(np.broadcast_to(steps, (*values.shape[1:-2], values.shape[-1])), -2)
        return (np.clip(np.round(values / steps), -LEVELS, LEVELS) * steps).astype(np.float32)


def captions_of(captioner: Captioner, backend: Backend, photos: Sequence[Path]) -> list[Caption]:
    running = Captioner(captioner.bundle, backend)
    return [c for c in running.caption_each(photos, batch=BATCH) if isinstance(c, Caption)]


def likeness(found: Sequence[Caption], truth: Sequence[Caption]) -> tuple[float, float]:
    pairs = list(zip(found, truth, strict=True))
    same = [(ours, theirs) for ours, theirs in pairs if ours.text == theirs.text]
    cells = np.concatenate([_cells(ours) == _cells(theirs) for ours, theirs in same])
    return len(same) / len(pairs), float(cells.mean())


def _cells(caption: Caption) -> np.ndarray:
    return caption.attention.reshape(len(caption.attention), -1).argmax(axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("reference", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--limit", type=int, default=500)
    given = parser.parse_args()
    photos = [photo.path for photo in load_dataset("flickr8k", given.data, "dev", given.limit)]
    learnt_from = [photo.path for photo in load_dataset("flickr8k", given.data, "train", CALIBRATION)]
    captioner, reference = (capexport.load(path, threads=1) for path in (given.bundle, given.reference))
    truth = captions_of(reference, reference.backend, photos)
    watched = Watched(captioner.backend)
    captions_of(captioner, watched, learnt_from)
    by_channel = {name: np.maximum(most, 1e-6) * HEADROOM / LEVELS for name, most in watched.largest.items()}
    by_tensor = {name: steps.max() for name, steps in by_channel.items()}
    print("| between the graphs | identical captions | same most attended cell |\n|---|---:|---:|")
    for name, backend in (
        ("float32", captioner.backend),
        ("int8, a scale for each tensor", Rounded(captioner.backend, by_tensor)),
        ("int8, a scale for each channel", Rounded(captioner.backend, by_channel)),
    ):
        identical, cells = likeness(captions_of(captioner, backend, photos), truth)
        print(f"| {name} | {identical:.1%} | {cells:.1%} |", flush=True)


if __name__ == "__main__":
    main()
