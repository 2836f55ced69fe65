"""What a caption costs by its length: time, with a line through it, and the most memory of the process so far.

    python benchmarks/length.py BUNDLE... [--rounds 30] [--threads 1] [--out benchmarks/length]

Writes OUT.json, OUT.md and OUT.png. Captions are greedy, held back from [END] or cut, so that each has its length.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import capexport
from capexport.plot import INK, PALE_INK, new_figure, save_figure
from capexport.shipped import sample_photos
from capexport.timing.memory import peak_bytes

LENGTHS = tuple(range(5, 51, 5))  # tokens, [END] included
COLOURS = ("#2f6690", "#d1495b", "#66a182", "#8d96a3", "#edae49")


@dataclass(frozen=True)
class Row:
    """One bundle: milliseconds (median) and peak memory in MB at each of LENGTHS, encoding left out of the time."""

    name: str
    milliseconds: tuple[float, ...]
    megabytes: tuple[float, ...]

    @property
    def line(self) -> tuple[float, float]:
        """Milliseconds a token and of no tokens, by least squares."""
        slope, rest = np.polyfit(LENGTHS, self.milliseconds, 1)
        return float(slope), float(rest)

    @property
    def explained(self) -> float:
        """The share of the times' variance that the line explains (R squared)."""
        slope, rest = self.line
        left = np.square(np.array(self.milliseconds) - slope * np.array(LENGTHS) - rest).sum()
        return float(1 - left / np.square(self.milliseconds - np.mean(self.milliseconds)).sum())


def measure(bundle: Path, rounds: int, threads: int) -> Row:
    """All lengths in turn, round after round; memory while they are said for the first time, the shortest first."""
    captioner = capexport.load(bundle, threads=threads)
    pixels = [captioner.preprocess(photo) for photo in sample_photos()]
    options = {length: capexport.DecodingOptions(min_length=length, max_length=length) for length in LENGTHS}
    peaks = []
    for length in LENGTHS:
        for photo in pixels:
            [caption] = captioner.caption_pixels(photo[np.newaxis], options[length])
            assert len(caption.tokens) == length
        peaks.append(peak_bytes() / 1e6)
    seconds: dict[int, list[float]] = {length: [] for length in LENGTHS}
    for k in range(rounds):
        photo = pixels[k % len(pixels)][np.newaxis]
        for length in LENGTHS:
            began = time.perf_counter()
            captioner.caption_pixels(photo, options[length])
            whole = time.perf_counter()
            captioner.backend.encode(photo)
            seconds[length].append(2 * whole - began - time.perf_counter())
    return Row(bundle.name, tuple(1000 * statistics.median(seconds[n]) for n in LENGTHS), tuple(peaks))


def table(rows: list[Row]) -> str:
    lines = [
        "| bundle | ms, 10 tokens | ms, 50 tokens | ms a token | R² of the line | MB, 5 tokens | MB, 50 tokens |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        times = dict(zip(LENGTHS, row.milliseconds, strict=True))
        lines.append(
            f"| {row.name} | {times[10]:.2f} | {times[50]:.2f} | {row.line[0]:.3f} | {row.explained:.4f} "
            f"| {row.megabytes[0]:.1f} | {row.megabytes[-1]:.1f} |"
        )
    return "\n".join(lines) + "\n"


def draw(rows: list[Row], path: Path) -> None:
    figure = new_figure(9.0, 3.6)
    left, right = figure.subplots(1, 2)
    for row, colour in zip(rows, COLOURS, strict=False):
        slope, rest = row.line
        left.plot(LENGTHS, [slope * length + rest for length in LENGTHS], color=colour, linewidth=1)
        left.plot(LENGTHS, row.milliseconds, linestyle="", marker="o", markersize=4, color=colour, label=row.name)
        right.plot(LENGTHS, row.megabytes, marker="o", markersize=4, color=colour, label=row.name)
    left.set_ylabel("milliseconds, after the encoder", color=INK)
    right.set_ylabel("MB, the process's peak so far", color=INK)
    for axes in (left, right):
        axes.set(ylim=(0, 1.05 * axes.get_ylim()[1]), xlim=(0, LENGTHS[-1] + 2))
        axes.set_xlabel("tokens, [END] included", color=INK)
        axes.tick_params(colors=PALE_INK)
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False, fontsize=8)
    save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(""))
    parsed = parser.parse_args()
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        rows = pool.starmap(measure, [(one, parsed.rounds, parsed.threads) for one in parsed.bundles], chunksize=1)
    written = {"lengths": LENGTHS, "threads": parsed.threads, "rows": [dataclasses.asdict(row) for row in rows]}
    parsed.out.with_suffix(".json").write_text(json.dumps(written, indent=1) + "\n")
    parsed.out.with_suffix(".md").write_text(table(rows))
    draw(rows, parsed.out.with_suffix(".png"))
    print(table(rows))


if __name__ == "__main__":
    main()
