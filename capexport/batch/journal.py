"""Rows on disk, one JSON object a line, appended batch by batch, so that a run that was killed can go on."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import IO, Any

from ..atomic import check_plain
from ..errors import OutputError
from .rows import Row, is_row

try:
    import fcntl
except ModuleNotFoundError:  # Windows, which has no such locks
    fcntl = None  # type: ignore[assignment]

CHUNK = 1 << 16
LONGEST = 1 << 24  # bytes of a line: what has more is no row, and may be a file of nothing but holes
BEGIN = b'{"path": "'  # of a row's line, as it is written


class Journal:
    """A file of rows that is open for appending; no other run can open it meanwhile.

    kept  whether it stays though it has no row, since it tells that other files are its run's
    """

    def __init__(self, path: Path, file: FileIO, whole: int) -> None:
        self.kept = False
        self._path = path
        self._file = file
        self._whole = whole  # bytes of its whole lines, when it was opened

    def append(self, rows: Iterable[Row]) -> None:
        """Write rows; they are with the operating system when this returns, and outlive the process.

        Raises OutputError if they cannot be written.
        """
        with _refusals(self._path):
            lines = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
            rest = memoryview(lines)
            while rest:
                rest = rest[self._file.write(rest) :]
            self._whole += len(lines)

    def read(self) -> Iterator[Row]:
        """The rows so far, in order; raises OutputError for a line that is none.

        When all of them were rows, a torn line behind them goes. In a file that is no journal nothing is changed.
        """
        yield from read_rows(self._path, self._whole)
        with _refusals(self._path):
            self._file.truncate(self._whole)


@contextmanager
def open_journal(path: Path, resume: bool, force: bool) -> Iterator[Journal]:
    """Open a journal: a new one, or with resume the present one, of which a torn last line is dropped.

    One that has no row in the end, and is not kept, vanishes. Raises OutputError if it exists and neither resume nor
    force is set, if another run has it open, and if it cannot be written.
    """
    check_journal(path, resume, force)
    with contextlib.ExitStack() as stack:
        with _refusals(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Without a buffer, which would be written once more, in vain, when the file of a full disk is closed.
            file = stack.enter_context(path.open("ab", buffering=0))
            lock(path, file)
            if not resume:
                file.truncate(0)
            whole = whole_lines(path)
            check_torn(path, whole, BEGIN)
        journal = Journal(path, file, whole)
        try:
            yield journal
            os.fsync(file.fileno())
        finally:
            if not journal.kept and path.exists() and not path.stat().st_size:
                path.unlink()


def check_journal(path: Path, resume: bool, force: bool) -> None:
    """Raise OutputError if the journal exists and neither resume nor force is set, or if it is no plain file."""
    check_plain(path)
    if path.exists() and not (resume or force):
        raise OutputError(f"{path} exists already; pass --resume to go on with it, or --force to begin anew.")


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error}.") from error


def read_rows(path: Path, end: int | None = None) -> Iterator[Row]:
    """The rows of a file, or of its first `end` bytes, in order; raises OutputError for a line that is no row."""
    return (row for _, row in placed_rows(path, end))


def placed_rows(path: Path, end: int | None = None) -> Iterator[tuple[int, Row]]:
    """As read_rows, each with the place where its line begins."""
    begin = 0
    for number, line in enumerate(read_lines(path), start=1):
        if end is not None and begin + len(line) > end:
            return
        row: Any = None
        with contextlib.suppress(ValueError, RecursionError):  # of JSON and of UTF-8
            row = json.loads(line)
        if not is_row(row):
            raise OutputError(f"Line {number} of {path} is no row of such a run: mend or remove the file.")
        yield begin, row
        begin += len(line)


def read_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file; of one that is longer than LONGEST only its beginning, and nothing after that."""
    with path.open("rb") as file:
        while line := file.readline(LONGEST):
            yield line
            if len(line) == LONGEST:
                return


def lock(path: Path, file: IO[bytes]) -> None:
    """Keep other runs from the file until it is closed; raises OutputError if one has it open."""
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(f"{path} is being written by another run; wait for it, or stop it.") from error


def whole_lines(path: Path) -> int:
    """Bytes of the file up to its last line break, which is looked for from the end.

    Raises OutputError if there are more than LONGEST bytes after it.
    """
    with path.open("rb") as file:
        size = end = file.seek(0, os.SEEK_END)
        while end:
            if size - end > LONGEST:
                raise OutputError(f"The end of {path} is no row of such a run: mend or remove the file.")
            start = max(0, end - CHUNK)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
    return 0


def check_torn(path: Path, whole: int, begin: bytes) -> None:
    """Raise OutputError if what is behind the whole lines is not the beginning of a line as we write them.

    begin  what all of our lines begin with
    """
    with path.open("rb") as file:
        file.seek(whole)
        torn = file.read(len(begin))
    if not begin.startswith(torn):
        raise OutputError(f"The end of {path} is no row of such a run: mend or remove the file.")
