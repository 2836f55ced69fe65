"""Peers take turns, each in a process of its own, so that whatever else the machine does falls on all of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from capexport.progress import track
from capexport.timing.latency import REST, TURN
from capexport.timing.processes import Worker, ask, started

from .registry import Entry

SLOW, SLOW_TURN = 0.2, 1  # seconds a caption; captions that such a peer says in a turn
PROGRAM = f"""
import json, sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from peer.worker import main
main(json.loads(sys.argv[1]))
"""


@dataclass(frozen=True)
class Said:
    """One timed caption: its photo's index, its tokens without [START] and [END], and seconds.

    encode  is None where encoding the photo is no step of its own
    """

    photo: int
    tokens: tuple[int, ...]
    caption: float
    encode: float | None


@dataclass(frozen=True)
class Outcome:
    """What a peer said, and its note; or why it says nothing (any more)."""

    said: tuple[Said, ...]
    note: str = ""
    error: str = ""


def take_turns(
    entries: Sequence[Entry], unready: dict[str, str], folder: Path, photos: int, captions: int, threads: int
) -> dict[str, Outcome]:
    """Have each peer say so many captions, in turns of TURN; those slower than SLOW say SLOW_TURN a turn.

    unready  why peers cannot be started, by name
    """
    common = {"folder": str(folder.resolve()), "threads": threads}
    specs = {
        entry.name: {"module": entry.module, "kind": entry.kind, "options": dict(entry.options), **common}
        for entry in entries
        if entry.name not in unready
    }
    said: dict[str, list[Said]] = {name: [] for name in specs}
    with started(specs, PROGRAM) as (workers, errors):
        notes = {name: worker.start["note"] for name, worker in workers.items()}
        for first in track(range(0, captions, TURN), -(-captions // TURN), "captions"):
            for name, worker in list(workers.items()):
                time.sleep(REST)
                count = SLOW_TURN if worker.start["seconds"] > SLOW else min(TURN, captions - first)
                chosen = [k % photos for k in range(len(said[name]), len(said[name]) + count)]
                said[name] += _turn(workers, errors, name, chosen)
    reasons = unready | errors
    return {
        entry.name: Outcome(tuple(said.get(entry.name, ())), notes.get(entry.name, ""), reasons.get(entry.name, ""))
        for entry in entries
    }


def _turn(workers: dict[str, Worker], errors: dict[str, str], name: str, photos: list[int]) -> list[Said]:
    answer = ask(workers, errors, name, photos=photos)
    return [
        Said(photo, tuple(tokens), caption, encode)
        for photo, (tokens, caption, encode) in zip(photos, answer or (), strict=bool(answer))
    ]
