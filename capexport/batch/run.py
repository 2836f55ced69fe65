"""A folder of photos captioned into a file: jsonl, csv or parquet."""

from __future__ import annotations

import dataclasses
import filecmp
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ..atomic import check_absent, clear_partials, new_file
from ..bundle import Bundle
from ..errors import ImageError, OptionError, OutputError
from ..runtime.captioner import Captioner
from ..runtime.options import DecodingOptions
from ..runtime.rules import Rules
from .ahead import batched, fetch_ahead, rows_ahead
from .journal import Journal, check_journal, open_journal
from .rows import Row
from .shards import ALL, Share
from .sidecars import Sidecar, check_sidecars
from .storage import Source, is_uri
from .tables import OUTCOMES, WRITERS, load_parquet
from .walk import names_under, photos_under

T = TypeVar("T")
SUFFIXES = (".jsonl", *WRITERS)
BATCH = 16
READ = 32  # photos on disk that a thread reads, at least a batch, before it captions them


@dataclass(frozen=True)
class Folder:
    """What is to be captioned, and where the captions go.

    folder          of the photos; the URI of one in storage is a str
    out             the file of the captions, of one of SUFFIXES
    recursive       whether photos of folders in it count, too
    batch           photos captioned together, by each thread
    min_confidence  a caption below it is left empty, and has no sidecar
    sidecars        written beside each photo
    share           of the batches, which are dealt out one by one
    resume          goes on with what a run left that did not come to its end; begins one where there is nothing
    force           replaces an earlier run's files, and sidecars
    """

    folder: Path | str
    out: Path
    recursive: bool = False
    batch: int = BATCH
    min_confidence: float = 0.0
    sidecars: tuple[Sidecar, ...] = ()
    share: Share = ALL
    resume: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        if self.out.suffix not in SUFFIXES:
            raise OptionError(f"Captions are written to a file ending in {', '.join(SUFFIXES)}, not to {self.out}.")
        check_numbers(self.batch, self.min_confidence)
        if self.resume and self.force:
            raise OptionError("A run is either resumed or begun anew by force, not both.")
        if self.sidecars and is_uri(str(self.folder)):
            raise OptionError(f"Sidecars are written beside photos on disk, not to {self.folder}.")
        if self.out.suffix == ".parquet":
            load_parquet()

    @property
    def journal(self) -> Path:
        """Where rows are collected: the output itself, or a file beside it that goes when the table is written."""
        return self.out if self.out.suffix == ".jsonl" else self.out.with_name(f"{self.out.name}.partial.jsonl")

    def batches(self) -> Iterator[Sequence[Source]]:
        """The photos of the share, captioned together, in the order of walk.photos_under."""
        return self._dealt(photos_under(self.folder, self.recursive))

    def _dealt(self, photos: Iterable[T]) -> Iterator[list[T]]:
        return (batch for number, batch in enumerate(batched(photos, self.batch)) if self.share.has(number))

    @property
    def finished(self) -> bool:
        """Whether there is a table, whose run came to its end."""
        return self.journal != self.out and self.out.exists() and not self.journal.exists()

    def check(self) -> int:
        """The number of photos; raises ImageError without any, OutputError for a file that is in the way."""
        resumed = self.resume and (self.journal.exists() or self.out.exists())
        if self.journal != self.out:
            check_absent(self.out, self.force or resumed)
        check_journal(self.journal, self.resume, self.force)
        if self.sidecars:
            photos = itertools.chain.from_iterable(self.batches())
            count = check_sidecars(photos, self.sidecars, not resumed, self.force)
        else:
            count = sum(map(len, self._dealt(names_under(self.folder, self.recursive))))
        if not count and self.share == ALL:  # of a few batches some of many shares have none
            raise ImageError(f"There are no photos in {self.folder}.")
        return count


def check_numbers(batch: int, min_confidence: float) -> None:
    """Raise OptionError for a batch or a confidence that there cannot be."""
    if batch < 1 or not 0 <= min_confidence <= 1:
        raise OptionError(f"batch must be 1 or more and min_confidence from 0 to 1, not {batch} and {min_confidence}.")


@dataclass
class Tally:
    """Photos that have a row by now, those of earlier runs and broken ones included, and the broken ones.

    earlier  photos that an earlier run did
    """

    photos: int = 0
    failed: int = 0
    earlier: int = 0

    @property
    def done(self) -> int:
        """How much of the work is done."""
        return self.photos

    def count(self, row: Row) -> None:
        """Count a row in."""
        self.photos += 1
        self.failed += row["error"] is not None


Rows = Callable[[Iterable[Sequence[Source]], str], Iterator[Sequence[Row]]]


