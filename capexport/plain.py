"""Files that others made, read in whole: plain ones of a bounded size, never a pipe, a device or a hole."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def read_plain(path: Path, most: int, links: bool = True) -> bytes:
    """The bytes of a plain file; raises OSError for any other, and for one with more than `most` of them.

    links  whether it may be reached by a symbolic link
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags if links else flags | getattr(os, "O_NOFOLLOW", 0))
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(0, "it is not a plain file", str(path))
        if found.st_size > most:  # which may be of nothing but holes, and fill the memory
            raise OSError(0, f"it is larger than {most} bytes", str(path))
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(0, f"it is larger than {most} bytes", str(path))
    return data
