"""Long runs in one process: memory and file handles stay as they are, and so do the words.

    python -m tests.endurance captions BUNDLE... [--captions 100000] [--json]
    python -m tests.endurance threads BUNDLE... [--threads 16] [--minutes 10] [--json]
    python -m tests.endurance engines BUNDLE BUNDLE... [--minutes 10] [--json]

captions  so many of one bundle, of files, bytes, arrays and broken photos, alone, in batches, searched, drawn, streamed
threads   share one captioner, without a pause
engines   several captioners in one process, each in two threads of its own

Each bundle has a process of its own, but for engines. The first tenth of the work warms up; from then on the memory
that is resident may grow by GROWTH. At the end there are no more file handles and threads than before. Whatever is said
is held against what was said at first, by one thread. The exit code is 1 if any of that fails.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path

import numpy as np

from capexport import Captioner, ImageError, load
from capexport.shipped import sample_photos

GROWTH = 5e6  # bytes
WARM_UP = 0.1  # of the work
SAMPLES = 200  # of memory, over the whole run


@dataclass(frozen=True)
class Sample:
    """What a process holds."""

    memory: int  # bytes that are resident
    handles: int
    threads: int


@dataclass(frozen=True)
class Finding:
    """What a run came to; memory in MB, handles and threads at rest, before the work and after it."""

    what: str
    captions: int
    minutes: float
    warm: float  # the most that was held in the warm-up
    most: float  # the most that was held after it
    growth: float
    handles: tuple[int, int]
    threads: tuple[int, int]
    wrong: int

    @property
    def fine(self) -> bool:
        """Whether nothing grew and nothing else was said."""
        grown = self.handles[1] > self.handles[0] or self.threads[1] > self.threads[0]
        return not (grown or self.wrong or self.growth * 1e6 >= GROWTH)


def sample() -> Sample:
    """Now. Garbage is collected first: what waits for that is no leak."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    handles, tasks = (len(list(Path("/proc/self", kind).iterdir())) for kind in ("fd", "task"))
    return Sample(pages * os.sysconf("SC_PAGE_SIZE"), handles, tasks)


def at_rest() -> Sample:
    """When threads that have ended are gone."""
    time.sleep(0.5)
    return sample()


Call = Callable[[Captioner], object]


def calls() -> list[Call]:
    """Ways to caption, each with an answer that is the same each time."""
    photos = sample_photos()
    data = [photo.read_bytes() for photo in photos]
    broken = data[0][:2000]
    array = np.arange(300 * 200 * 3, dtype=np.uint8).reshape(300, 200, 3)

    def failed(captioner: Captioner) -> str:
        try:
            return captioner.caption(broken).text
        except ImageError as error:
            return str(error)

    alone: list[Call] = [lambda captioner, photo=photo: captioner.caption(photo).text for photo in (*photos, *data)]
    return [
        *alone * 3,
        lambda captioner: captioner.caption(array).text,
        lambda captioner: captioner.caption(photos[0], beams=3, captions=2).alternatives[0].text,
        lambda captioner: captioner.caption(photos[1], temperature=0.9, top_p=0.9, seed=3).text,
        lambda captioner: " ".join(captioner.stream(photos[2])),
        lambda captioner: [caption.text for caption in captioner.caption([*photos[:3], *data[3:]], batch=4)],
        lambda captioner: len(captioner.caption([broken, photos[4]], on_error="skip")),
        failed,
    ]


def watched(work: Iterator[int], share: Callable[[int], float], what: str) -> Finding:
    """Do work that yields how many captions there are by now, or, below zero, how many were wrong; watch the process.

    share  how much of the work is done, 0 to 1
    """
    before, began = at_rest(), time.monotonic()
    held: tuple[list[int], list[int]] = [before.memory], []  # in the warm-up, after it
    count = wrong = 0
    next_sample = 0.0
    for step in work:
        count, wrong = (step, wrong) if step >= 0 else (count, -step)
        done = share(count)
        if done >= next_sample:
            held[done > WARM_UP].append(sample().memory)
            next_sample = done + 1 / SAMPLES
    after = at_rest()
    held[1].append(after.memory)
    warm, most = (max(memory) / 1e6 for memory in held)
    return Finding(
        what=what,
        captions=count,
        minutes=round((time.monotonic() - began) / 60, 1),
        warm=round(warm, 1),
        most=round(most, 1),
        growth=round(most - warm, 2),
        handles=(before.handles, after.handles),
        threads=(before.threads, after.threads),
        wrong=wrong,
    )


