"""A file of captions and what a person decided about them, each decision on disk as soon as it is made."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ..atomic import check_plain, clear_partials, new_file
from ..batch.journal import check_torn, lock, placed_rows, read_lines, whole_lines
from ..batch.rows import Row
from ..batch.shards import split_shard
from ..batch.sidecars import Sidecar
from ..batch.storage import is_uri
from ..errors import OptionError, OutputError

OPEN, ACCEPTED, EDITED, EMPTIED, UNREADABLE = "open", "accepted", "edited", "emptied", "unreadable"
DECIDED = (ACCEPTED, EDITED, EMPTIED)
STATES = (OPEN, *DECIDED, UNREADABLE)
LONGEST = 2000  # signs of a caption
SAVED = ".review.jsonl"  # of the file of decisions that are not in the captions yet, after the captions' name
BEGIN = b'{"number": '  # of a decision's line, as it is written
ORDERS = ("doubtful", "file")
CONTROL, SURROGATE = re.compile("[\x00-\x1f\x7f-\x9f]"), re.compile("[\ud800-\udfff]")
Fields = dict[str, Any]


class Captions:
    """The rows of a .jsonl, of which only the places are in memory, and the decisions about them.

    Use it as open_captions does: no other run may write the file meanwhile.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._decisions_path = path.with_name(path.name + SAVED)
        self._places, self._confidences = array("q"), array("f")
        self._states = bytearray()
        self._changed: dict[int, Fields] = {}
        self._lock = threading.Lock()
        for place, row in placed_rows(path):
            self._places.append(place)
            self._confidences.append(2.0 if row["confidence"] is None else row["confidence"])
            self._states.append(STATES.index(_state(row)))
        check_plain(self._decisions_path)
        if self._decisions_path.exists():
            self._read_decisions()
        self._doubtful = array("l", sorted(range(len(self)), key=self._confidences.__getitem__))

    def __len__(self) -> int:
        return len(self._places)

    def row(self, number: int) -> Row:
        """A photo's row, with what was decided about it; raises OptionError if there is no such row."""
        if not 0 <= number < len(self):
            raise OptionError(f"There is no row {number}: the file has {len(self)}, from 0.")
        return {**self._on_disk(number), **self._changed.get(number, {})}

    def _on_disk(self, number: int) -> Row:
        with self.path.open("rb") as file:
            file.seek(self._places[number])
            row: Row = json.loads(file.readline())
        return row

    def state(self, number: int) -> str:
        """One of STATES."""
        return STATES[self._states[number]]

    def counts(self) -> dict[str, int]:
        """How many rows are in each state."""
        return {state: self._states.count(index) for index, state in enumerate(STATES)}

    def find(self, state: str | None, order: str, after: int | None, count: int) -> list[int]:
        """The next rows in a state, or in any (None), in an order of ORDERS, that come after a row, or from the first.

        Raises OptionError for a state, order or row that there is not.
        """
        if (state is not None and state not in STATES) or order not in ORDERS or not 0 < count <= 1000:
            raise OptionError(f"There are no {count} rows of {state} in order of {order}.")
        numbers: Sequence[int] = self._doubtful if order == "doubtful" else range(len(self))
        if after is not None and not 0 <= after < len(self):
            raise OptionError(f"There is no row {after}.")
        begin = 0 if after is None else numbers.index(after) + 1
        found: list[int] = []
        for number in numbers[begin:]:
            if len(found) == count:
                break
            if state is None or self.state(number) == state:
                found.append(number)
        return found

    def decide(self, number: int, state: str, text: str) -> None:
        """Accept a caption, change its text, empty it, or take that back (OPEN); it is on disk when this returns.

        Raises OptionError for what cannot be decided, OutputError if it cannot be written.
        """
        row = self.row(number)
        if row["error"] is not None or state not in STATES or state == UNREADABLE:
            raise OptionError(f"The caption of {row['path']} cannot be {state}.")
        text = " ".join(CONTROL.sub(" ", text).split())
        if SURROGATE.search(text):
            raise OptionError("A caption is of signs that a file can hold.")
        if len(text) > LONGEST or (state == EDITED and not text):
            raise OptionError(f"A caption has up to {LONGEST} signs, and one at least.")
        with self._lock:
            disk = self._on_disk(number)
            kept = disk["text"] if state == OPEN and not disk.get("review") else said_text(row)
            fields = {"text": {EDITED: text, EMPTIED: ""}.get(state, kept), "review": None if state == OPEN else state}
            try:
                with self._decisions_path.open("ab") as file:
                    file.write(json.dumps({"number": number, "path": row["path"], **fields}).encode() + b"\n")
            except OSError as error:
                raise OutputError(f"{self._decisions_path} cannot be written: {error}.") from error
            self._take(number, fields)

    def save(self, sidecars: Sequence[Sidecar] = ()) -> int:
        """Put the decisions into the file of captions, whole or not at all; returns how many there were.

        sidecars  are written beside the photos on disk whose captions were decided about, and removed beside those that
                  are empty now; one that is neither ours nor what the caption was before is left alone

        Raises OutputError if the file cannot be written.
        """
        with self._lock:
            count = len(self._changed)
            if count:
                for kind in sidecars:
                    self._write_sidecars(kind)
                clear_partials(self.path.parent, self.path.name)
                with new_file(self.path) as partial, partial.open("wb") as file:
                    places = array("q")
                    for number in range(len(self)):
                        row = self.row(number)
                        if row.get("review", OPEN) is None:
                            del row["review"]
                        places.append(file.tell())
                        file.write(json.dumps(row).encode() + b"\n")
                self._places = places
                self._changed.clear()
            self._decisions_path.unlink(missing_ok=True)
        return count

    def _write_sidecars(self, kind: Sidecar) -> None:
        for number, fields in self._changed.items():
            row = self.row(number)
            if not is_uri(row["path"]) and split_shard(row["path"]) is None and is_photo(Path(row["path"])):
                before = {self._on_disk(number)["text"], said_text(row)}
                kind.replace(Path(row["path"]), before, fields["text"])

    def _take(self, number: int, fields: Fields) -> None:
        self._changed[number] = fields
        self._states[number] = STATES.index(fields["review"] or OPEN)

    def _read_decisions(self) -> None:
        """Those that a killed review left, but for a torn one; raises OutputError if they are of other captions."""
        place, whole = 0, whole_lines(self._decisions_path)
        check_torn(self._decisions_path, whole, BEGIN)
        for count, line in enumerate(read_lines(self._decisions_path), start=1):
            place += len(line)
            if place > whole:
                break
            fields = _decision(line)
            if fields is None:
                raise OutputError(f"Line {count} of {self._decisions_path} is no decision: mend or remove the file.")
            number, path = fields.pop("number"), fields.pop("path")
            row = self.row(number) if number < len(self) else None
            if row is None or row["path"] != path or row["error"] is not None:
                raise OutputError(f"{self._decisions_path} is of other captions than {self.path}: remove one.")
            self._take(number, fields)
        with self._decisions_path.open("r+b") as file:
            file.truncate(whole)


