"""Damages every file of a bundle in thousands of ways, signs each anew, and looks what becomes of it.

    python -m tests.attacks.sweep BUNDLE... --cases 3000 [--seed 1] [--json]

Each case is a truncation, a flipped bit, an overwritten word or a run of zeros in one file, whose hash and size are put
into the manifest (or it is the manifest that is damaged), so that hashes are of no help. A process of its own, with
limits of time and memory, loads the bundle with verify=True and captions three photos. The exit code is 1 if any of
them crashed, hung, raised something else than an error of capexport, or said other words, but for such as are as
likely: a weight of an int8 recipe may be changed by less than its rounding, and then turn a tie.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import re
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from capexport import CapexportError, Caption, read_bundle
from capexport.manifest import MANIFEST
from capexport.parity.own import check_itself
from capexport.runtime.captioner import Captioner, load
from capexport.shipped import sample_photos

SECONDS, MEMORY = 20, 4 * 2**30
EARLY, ENGINE, VERIFY = "refused before an engine", "refused by the engine", "refused by verify"
SAME, TIE, OTHER, UNCAUGHT, HANG = "the same words", "words as likely", "other words", "uncaught", "hang"
FINE = (EARLY, ENGINE, VERIFY, SAME, TIE)
MARGIN = 0.1  # nats: logits of one int8 bundle differ by 0.07 from one kind of processor to the next
ASKED = slice(3, 6)  # sample photos, which the bundle's vectors do not have
EXTREMES = (b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\x01\x00\x00\x00", b"\x00\x00\x00\x00")


def damaged(data: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """What was done, and the bytes after it. Half of the places are near names, where a graph's structure is."""
    names = [match.start() for match in re.finditer(rb"[A-Za-z_/]{4,}", data)]
    place = int(rng.integers(len(data)))
    if names and rng.random() < 0.5:
        place = min(max(int(rng.choice(names)) + int(rng.integers(-64, 64)), 0), len(data) - 1)
    changed = bytearray(data)
    kind = ("cut", "bit", "bit", "byte", "word", "zeros")[int(rng.integers(6))]
    if kind == "cut":
        del changed[place:]
    elif kind == "bit":
        changed[place] ^= 1 << int(rng.integers(8))
    elif kind == "byte":
        changed[place] = int(rng.integers(256))
    elif kind == "word":
        changed[place : place + 4] = EXTREMES[int(rng.integers(len(EXTREMES)))]
    else:
        changed[place : place + 16] = bytes(len(changed[place : place + 16]))
    return f"{kind} at {place}", bytes(changed)


def cases(files: dict[str, bytes], count: int, seed: int) -> Iterator[tuple[str, str, dict[str, bytes]]]:
    """A file's name, what was done to it, and the files that are to be written; so many, each file in its turn."""
    rng = np.random.default_rng(seed)
    for k in range(count):
        name = sorted(files)[k % len(files)]
        what, changed = damaged(files[name], rng)
        written = {name: changed}
        if name != MANIFEST:
            manifest = json.loads(files[MANIFEST])
            manifest["files"][name] = {"sha256": hashlib.sha256(changed).hexdigest(), "bytes": len(changed)}
            written[MANIFEST] = json.dumps(manifest).encode()
        yield name, what, written


def outcome(directory: Path, words: list[str]) -> str:
    """What becomes of a bundle in this process."""
    try:
        bundle = read_bundle(directory)
    except CapexportError:
        return EARLY
    try:
        captioner = load(bundle, threads=1)
    except CapexportError:
        return ENGINE
    try:
        check_itself(captioner)
    except CapexportError:
        return VERIFY
    try:
        captions = says(captioner)
        pairs = zip(sample_photos()[ASKED], captions, words, strict=True)
        others = [margin(captioner, *pair) for pair in pairs if pair[1].text != pair[2]]
    except CapexportError:
        return ENGINE
    return SAME if not others else TIE if max(others) < MARGIN else OTHER


def says(captioner: Captioner) -> list[Caption]:
    """Its captions of what it is ASKED."""
    return captioner.caption(sample_photos()[ASKED])


def margin(captioner: Captioner, photo: Path, caption: Caption, text: str) -> float:
    """By how much a captioner prefers its caption to another, in nats, at the word where they part; infinite for one
    that it cannot say.
    """
    other = captioner.caption(photo, prefix=text, max_length=len(text.split()) + 1)
    if other.text != text:
        return math.inf
    pairs = zip(caption.tokens, other.tokens, caption.log_probabilities, other.log_probabilities, strict=False)
    return next(ours - theirs for one, two, ours, theirs in pairs if one != two)


def in_a_process(directory: Path, words: list[str]) -> str:
    """The outcome in a fork of this process, which has loaded the engine but never started it."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(SECONDS)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            found = outcome(directory, words)
        except BaseException as error:
            found = f"{UNCAUGHT}: {type(error).__name__}: {error}"[:500]
        os.write(writer, found.encode("utf-8", "replace"))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as said:
        found = said.read().decode()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        ended = signal.Signals(os.WTERMSIG(status))
        return HANG if ended == signal.SIGALRM else f"crash: {ended.name}"
    return found


def sweep(directory: Path, count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """How often each outcome was, by file, and those cases that are not fine."""
    files = {path.name: path.read_bytes() for path in directory.iterdir()}
    found: Counter[str] = Counter()
    bad: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "bundle"
        copy.mkdir()
        for name, data in files.items():
            (copy / name).write_bytes(data)
        words = _words(copy)
        for name, what, written in cases(files, count, seed):
            for one, data in written.items():
                (copy / one).write_bytes(data)
            now = in_a_process(copy, words)
            found[f"{name}: {now.split(': ')[0] if now.startswith(UNCAUGHT) else now}"] += 1
            if now not in FINE:
                bad.append(f"{directory.name}/{name}, {what}: {now}")
            for one in written:
                (copy / one).write_bytes(files[one])
    return found, bad


def _words(directory: Path) -> list[str]:
    """What the undamaged bundle says, found in a process of its own, so that the forks have no running engine."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, json.dumps([caption.text for caption in says(load(directory, threads=1))]).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as said:
        words = said.read()
    os.waitpid(child, 0)
    if not words:
        raise SystemExit(f"{directory} captions nothing, undamaged.")
    texts: list[str] = json.loads(words)
    return texts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE")
    parser.add_argument("--cases", type=int, default=3000, help="for each bundle (default: 3000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parsed = parser.parse_args()
    __import__("capexport.runtime.onnx", fromlist=["Model"])
    __import__("capexport.runtime.tflite", fromlist=["Model"])
    everything, worst = {}, []
    for bundle in parsed.bundles:
        started = time.monotonic()
        found, bad = sweep(bundle, parsed.cases, parsed.seed)
        everything[bundle.name] = dict(sorted(found.items()))
        worst += bad
        if not parsed.json:
            print(f"{bundle.name}: {parsed.cases} cases in {time.monotonic() - started:.0f} s", flush=True)
            print("".join(f"  {what}: {times}\n" for what, times in sorted(found.items())), end="", flush=True)
            print("".join(f"  ! {one}\n" for one in bad), end="", flush=True)
    if parsed.json:
        print(json.dumps({"found": everything, "bad": worst}))
    return 1 if worst else 0


if __name__ == "__main__":
    sys.exit(main())
