"""A folder of photos, captioned into a file, beside its encoder and decoder alone.

    python benchmarks/folder.py PHOTOS BUNDLE... [--photos 400] [--rounds 5] [--threads 2]

Prints photos a second, in turns, round after round (medians, and the median of each round's own ratios):

    graphs   encoder and decoder alone: photos read before, by all threads, at the batch that is best for them
    reading  photos read by all threads, and nothing else
    folder   the whole of `capexport caption PHOTOS --out FILE`, from files to rows

A processor that is busy with both cannot do more than reading and graphs one after the other allow; the last column
says how much of that is reached.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import capexport
from capexport import Captioner, DecodingOptions
from capexport.batch.run import Folder, caption_folder
from capexport.cli.photos import photos_in

BATCHES = (8, 16, 32)
GREEDY = DecodingOptions()
Turns = dict[str, Callable[[], object]]


def turns(captioner: Captioner, folder: Path, photos: list[Path]) -> Turns:
    """What takes turns, by name; the graphs once for each of BATCHES, in parts by threads and as a whole."""
    pixels = np.stack([captioner.preprocess(photo) for photo in photos])

    def read() -> None:
        with ThreadPoolExecutor(captioner.threads) as pool:
            for _ in pool.map(captioner.preprocess, photos):
                pass

    def parts(batch: int) -> None:
        with ThreadPoolExecutor(captioner.threads) as pool:
            batches = [pixels[k : k + batch] for k in range(0, len(pixels), batch)]
            list(pool.map(lambda part: len(captioner.caption_part(part, GREEDY)), batches))

    def wholes(batch: int) -> None:
        for k in range(0, len(pixels), batch):
            captioner.caption_pixels(pixels[k : k + batch], GREEDY)

    def whole_folder() -> None:
        with tempfile.TemporaryDirectory() as out:
            caption_folder(captioner, Folder(folder, Path(out) / "captions.jsonl"), GREEDY)

    graphs: Turns = {}
    for batch in BATCHES:
        for kind in (parts, wholes):
            graphs[f"graphs {batch} {kind.__name__}"] = functools.partial(kind, batch)
    return {**graphs, "reading": read, "folder": whole_folder}


def measure(what: Turns, photos: int, rounds: int) -> dict[str, list[float]]:
    """Photos a second of each, round after round; a first round is not counted."""
    rates: dict[str, list[float]] = {name: [] for name in what}
    for _ in range(rounds + 1):
        for name, run in what.items():
            began = time.perf_counter()
            run()
            rates[name].append(photos / (time.perf_counter() - began))
    return {name: found[1:] for name, found in rates.items()}


def row(name: str, rates: dict[str, list[float]]) -> str:
    middle = {kind: statistics.median(found) for kind, found in rates.items()}
    best = max((kind for kind in rates if kind.startswith("graphs")), key=lambda kind: middle[kind])
    rounds = list(zip(rates[best], rates["reading"], rates["folder"], strict=True))
    of_graphs = statistics.median(whole / graphs for graphs, _, whole in rounds)
    of_both = statistics.median(whole * (1 / graphs + 1 / reading) for graphs, reading, whole in rounds)
    batch = best.split(" ")[1]
    rest = f"{middle['reading']:.0f} | {middle['folder']:.0f} | {of_graphs:.0%} | {of_both:.0%}"
    return f"| {name} | {middle[best]:.0f} ({batch}) | {rest} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--photos", type=int, default=400, help="of the folder, the first by name")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parsed = parser.parse_args()
    print("| bundle | graphs (best batch), photos/s | reading | folder | folder / graphs | folder / both in turn |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as linked:
        photos = [Path(linked) / photo.name for photo in photos_in(parsed.folder)[: parsed.photos]]
        for photo in photos:
            photo.symlink_to((parsed.folder / photo.name).resolve())
        for bundle in parsed.bundles:
            captioner = capexport.load(bundle, threads=parsed.threads)
            rates = measure(turns(captioner, Path(linked), photos), len(photos), parsed.rounds)
            print(row(captioner.bundle.label, rates), flush=True)


if __name__ == "__main__":
    main()
