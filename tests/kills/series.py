"""Kills runs, and holds what is left, and what the next run makes of it, against what it should be."""

from __future__ import annotations

import os
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

PEACE = 0.2  # the share of runs that are not killed
EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "shutil.rmtree"}
HANG = 600  # seconds
INTERRUPTED = 130


@dataclass
class Tally:
    """What became of the runs of one kind."""

    kills: int = 0
    at_events: int = 0
    ended: int = 0  # in peace
    seconds: float = 0.0


class WrongError(Exception):
    """What is half-written, other than it should be, or in the way."""


def changes(event: str, arguments: tuple[object, ...]) -> bool:
    """Whether an audit event is about to change a file."""
    if event == "open":
        flags = arguments[2]
        return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))
    return event in EVENTS


def forked(
    run: Callable[[], int], delay: float | None = None, event: int | None = None, kill: signal.Signals = signal.SIGKILL
) -> tuple[int, int]:
    """Run it in a fork, killed after so many seconds or just before its so-manieth change of a file.

    Returns the exit status as of os.waitpid, and how many changes there were (of one that was not killed).
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        code, count = 70, 0

        def counted(name: str, arguments: tuple[object, ...]) -> None:
            nonlocal count
            if changes(name, arguments):
                count += 1
                if count == event:
                    os.kill(os.getpid(), kill)

        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            log = os.open(os.environ.get("KILLS_LOG", os.devnull), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 2)
            sys.addaudithook(counted)
            code = run()
            os.write(writer, str(count).encode())
        except KeyboardInterrupt:  # of a run that is no command
            code = INTERRUPTED
        finally:
            os._exit(code)
    os.close(writer)
    began, sent = time.monotonic(), False
    with os.fdopen(reader, "rb") as said:
        while True:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                break
            passed = time.monotonic() - began
            if passed > HANG + (delay or 0):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                raise WrongError(f"A run hangs: {HANG} s.")
            if delay is not None and passed > delay and not sent:
                os.kill(child, kill)
                sent = True
            time.sleep(0.002)
        return status, int(said.read() or 0)


class Scenario(ABC):
    """A run that is killed; each method but `reset` and `check` is called in forks, for TensorFlow cannot be forked."""

    def __init__(self, folder: Path, rng: np.random.Generator, kill: signal.Signals = signal.SIGKILL) -> None:
        self.folder, self.rng, self.kill = folder, rng, kill

    @abstractmethod
    def reset(self) -> None:
        """Begin anew: nothing is left of the last series of runs."""

    @abstractmethod
    def run(self) -> int:
        """The run, and its exit code."""

    @abstractmethod
    def check(self) -> None:
        """Raise WrongError if anything under a final name is not whole."""

    @abstractmethod
    def done(self) -> dict[str, bytes]:
        """What there is after a run that ended, by name: the same each time."""

    def attempt(self, kill: bool, length: float, events: int) -> tuple[bool, bool]:
        """One run and its check: whether it was killed, and whether that was at an event."""
        at_event = kill and self.rng.random() < 0.5
        delay = float(self.rng.uniform(0, length)) if kill and not at_event else None
        event = int(self.rng.integers(1, events + 1)) if at_event else None
        status, _ = forked(self.run, delay, event, self.kill)
        interrupted = self.kill == signal.SIGINT and status == INTERRUPTED << 8
        killed = os.WIFSIGNALED(status) or interrupted
        if not killed and status:
            raise WrongError(f"A run ends with {os.waitstatus_to_exitcode(status)}.")
        if interrupted:
            left = [path for path in self.folder.rglob(".*") if path.name.endswith((".part", ".old"))]
            if left:
                raise WrongError(f"A run that was interrupted leaves {left[0]}.")
        self.check()
        return killed, at_event


def series(scenario: Scenario, kills: int) -> Tally:
    """Runs that are killed so many times in all, with one that ends after some."""
    tally, began = Tally(), time.monotonic()
    scenario.reset()
    started = time.monotonic()
    status, events = forked(scenario.run)
    length = time.monotonic() - started
    if status:
        raise WrongError(f"An undisturbed run ends with {os.waitstatus_to_exitcode(status)}.")
    scenario.check()
    expected = scenario.done()
    scenario.reset()
    while tally.kills < kills:
        kill = bool(scenario.rng.random() > PEACE)
        killed, at_event = scenario.attempt(kill, length, events)
        tally.kills += killed
        tally.at_events += killed and at_event
        if not killed:
            found = scenario.done()
            odd = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
            if odd:
                raise WrongError(f"After a run that ended, other than undisturbed: {', '.join(odd)[:500]}.")
            tally.ended += 1
            scenario.reset()
    tally.seconds = round(time.monotonic() - began, 1)
    return tally