@contextmanager
def open_captions(
    path: Path, sidecars: Sequence[Sidecar] = (), told: Callable[[int], None] = lambda n: None
) -> Iterator[Captions]:
    """Captions to decide about; in the end, and however it comes, the decisions are saved in their file.

    told  is called with the number of decisions that were saved

    Raises OutputError for a file that is no .jsonl of captions, or that another run has open.
    """
    if path.suffix != ".jsonl" or not path.is_file():
        raise OutputError(f"{path} is no .jsonl of captions; caption a folder with --out captions.jsonl first.")
    with path.open("ab") as file:
        lock(path, file)
        _check_whole(path, file)
        captions = Captions(path)
        try:
            yield captions
        finally:
            told(captions.save(sidecars))


def _check_whole(path: Path, file: BinaryIO) -> None:
    if whole_lines(path) != file.tell():
        raise OutputError(f"{path} ends within a line: its run was interrupted; go on with --resume first.")


def said_text(row: Row) -> str:
    """What the captioner said, whatever became of it."""
    return " ".join(word for word in row["words"] or () if word != "[END]")


def _decision(line: bytes) -> Fields | None:
    """A decision as decide writes it; None for anything else."""
    found: Any = None
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(line)
    if not (isinstance(found, dict) and found.keys() == {"number", "path", "text", "review"}):
        return None
    number, path, text, review = found["number"], found["path"], found["text"], found["review"]
    fits = type(number) is int and number >= 0 and isinstance(path, str) and isinstance(text, str)
    fits = fits and not SURROGATE.search(text) and (review is None or review in DECIDED)
    return found if fits else None


def is_photo(path: Path) -> bool:
    """Whether there is a file; of a path that there cannot be, not."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _state(row: Row) -> str:
    if row["error"] is not None:
        return UNREADABLE
    found = row.get("review")
    return found if found in DECIDED else OPEN