def caption_folder(
    captioner: Captioner,
    what: Folder,
    options: DecodingOptions,
    progress: Callable[[Tally], None] = lambda tally: None,
    cache: Path | None = None,
    near_copies: int = 0,
) -> Tally:
    """Caption a folder's photos into a file; a photo that cannot be read is a row with its error.

    Rows are in the order of the photos, those of photos that a resumed run finds for the first time at the end. Memory
    does not grow with the number of photos, but for their names where a run is resumed.

    progress     is called when the rows of an earlier run are read, and after those of each batch
    cache        a file of captions of earlier photos, whose copies are not captioned again: see duplicates
    near_copies  bits in which near copies may differ, see duplicates.Cache

    Raises OutputError for files that are in the way, cannot be written or belong to another run, ImageError for a
    folder without photos, and what the captioner raises for its options and graphs.
    """

    def rows(batches: Iterable[Sequence[Source]], run: str) -> Iterator[Sequence[Row]]:
        fetched = fetch_ahead(batches, what.batch) if is_uri(str(what.folder)) else batches
        if cache is None:
            together = 1 if is_uri(str(what.folder)) else max(1, READ // what.batch)
            yield from rows_ahead(captioner, fetched, options, what.min_confidence, run, together)
        else:
            from .duplicates import open_cache, rows_with_copies  # and with it SQLite

            with open_cache(cache, run_id(captioner.bundle, options, 0.0, ""), near_copies) as opened:
                yield from rows_with_copies(captioner, fetched, options, what.min_confidence, run, opened)

    return collect(captioner.bundle, what, options, rows, progress)


def collect(
    bundle: Bundle,
    what: Folder,
    options: DecodingOptions,
    rows: Rows,
    progress: Callable[[Tally], None] = lambda tally: None,
) -> Tally:
    """As caption_folder, for whatever makes the rows.

    rows  is called with the batches of photos that are to be captioned and the run's id, and gives their rows in any
          order, several at a time; of a batch of which a part is done, all of them: by what stands beside a photo its
          log-probabilities can differ in the last digit, and a resumed run is to be the same as one that was not
          disturbed
    """
    photos = what.check()
    # Options that this vocabulary refuses are refused before an earlier run's rows are replaced.
    Rules(options, bundle.vocabulary, bundle.manifest.shape.max_length)
    run, tally = run_id(bundle, options, what.min_confidence, str(what.folder)), Tally()
    if what.resume and what.finished:
        tally = _finished(what, run, photos)
        progress(tally)
        return tally
    with open_journal(what.journal, what.resume, what.force) as journal:
        done = _done(journal, run, what, tally)
        tally.earlier = tally.photos
        progress(tally)
        waiting = (batch for batch in what.batches() if not done or any(str(photo) not in done for photo in batch))
        for several in rows(waiting, run):
            new = [row for row in several if row["path"] not in done]
            journal.kept = bool(what.sidecars)
            # Before their rows: a photo that has one is never looked at again.
            for row, sidecar in itertools.product([row for row in new if row["text"]], what.sidecars):
                sidecar.write(Path(row["path"]), row["text"], what.force)
            journal.append(new)
            for row in new:
                tally.count(row)
            progress(tally)
        if what.journal != what.out:
            _write_table(journal, what)
    if what.journal != what.out:
        what.journal.unlink()
    return tally


def run_id(bundle: Bundle, options: DecodingOptions, min_confidence: float, place: str) -> str:
    """12 hexadecimal digits that say whether two runs say the same of a photo, and call it by the same name.

    place  where the photos are, by which they are named
    """
    files = {name: file.sha256 for name, file in bundle.manifest.files.items()}
    parts = [place, files, dataclasses.asdict(options), min_confidence]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def _done(journal: Journal, run: str, what: Folder, tally: Tally) -> set[str]:
    """The names of the photos that have a row, which are counted in."""
    names = set()
    for row in journal.read():
        _check_run(row, run, what.journal)
        names.add(row["path"])
        tally.count(row)
    return names


def _finished(what: Folder, run: str, photos: int) -> Tally:
    """The tally of a run whose table is there; raises OutputError if it is another's, or of fewer or more photos."""
    tally = Tally()
    for row in OUTCOMES[what.out.suffix](what.out):
        _check_run(row, run, what.out)
        tally.count(row)
    if tally.photos != photos:
        raise OutputError(
            f"{what.out} is finished, with {tally.photos:,} photos, and there are {photos:,} now: pass --force to make "
            "it anew."
        )
    tally.earlier = tally.photos
    return tally


def _check_run(row: Row, run: str, path: Path) -> None:
    if row["run"] != run:
        raise OutputError(
            f"{path} is of another bundle, other options or a folder named otherwise: resume with the same."
        )


def _write_table(journal: Journal, what: Folder) -> None:
    """Write it; one that is there already is the same, where a run was killed between writing it and its end."""
    clear_partials(what.out.parent, what.out.name)
    with new_file(what.out) as partial:
        WRITERS[what.out.suffix](journal.read(), partial)
        same = what.out.exists() and filecmp.cmp(partial, what.out, shallow=False)
        check_absent(what.out, what.force or same)
