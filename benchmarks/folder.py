"""A folder of photos, captioned into a file, beside its encoder and decoder alone.

    python benchmarks/folder.py PHOTOS BUNDLE... [--photos 400] [--rounds 5] [--threads 2]

Prints photos a second, in turns, round after round (medians, and the median of each round's own ratios), by the clock
and by the processor's time, which counts all threads and does not depend on what else the machine does:

    graphs   encoder and decoder alone: photos read before, by all threads, at the batch that is best for them
    reading  photos read by all threads, and nothing else
    folder   the whole of `capexport caption PHOTOS --out FILE`, from files to rows

"of graphs" is what the folder's rate is of the graphs'.
"""

from __future__ import annotations

import argparse
import functools
import shutil
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

BATCHES = (4, 8, 16)
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


Rate = tuple[float, float]  # photos a second of the clock, and a second of the processor


def measure(what: Turns, photos: int, rounds: int) -> dict[str, list[Rate]]:
    """The rates of each, round after round; a first round is not counted."""
    rates: dict[str, list[Rate]] = {name: [] for name in what}
    for _ in range(rounds + 1):
        for name, run in what.items():
            clock, processor = time.perf_counter(), time.process_time()
            run()
            rates[name].append((photos / (time.perf_counter() - clock), photos / (time.process_time() - processor)))
    return {name: found[1:] for name, found in rates.items()}


def row(name: str, rates: dict[str, list[Rate]]) -> str:
    """Rates are medians; the graphs are those that are best by the clock, or by the processor."""
    cells = []
    for by in (0, 1):
        middle = {kind: statistics.median(rate[by] for rate in found) for kind, found in rates.items()}
        best = max((kind for kind in rates if kind.startswith("graphs")), key=lambda kind, of=middle: of[kind])
        turns = zip(rates[best], rates["folder"], strict=True)
        ratio = statistics.median(folder[by] / graphs[by] for graphs, folder in turns)
        batch = best.split(" ")[1]
        cells += [
            f"{middle[best]:.0f} ({batch})",
            f"{middle['reading']:.0f}",
            f"{middle['folder']:.0f}",
            f"{ratio:.0%}",
        ]
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--photos", type=int, default=400, help="of the folder, the first by name")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parsed = parser.parse_args()
    print(
        "| bundle | graphs alone (batch), photos/s | reading alone | folder | of graphs "
        "| graphs, by the processor | reading | folder | of graphs |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as some:
        photos = [Path(some) / photo.name for photo in photos_in(parsed.folder)[: parsed.photos]]
        for photo in photos:
            shutil.copyfile(parsed.folder / photo.name, photo)
        for bundle in parsed.bundles:
            captioner = capexport.load(bundle, threads=parsed.threads)
            rates = measure(turns(captioner, Path(some), photos), len(photos), parsed.rounds)
            print(row(captioner.bundle.label, rates), flush=True)


if __name__ == "__main__":
    main()
