"""The same bundles on two machines: whether they say the same words, and how far apart their logits are.

    python benchmarks/machines.py prove BUNDLE...                          capexport verify, without installing
    python benchmarks/machines.py say OUT.npz BUNDLE... [--crops 50]       on each machine, with the thin runtime alone
    python benchmarks/machines.py compare HERE.npz THERE.npz

The photos are the samples that come with capexport, from their JPEG files, and crops of them, drawn by a seed.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import capexport
from capexport.cli.verify import table
from capexport.runtime.captioner import Captioner
from capexport.shipped import sample_photos

Record = dict[str, NDArray[Any]]


def photos(captioner: Captioner, crops: int) -> Iterator[NDArray[np.uint8]]:
    """The samples as the captioner sees them, then crops and flips of them."""
    samples = sample_photos()
    yield from map(captioner.preprocess, samples)
    random = np.random.default_rng(0)
    whole = [capexport.load_image(path, (480, 480)) for path in samples]
    for k in range(crops):
        side = int(random.integers(200, 480))
        top, left = random.integers(0, 480 - side, 2)
        crop = whole[k % len(whole)][top : top + side, left : left + side, :: random.choice([-1, 1])]
        yield captioner.preprocess(np.ascontiguousarray(crop))


def say(captioner: Captioner, pixels: NDArray[np.uint8]) -> tuple[list[int], NDArray[np.float32], NDArray[np.float32]]:
    """A greedy caption by encoder and decoder: tokens (T), logits (T, V), mean attention (T, N)."""
    backend, vocabulary = captioner.backend, captioner.bundle.vocabulary
    features, cache = backend.encode(pixels[np.newaxis]), backend.empty_cache(batch=1)
    tokens, logits, attention = [vocabulary.start], [], []
    while tokens[-1] != vocabulary.end and len(logits) < captioner.bundle.manifest.shape.max_length:
        step = backend.step(np.array(tokens[-1:], np.int32), len(logits), features, cache)
        cache = step.cache
        logits.append(step.logits[0])
        attention.append(step.attention.mean(axis=(0, 1, 2)))
        tokens.append(int(step.logits[0].argmax()))
    return tokens[1:], np.stack(logits), np.stack(attention)


def record(bundles: list[Path], crops: int) -> Record:
    """All that is compared: arrays by the bundle's name, the photo's number and what they are."""
    arrays: Record = {}
    for bundle in bundles:
        captioner = capexport.load(bundle)
        for k, pixels in enumerate(photos(captioner, crops)):
            found = say(captioner, pixels)
            named = zip(("pixels", "tokens", "logits", "attention"), (pixels, *found), strict=True)
            arrays |= {f"{bundle.name}|{k}|{name}": np.asarray(value) for name, value in named}
        print(f"{platform.machine()}: {bundle.name}, {k + 1} photos", file=sys.stderr, flush=True)
    return arrays


def compare(here: Record, there: Record) -> str:
    """A Markdown table with a row a bundle; errors are over all words up to where two captions part."""
    lines = [
        "| bundle | pixels | same captions | logits differ by at most | rms | attention by at most | same cell |",
        "|---|---|---|---|---|---|---|",
    ]
    for bundle in dict.fromkeys(name.split("|")[0] for name in here):
        numbers = [name.split("|")[1] for name in here if name.startswith(f"{bundle}|") and name.endswith("|tokens")]
        rows = [_difference(*({n: r[f"{bundle}|{k}|{n}"] for n in NAMES} for r in (here, there))) for k in numbers]
        levels, same, logits, attention, cells = zip(*rows, strict=True)
        differences = np.concatenate([one.ravel() for one in logits])
        lines.append(
            f"| {bundle} | {'the same' if not any(levels) else f'by up to {max(levels)}'} | {sum(same)} of {len(same)} "
            f"| {np.abs(differences).max():.2g} | {np.sqrt(np.square(differences).mean()):.2g} "
            f"| {max(float(one.max()) for one in attention):.2g} | {np.concatenate(cells).mean():.1%} |"
        )
    return "\n".join(lines)


NAMES = ("pixels", "tokens", "logits", "attention")


def _difference(here: Record, there: Record) -> tuple[int, bool, NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Of one photo: levels of pixels, whether the captions are the same, logits, attention, and same cells (T)."""
    pairs = enumerate(zip(here["tokens"], there["tokens"], strict=False))
    steps = next((k + 1 for k, (ours, theirs) in pairs if ours != theirs), len(here["tokens"]))
    levels = int(np.abs(here["pixels"].astype(int) - there["pixels"]).max())
    speakable = here["logits"][:steps] > -1e8
    logits = (here["logits"][:steps] - there["logits"][:steps])[speakable]
    ours, theirs = here["attention"][:steps], there["attention"][:steps]
    same = np.array_equal(here["tokens"], there["tokens"])
    return levels, same, logits, np.abs(ours - theirs), ours.argmax(axis=1) == theirs.argmax(axis=1)


def prove(bundles: list[Path]) -> bool:
    """Print each bundle's checks against what Keras left in it; whether all hold."""
    results = [capexport.verify(bundle) for bundle in bundles]
    for bundle, result in zip(bundles, results, strict=True):
        print(f"{bundle.name}\n{table(result)}", flush=True)
    return all(result.holds for result in results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ways = parser.add_subparsers(dest="way", required=True)
    proving = ways.add_parser("prove")
    proving.add_argument("bundles", type=Path, nargs="+")
    saying = ways.add_parser("say")
    saying.add_argument("out", type=Path)
    saying.add_argument("bundles", type=Path, nargs="+")
    saying.add_argument("--crops", type=int, default=50)
    comparing = ways.add_parser("compare")
    comparing.add_argument("records", type=Path, nargs=2)
    parsed = parser.parse_args()
    if parsed.way == "prove":
        sys.exit(0 if prove(parsed.bundles) else 1)
    elif parsed.way == "say":
        np.savez(parsed.out, **record(parsed.bundles, parsed.crops))
    else:
        print(compare(*(dict(np.load(path)) for path in parsed.records)))


if __name__ == "__main__":
    main()