def captions(bundle: Path, count: int) -> Finding:
    """So many captions, one after the other."""
    captioner = load(bundle, threads=2)
    todo = calls()
    expected = [call(captioner) for call in todo]
    begin_workers([captioner], todo, number=8)

    def work() -> Iterator[int]:
        wrong = 0
        for done in range(count):
            k = done % len(todo)
            if todo[k](captioner) != expected[k]:
                wrong += 1
                yield -wrong
            yield done + 1

    return watched(work(), lambda done: done / count, f"{bundle.name}: captions")


def begin_workers(captioners: list[Captioner], todo: list[Call], number: int) -> None:
    """Have captioners' workers begin, by so many threads that ask for one thing after the other, all for the same at
    once: they stay, each with memory of its own.
    """
    with ThreadPoolExecutor(number) as others:
        list(others.map(lambda k: todo[k // number](captioners[k % len(captioners)]), range(len(todo) * number)))


def threads(bundles: list[Path], number: int, minutes: float) -> Finding:
    """So many threads, each of which captions with one of the captioners until the time is over."""
    captioners = [load(bundle, threads=1) for bundle in bundles]
    todo = calls()
    expected = [[call(captioner) for call in todo] for captioner in captioners]
    begin_workers(captioners, todo, number)
    began = time.monotonic() + 0.5  # see at_rest
    end = began + 60 * minutes
    counts, wrong = [0] * number, [0] * number

    def run(mine: int) -> None:
        which = mine % len(captioners)
        for k in cycle(range(len(todo))):
            if time.monotonic() >= end:
                return
            at = (k + mine) % len(todo)
            wrong[mine] += todo[at](captioners[which]) != expected[which][at]
            counts[mine] += 1

    pool = [threading.Thread(target=run, args=(mine,)) for mine in range(number)]

    def work() -> Iterator[int]:
        for thread in pool:
            thread.start()
        while any(thread.is_alive() for thread in pool):
            time.sleep(min(1, 60 * minutes / SAMPLES))
            yield sum(counts)
        if sum(wrong):
            yield -sum(wrong)

    names = " and ".join(bundle.name for bundle in bundles)
    return watched(work(), lambda _: (time.monotonic() - began) / (60 * minutes), f"{names}: {number} threads")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", choices=("captions", "threads", "engines"))
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE")
    parser.add_argument("--captions", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--minutes", type=float, default=10, help="of threads and engines (default: 10)")
    parser.add_argument("--json", action="store_true", help="print one JSON object a run and line")
    parsed = parser.parse_args()
    if len(parsed.bundles) > 1 and parsed.run != "engines":
        rest = [word for word in sys.argv[1:] if word not in map(str, parsed.bundles)]
        each = [[sys.executable, "-m", "tests.endurance", *rest, str(bundle)] for bundle in parsed.bundles]
        return max(subprocess.run(command).returncode for command in each)
    if parsed.run == "captions":
        found = captions(parsed.bundles[0], parsed.captions)
    elif parsed.run == "threads":
        found = threads(parsed.bundles, parsed.threads, parsed.minutes)
    else:
        found = threads(parsed.bundles, 2 * len(parsed.bundles), parsed.minutes)
    if parsed.json:
        print(json.dumps({**asdict(found), "fine": found.fine}), flush=True)
    else:
        print(f"{found.what}: {found.captions:,} captions in {found.minutes} min, {found.wrong} of other words")
        print(f"  memory at most {found.warm} MB in the warm-up, {found.most} MB after it: {found.growth:+} MB")
        print("  file handles {} and {}, threads {} and {}, before and after".format(*found.handles, *found.threads))
        print("  fine" if found.fine else "  FAILED", flush=True)
    return not found.fine


if __name__ == "__main__":
    sys.exit(main())
