"""What others made: files, read in whole, plain ones of a bounded size, never a pipe, a device or a hole; and values,
quoted in messages that stay short.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

MOST_QUOTED = 80  # characters


def quoted(value: Any, most: int = MOST_QUOTED) -> str:
    """A value in quotes as it may stand in a sentence: cut, and of lists and the like no more than what they are."""
    if isinstance(value, str):
        return repr(value) if len(value) <= most else f"{value[:most]!r} and so on"
    if value is None or isinstance(value, bool | int | float):
        return shortened(value, most)
    return f"a {type(value).__name__}"


def shortened(message: object, most: int = 500) -> str:
    """The text of a library's error or a number, cut: it may quote a file's names, which may be long."""
    text = str(message)
    return text if len(text) <= most else f"{text[:most]} and so on"


@contextmanager
def open_plain(path: str | os.PathLike[str], links: bool = True, whole: int = 0) -> Iterator[BinaryIO]:
    """A plain file, to be read; raises OSError for any other, without waiting for what a pipe may never give.

    links  whether it may be reached by a symbolic link
    whole  a file of no more bytes is read when it is opened, in one go: threads wait for each other at each call
    """
    descriptor, size = _opened(path, links)
    if not 0 < size <= whole:  # the size of what the kernel makes as it is read is 0
        with open(descriptor, "rb") as file:
            yield file
        return
    try:
        body = os.read(descriptor, size)
        while len(body) < size and (more := os.read(descriptor, size - len(body))):
            body += more
    finally:
        os.close(descriptor)
    yield io.BytesIO(body)


def _opened(path: str | os.PathLike[str], links: bool) -> tuple[int, int]:
    """The descriptor of a plain file and its size; raises OSError for any other."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags if links else flags | getattr(os, "O_NOFOLLOW", 0))
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise OSError(0, "it is not a plain file", str(path))
    return descriptor, status.st_size


@contextmanager
def open_bounded(path: Path, most: int, links: bool = True) -> Iterator[BinaryIO]:
    """As open_plain; raises OSError for a file with more than `most` bytes, too."""
    with open_plain(path, links) as file:
        if os.fstat(file.fileno()).st_size > most:  # which may be of nothing but holes, and fill the memory
            raise OSError(0, f"it is larger than {most} bytes", str(path))
        yield file


def read_plain(path: Path, most: int, links: bool = True) -> bytes:
    """The bytes of a plain file; raises OSError for any other, and for one with more than `most` of them.

    links  whether it may be reached by a symbolic link
    """
    with open_bounded(path, most, links) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(0, f"it is larger than {most} bytes", str(path))
    return data
