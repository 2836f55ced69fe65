"""Outputs that appear whole or not at all, and never replace anything unasked."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import OutputError


@contextmanager
def new_directory(target: Path, mark: str, force: bool = False) -> Iterator[Path]:
    """Fill the yielded directory; it becomes `target` at the end, or vanishes if anything is raised.

    With force an existing directory is replaced, but only one that has a file named `mark`, as ours have.
    Raises OutputError if target is in the way or cannot be written.
    """
    _check_replaceable(target, mark, force)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error}.") from error
    try:
        partial.chmod(0o755)
        yield partial
        _check_replaceable(target, mark, force)
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(partial, target)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error}.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def new_file(target: Path, force: bool = True) -> Iterator[Path]:
    """Write to the yielded path; it becomes `target` at the end, or vanishes if anything is raised."""
    check_absent(target, force)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield partial
        os.replace(partial, target)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error}.") from error
    finally:
        partial.unlink(missing_ok=True)


def clear_partials(directory: Path, name: str = "*") -> None:
    """Remove what killed runs left half-written in a directory of new_file's; name: a pattern of their targets."""
    for partial in directory.glob(f".{name}.[0-9]*.part"):
        partial.unlink(missing_ok=True)


def _check_replaceable(target: Path, mark: str, force: bool) -> None:
    check_absent(target, force)
    if target.exists() and not (target / mark).is_file():
        raise OutputError(f"{target} exists and has no {mark}: it is not replaced even with --force; remove it first.")


def check_absent(target: Path, force: bool) -> None:
    """Raise OutputError if target exists and may not be replaced."""
    if target.exists() and not force:
        raise OutputError(f"{target} exists already; choose another place, or pass --force to replace it.")
