"""Outputs that appear whole or not at all, and never replace anything unasked."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import OutputError

KINDS = ("part", "old")
_numbers = itertools.count()  # threads may write the same target
_ours: set[Path] = set()  # what this process is writing; others that bear its number are of an earlier one's


@contextmanager
def new_directory(target: Path, mark: str, force: bool = False) -> Iterator[Path]:
    """Fill the yielded directory; it becomes `target` at the end, or vanishes if anything is raised.

    With force an existing directory is replaced, but only one that has a file named `mark`, as ours have. What killed
    runs left of the same target goes first.
    Raises OutputError if target is in the way or cannot be written.
    """
    check_replaceable(target, mark, force)
    partial, old = _beside(target, "part"), _beside(target, "old")

    def clear() -> None:
        if not target.exists() and old.exists():
            os.replace(old, target)
        for one in (partial, old):
            shutil.rmtree(one, ignore_errors=True)
        _ours.discard(partial)

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        clear_partials(target.parent, target.name)
        _ours.add(partial)
        partial.mkdir()
        yield partial
        check_replaceable(target, mark, force)
        if target.is_dir():  # never half gone: a run that is killed here leaves all of it, or nothing
            os.replace(target, old)
        os.replace(partial, target)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error}.") from error
    finally:
        _surely(clear)


@contextmanager
def new_file(target: Path, force: bool = True, tidy: bool = False) -> Iterator[Path]:
    """Write to the yielded path; it becomes `target` at the end, or vanishes if anything is raised.

    tidy  make its folder, and remove what killed runs left of the same target; whoever writes many files there does so
          once instead
    """
    check_absent(target, force)
    partial = _beside(target, "part")

    def clear() -> None:
        with contextlib.suppress(OSError):  # where it could not even be made
            partial.unlink()
        _ours.discard(partial)

    _ours.add(partial)
    try:
        if tidy:
            target.parent.mkdir(parents=True, exist_ok=True)
            clear_partials(target.parent, target.name)
        yield partial
        os.replace(partial, target)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error}.") from error
    finally:
        _surely(clear)


def _surely(clear: Callable[[], None]) -> None:
    """Clear up, though Ctrl-C comes meanwhile."""
    try:
        clear()
    except KeyboardInterrupt:
        clear()
        raise


def clear_partials(directory: Path, name: str = "", suffix: str = "") -> None:
    """Remove what killed runs left half-written in a directory: of the target of that name, or of that suffix, or all.

    What a process that still runs is writing there stays.
    """
    for partial in directory.glob(".*.[0-9]*.*"):
        target, writer, kind = partial.name[1:].rsplit(".", 2)
        process, _, _ = writer.partition("-")
        if kind not in KINDS or not process.isdecimal() or not target.endswith(suffix) or (name and target != name):
            continue
        if partial in _ours or _runs(int(process)):
            continue
        if partial.is_dir() and not partial.is_symlink():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


def check_plain(target: Path) -> None:
    """Raise OutputError if a pipe, a device or the like is there, which may hang or never end when it is opened."""
    if target.exists() and not (target.is_file() or target.is_dir()):
        raise OutputError(f"{target} is no plain file; choose another place, or remove it first.")


def _beside(target: Path, kind: str) -> Path:
    return target.with_name(f".{target.name}.{os.getpid()}-{next(_numbers)}.{kind}")


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return process != os.getpid()


def check_replaceable(target: Path, mark: str, force: bool) -> None:
    """As check_absent, for a directory: with force one may be replaced that has a file named `mark`."""
    check_absent(target, force)
    if target.exists() and not (target / mark).is_file():
        raise OutputError(f"{target} exists and has no {mark}: it is not replaced even with --force; remove it first.")


def check_absent(target: Path, force: bool) -> None:
    """Raise OutputError if target exists and may not be replaced, or cannot be made; pipes, devices never may."""
    check_plain(target)
    _check_place(target)
    if target.exists() and not force:
        raise OutputError(f"{target} exists already; choose another place, or pass --force to replace it.")


def _check_place(target: Path) -> None:
    """Raise OutputError if the nearest of its folders that there is is none, or may not be written to."""
    there = next(folder for folder in target.absolute().parents if folder.exists())
    if not there.is_dir():
        raise OutputError(f"{target} cannot be written: {there} is no folder.")
    if not os.access(there, os.W_OK):
        raise OutputError(f"{target} cannot be written: nothing may be written in {there}.")
