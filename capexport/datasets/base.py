"""What all data sets share: the record they give, and readings and checks whose errors say where."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from ..errors import DataError

MOST_LINE = 2**20  # characters of a line of text; one without end would fill the memory


@dataclass(frozen=True)
class CaptionedPhoto:
    """A photo's path and its captions, as people wrote them."""

    path: Path
    captions: tuple[str, ...]


def of_split(split: str, choices: Mapping[str, str]) -> str:
    """What the data set has for the split; raises DataError if it has no such split."""
    if split not in choices:
        raise DataError(f"There is no split {split!r}; there are: {', '.join(choices)}.")
    return choices[split]


@contextmanager
def open_text(path: Path, newline: str | None = None) -> Iterator[TextIO]:
    """A plain file of UTF-8 text, open for reading; raises DataError where it cannot be read."""
    if path.exists() and not path.is_file():  # a pipe would let one wait for ever
        raise DataError(f"{path} is not a plain file.")
    try:
        with path.open(encoding="utf-8-sig", newline=newline) as file:
            yield file
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


def lines(file: TextIO, path: Path) -> Iterator[str]:
    """The lines of an open file of text; raises DataError for one of more than MOST_LINE characters."""
    for number, line in enumerate(iter(lambda: file.readline(MOST_LINE), ""), start=1):
        if len(line) == MOST_LINE:
            raise DataError(f"{path}, line {number}: a line has {MOST_LINE} characters at most.")
        yield line


def numbered_lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a text file that are not blank, each after its place: ("FILE, line 3", line)."""
    with open_text(path) as file:
        for number, line in enumerate(lines(file, path), start=1):
            if line.strip():
                yield f"{path}, line {number}", line.rstrip("\n")


def checked_photo(folder: Path, name: str, where: str) -> Path:
    """The path of a photo in a folder, if there is a file; raises DataError, as for one that leads out of it."""
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise DataError(f"{where}: the photo {name:.200} is not in {folder}.")
    try:
        exists = path.is_file()
        inside = path.resolve().is_relative_to(_resolved(folder))
    except (OSError, ValueError, RuntimeError):  # a name that no file can have, or links in a circle
        exists = inside = False
    if not exists:
        raise DataError(f"{where}: the photo {path!s:.500} is missing.")
    if not inside:
        raise DataError(f"{where}: the photo {name:.200} is a link that leads out of {folder}.")
    return path


@functools.lru_cache
def _resolved(folder: Path) -> Path:
    return folder.resolve()


def checked_caption(text: object, where: str) -> str:
    """The caption with spaces for what no vocabulary can hold (control characters, no-break spaces and the like).

    Raises DataError if it is not text or nothing is left of it.
    """
    caption = "".join(sign if sign.isprintable() else " " for sign in text) if isinstance(text, str) else ""
    if not caption.strip():
        raise DataError(f"{where}: expected a caption, found {text!r:.80}.")
    return caption
