"""How many cores caption very many photos in a day, what breaks first, and what it costs: from measured rates.

    python benchmarks/scale.py PHOTOS BUNDLE [--photos 400] [--rounds 5] [--want 100e6] [--hours 24]
        [--core-hour 0.04] [--get 0.4e-6] [--cores-a-node 16] [--node-hours-between-losses 1000]

Measures here, on photos as they are, by the processor's time and one thread (medians):

    caption   a photo read and captioned by CaptionBatch, as a cluster's worker does it
    read      a photo read, which is in `caption`
    start     a worker: the imports and the bundle
    row       a row taken in by the process that asks a cluster for a folder, and written
    shard     a shard, but for its photos: opening it, statistics, renaming

and prints what follows from that for shards of --in-a-shard photos. A simulation deals them out to the cores, loses
nodes at random (exponential times, as many seconds until the next one has come) and does what they had begun anew.
Prices and losses are assumptions, stated in the table; put in your own.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import capexport
from capexport import DecodingOptions
from capexport.batch.caption_batch import CaptionBatch
from capexport.batch.journal import open_journal
from capexport.batch.shard_run import Shards, caption_shards
from capexport.cli.photos import photos_in

COMING = 120.0  # seconds until a node that was lost has another in its place
EMPTY_TAR = bytes(10_240)


@dataclass(frozen=True)
class Measured:
    """Seconds of one core, but for the last two, which are bytes of a photo's file and of a row."""

    caption: float
    read: float
    start: float
    row: float
    shard: float
    photo_bytes: float
    row_bytes: float


@dataclass(frozen=True)
class Wanted:
    """What is to be done, and what is assumed of the machines; prices in dollars."""

    photos: float = 100e6
    hours: float = 24.0
    in_a_shard: int = 10_000
    cores_a_node: int = 16
    node_hours_between_losses: float = 1000.0
    core_hour: float = 0.04
    get: float = 0.4e-6


def measure(folder: Path, bundle: Path, count: int, rounds: int) -> Measured:
    """The medians of so many rounds; a first one is not counted."""
    photos = photos_in(folder)[:count]
    captions = CaptionBatch(bundle)
    columns = {"path": np.array([str(photo) for photo in photos], object)}
    rows = list(captions(columns)["row"])
    captioner = captions.captioner

    def taken_in() -> None:
        with tempfile.TemporaryDirectory() as out, open_journal(Path(out) / "rows.jsonl", False, False) as journal:
            for row in rows:
                journal.append([json.loads(row)])

    with tempfile.TemporaryDirectory() as out:
        for number in range(20):
            (Path(out) / f"{number}.tar").write_bytes(EMPTY_TAR)
        shards = tuple(str(path) for path in Path(out).iterdir())
        what = Shards(shards, f"{out}/captions", force=True)
        return Measured(
            caption=_seconds(lambda: captions(columns), rounds) / len(photos),
            read=_seconds(lambda: [captioner.preprocess(photo) for photo in photos], rounds) / len(photos),
            start=statistics.median(_start(bundle) for _ in range(rounds)),
            row=_seconds(taken_in, rounds) / len(photos),
            shard=_seconds(lambda: caption_shards(captioner, what, DecodingOptions()), rounds) / len(shards),
            photo_bytes=statistics.mean(photo.stat().st_size for photo in photos),
            row_bytes=statistics.mean(len(row) + 1 for row in rows),
        )


def _seconds(work: Callable[[], object], rounds: int) -> float:
    taken = []
    for _ in range(rounds + 1):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return statistics.median(taken[1:])


