"""A folder of photos captioned into a file: jsonl, csv or parquet."""

from __future__ import annotations

import dataclasses
import filecmp
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..atomic import check_absent, clear_partials, new_file
from ..bundle import Bundle
from ..errors import ImageError, OptionError, OutputError
from ..runtime.caption import Caption
from ..runtime.captioner import Captioner
from ..runtime.options import DecodingOptions
from ..runtime.rules import Rules
from .ahead import caption_ahead
from .journal import Journal, check_journal, open_journal
from .rows import Row, photo_row
from .sidecars import Sidecar, check_sidecars
from .tables import WRITERS, load_parquet
from .walk import photos_under

SUFFIXES = (".jsonl", *WRITERS)
BATCH = 8  # of one thread: with more, what the encoder has between its layers no longer fits into its caches


@dataclass(frozen=True)
class Folder:
    """What is to be captioned, and where the captions go.

    folder          of the photos
    out             the file of the captions, of one of SUFFIXES
    recursive       whether photos of folders in it count, too
    batch           photos captioned together, by each thread
    min_confidence  a caption below it is left empty, and has no sidecar
    sidecars        written beside each photo
    resume          goes on with what a run left that did not come to its end; begins one where there is nothing
    force           replaces an earlier run's files, and sidecars
    """

    folder: Path
    out: Path
    recursive: bool = False
    batch: int = BATCH
    min_confidence: float = 0.0
    sidecars: tuple[Sidecar, ...] = ()
    resume: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        if self.out.suffix not in SUFFIXES:
            raise OptionError(f"Captions are written to a file ending in {', '.join(SUFFIXES)}, not to {self.out}.")
        if self.batch < 1 or not 0 <= self.min_confidence <= 1:
            raise OptionError(
                f"batch must be 1 or more and min_confidence from 0 to 1, not {self.batch} and {self.min_confidence}."
            )
        if self.resume and self.force:
            raise OptionError("A run is either resumed or begun anew by force, not both.")
        if self.out.suffix == ".parquet":
            load_parquet()

    @property
    def journal(self) -> Path:
        """Where rows are collected: the output itself, or a file beside it that goes when the table is written."""
        return self.out if self.out.suffix == ".jsonl" else self.out.with_name(f"{self.out.name}.partial.jsonl")

    def photos(self) -> Iterator[Path]:
        """Them, in the order of walk.photos_under."""
        return photos_under(self.folder, self.recursive)

    def check(self) -> int:
        """The number of photos; raises ImageError without any, OutputError for a file that is in the way."""
        resumed = self.resume and self.journal.exists()
        if self.journal != self.out and not resumed:
            check_absent(self.out, self.force)
        check_journal(self.journal, self.resume, self.force)
        count = check_sidecars(self.photos(), self.sidecars, not resumed, self.force)
        if not count:
            raise ImageError(f"There are no photos in {self.folder}.")
        return count


@dataclass
class Tally:
    """Photos that have a row by now, those of earlier runs and broken ones included, and the broken ones."""

    photos: int = 0
    failed: int = 0

    def count(self, row: Row) -> None:
        """Count a row in."""
        self.photos += 1
        self.failed += row["error"] is not None


def caption_folder(
    captioner: Captioner,
    what: Folder,
    options: DecodingOptions,
    progress: Callable[[Tally], None] = lambda tally: None,
) -> Tally:
    """Caption a folder's photos into a file; a photo that cannot be read is a row with its error.

    Rows are in the order of the photos, those of photos that a resumed run finds for the first time at the end. Memory
    does not grow with the number of photos, but for their names where a run is resumed.

    progress  is called when the rows of an earlier run are read, and after each new row

    Raises OutputError for files that are in the way, cannot be written or belong to another run, ImageError for a
    folder without photos, and what the captioner raises for its options and graphs.
    """
    what.check()
    # Options that this vocabulary refuses are refused before an earlier run's rows are replaced.
    Rules(options, captioner.bundle.vocabulary, captioner.bundle.manifest.shape.max_length)
    run, tally = run_id(captioner.bundle, options, what), Tally()
    with open_journal(what.journal, what.resume, what.force) as journal:
        done = _done(journal, run, what, tally)
        progress(tally)
        for photo, result in _captions(captioner, what, options, done):
            row = photo_row(str(photo), result, what.min_confidence, run)
            if row["text"]:
                for sidecar in what.sidecars:
                    # Before the row: a photo that has one is never looked at again.
                    sidecar.write(photo, row["text"], what.force)
            journal.append(row)
            tally.count(row)
            progress(tally)
        if what.journal != what.out:
            _write_table(journal, what)
    if what.journal != what.out:
        what.journal.unlink()
    return tally


def run_id(bundle: Bundle, options: DecodingOptions, what: Folder) -> str:
    """12 hexadecimal digits that say whether two runs say the same of a photo, and call it by the same name."""
    files = {name: file.sha256 for name, file in bundle.manifest.files.items()}
    parts = [str(what.folder), files, dataclasses.asdict(options), what.min_confidence]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def _done(journal: Journal, run: str, what: Folder, tally: Tally) -> set[str]:
    """The names of the photos that have a row, which are counted in."""
    names = set()
    for row in journal.read():
        if row["run"] != run:
            raise OutputError(
                f"{what.journal} is of another bundle, other options or a folder named otherwise: resume with the same."
            )
        names.add(row["path"])
        tally.count(row)
    return names


def _captions(
    captioner: Captioner, what: Folder, options: DecodingOptions, done: set[str]
) -> Iterator[tuple[Path, Caption | ImageError]]:
    """The photos that are not done, with their captions.

    A batch of which a part is done is captioned whole: by what stands beside a photo its log-probabilities can differ
    in the last digit, and a resumed run is to be the same as one that was not disturbed.
    """
    waiting = iter(what.photos())
    whole = iter(lambda: list(itertools.islice(waiting, what.batch)), [])
    begun, taken = itertools.tee(photos for photos in whole if any(str(photo) not in done for photo in photos))
    for photos, results in zip(taken, caption_ahead(captioner, begun, options), strict=True):
        for photo, result in zip(photos, results, strict=True):
            if str(photo) not in done:
                yield photo, result


def _write_table(journal: Journal, what: Folder) -> None:
    """Write it; one that is there already is the same, where a run was killed between writing it and its end."""
    clear_partials(what.out.parent, what.out.name)
    with new_file(what.out) as partial:
        WRITERS[what.out.suffix](journal.read(), partial)
        same = what.out.exists() and filecmp.cmp(partial, what.out, shallow=False)
        check_absent(what.out, what.force or same)
