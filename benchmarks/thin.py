"""What captioning costs a machine: installed size, cold start, peak memory, and threads that share a captioner.

    python benchmarks/thin.py BUNDLE... [--runs 15] [--captions 1000]

The table of cold starts shows medians, the best run and the highest peak.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import statistics
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import capexport
from capexport.shipped import sample_photos
from capexport.timing.cold import cold_starts

THREADS = 8


def closure(names: Iterable[str]) -> set[str]:
    """The distributions that these need, themselves included, by normalised name."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name not in found:
            found.add(name)
            needed = importlib.metadata.requires(name) or []
            waiting += [re.match(r"[\w.-]+", line)[0] for line in needed if "extra ==" not in line]
    return found


def size(name: str) -> tuple[float, float]:
    """MB of a distribution's Python code, and of all its files, as installed; compiled .pyc files left out."""
    if name == "capexport":
        files = [path for path in Path(capexport.__file__).parent.rglob("*") if "_exported" not in path.parts]
    else:
        files = [Path(file.locate()) for file in importlib.metadata.files(name) or []]
    files = [path for path in files if path.is_file() and path.suffix != ".pyc"]
    code = sum(path.stat().st_size for path in files if path.suffix == ".py")
    return code / 1e6, sum(path.stat().st_size for path in files) / 1e6


def print_sizes() -> None:
    print("| capexport[onnx] installs, beyond numpy and onnxruntime | Python code, MB | all files, MB |\n|---|---|---|")
    total = 0.0
    for name in sorted(closure(["capexport"]) - closure(["numpy", "onnxruntime"])):
        code, everything = size(name)
        total += code
        print(f"| {name} | {code:.2f} | {everything:.2f} |")
    print(f"| together | {total:.2f} | |\n")


def print_cold_starts(bundles: list[Path], runs: int) -> None:
    print("| bundle | import, s | load, s | first caption, s | together, s | best | peak memory, MB |")
    print("|---|---|---|---|---|---|---|")
    for bundle, starts in zip(bundles, cold_starts(bundles, sample_photos()[0], runs), strict=True):
        medians = [
            statistics.median(getattr(start, name) for start in starts)
            for name in ("importing", "loading", "captioning", "seconds")
        ]
        cells = [f"{seconds:.2f}" for seconds in (*medians, min(start.seconds for start in starts))]
        print(f"| {bundle.name} | {' | '.join(cells)} | {max(start.peak_bytes for start in starts) / 1e6:.0f} |")
    print()


def print_threads(bundle: Path, captions: int) -> None:
    """Whether threads that share a captioner say the same words, caption after caption."""
    captioner = capexport.load(bundle, threads=1)
    photos = sample_photos()
    expected = [captioner.caption(photo).tokens for photo in photos]

    def work(thread: int) -> int:
        order = [(thread + k) % len(photos) for k in range(captions)]
        return sum(captioner.caption(photos[k]).tokens == expected[k] for k in order)

    with ThreadPoolExecutor(THREADS) as pool:
        same = sum(pool.map(work, range(THREADS)))
    print(f"{bundle.name}: {same:,} of {THREADS * captions:,} captions by {THREADS} threads have the same words")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--captions", type=int, default=1000, help="by each of the threads")
    parsed = parser.parse_args()
    print_sizes()
    print_cold_starts(parsed.bundles, parsed.runs)
    for bundle in parsed.bundles:
        print_threads(bundle, parsed.captions)


if __name__ == "__main__":
    main()