def _start(bundle: Path) -> float:
    """Seconds of the processor that a new process takes until it can caption."""
    code = (
        "import sys, time; from capexport.batch.caption_batch import CaptionBatch; CaptionBatch(sys.argv[1]).captioner;"
        "print(time.process_time())"
    )
    done = subprocess.run([sys.executable, "-c", code, str(bundle)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def cores_for(measured: Measured, wanted: Wanted) -> int:
    """The fewest cores that are done in time, if no node is lost and no core is idle at the end."""
    of_a_shard = wanted.in_a_shard * measured.caption + measured.shard
    work = wanted.photos / wanted.in_a_shard * of_a_shard
    return math.ceil(work / (wanted.hours * 3600 - measured.start))


def simulate(measured: Measured, wanted: Wanted, cores: int, seed: int = 0) -> tuple[float, float]:
    """Hours until the last shard is done, and the part of the work that was done for nothing."""
    draw = random.Random(seed)
    shard = wanted.in_a_shard * measured.caption + measured.shard
    waiting, wasted, ends = math.ceil(wanted.photos / wanted.in_a_shard), 0.0, 0.0
    nodes = [wanted.cores_a_node] * (cores // wanted.cores_a_node)
    nodes += [cores % wanted.cores_a_node] if cores % wanted.cores_a_node else []
    between = wanted.node_hours_between_losses * 3600
    lost = [draw.expovariate(1 / between) for _ in nodes]
    free = [(measured.start, node) for node, count in enumerate(nodes) for _ in range(count)]
    heapq.heapify(free)
    again: list[tuple[float, int]] = []  # when a shard that was lost is known to be, to be done once more
    total = waiting
    done = 0
    while done < total:
        now, node = heapq.heappop(free)
        if lost[node] <= now:
            if now < lost[node] + COMING:
                heapq.heappush(free, (lost[node] + COMING + measured.start, node))
                continue
            lost[node] = now + draw.expovariate(1 / between)
        if waiting == 0 and not (again and again[0][0] <= now):
            later = min([when for when, _ in again] + [when for when, _ in free], default=now)
            heapq.heappush(free, (max(later, now + 1.0), node))
            continue
        if waiting:
            waiting -= 1
        else:
            heapq.heappop(again)
        if lost[node] < now + shard:
            wasted += lost[node] - now
            heapq.heappush(again, (lost[node] + COMING, node))
            heapq.heappush(free, (lost[node] + COMING + measured.start, node))
            lost[node] += COMING + draw.expovariate(1 / between)
        else:
            done += 1
            ends = max(ends, now + shard)
            heapq.heappush(free, (now + shard, node))
    return ends / 3600, wasted / (total * shard)


def report(measured: Measured, wanted: Wanted) -> str:
    """What was measured, and what follows, as Markdown."""
    cores = cores_for(measured, wanted)
    hours, wasted = simulate(measured, wanted, cores)
    needed = wanted.photos / wanted.hours / 3600
    taken_in = 1 / measured.row
    shards = wanted.photos / wanted.in_a_shard
    rows = [
        ("captions a second and core", f"{1 / measured.caption:,.0f}"),
        ("of that time, reading photos", f"{measured.read / measured.caption:.0%}"),
        ("a worker's start, s", f"{measured.start:.2f}"),
        ("a shard's own time, ms", f"{1e3 * measured.shard:.1f}"),
        ("a photo's file, KB; its row, bytes", f"{measured.photo_bytes / 1e3:.1f}; {measured.row_bytes:.0f}"),
        (f"captions a second for {wanted.photos:,.0f} in {wanted.hours:g} hours", f"{needed:,.0f}"),
        ("cores", f"{cores:,}"),
        (
            f"simulated, a node of {wanted.cores_a_node} cores lost each {wanted.node_hours_between_losses:g} hours",
            f"{hours:.1f} hours; {wasted:.2%} of the work done for nothing",
        ),
        ("read from storage, Gbit/s", f"{needed * measured.photo_bytes * 8 / 1e9:.2f}"),
        ("written, GB", f"{wanted.photos * measured.row_bytes / 1e9:.0f}"),
        (f"cores at ${wanted.core_hour:g} an hour", f"${cores * wanted.hours * wanted.core_hour:,.0f}"),
        (
            f"requests at ${wanted.get * 1e6:g} a million",
            f"${wanted.photos * wanted.get:,.0f} photo by photo; ${shards * wanted.get:,.2f} in {shards:,.0f} shards",
        ),
        (
            "what breaks first photo by photo: the one process that takes the rows in, captions a second",
            f"{taken_in:,.0f}, from {taken_in * measured.caption:,.0f} cores on",
        ),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--photos", type=int, default=400, help="of the folder, the first by name")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--want", type=float, default=Wanted.photos)
    for name in ("hours", "core_hour", "get", "node_hours_between_losses"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=getattr(Wanted, name))
    for name in ("in_a_shard", "cores_a_node"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(Wanted, name))
    parsed = parser.parse_args()
    names = ("hours", "in_a_shard", "cores_a_node", "node_hours_between_losses", "core_hour", "get")
    wanted = Wanted(parsed.want, **{name: getattr(parsed, name) for name in names})
    print(f"{capexport.read_bundle(parsed.bundle).label}, {min(parsed.photos, len(photos_in(parsed.folder)))} photos")
    print(report(measure(parsed.folder, parsed.bundle, parsed.photos, parsed.rounds), wanted))


if __name__ == "__main__":
    main()
