"""Shards of photos captioned one by one: a file of captions a shard, and one of statistics that says it is done."""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..bundle import Bundle
from ..errors import DataError, OptionError, OutputError
from ..image import Held
from ..runtime.captioner import Captioner
from ..runtime.options import DecodingOptions
from .ahead import rows_ahead
from .rows import Row
from .run import BATCH, Tally, check_numbers, run_id
from .shards import ALL, Share, photos_of, stem
from .storage import join, name_of, new_output, read_text, remove, size
from .tables import WRITERS, load_parquet, write_jsonl

FORMATS = {".jsonl": write_jsonl, **WRITERS}
STATS = ".stats.json"
LARGE = 1 << 25  # bytes of the photos of a batch


@dataclass(frozen=True)
class Shards:
    """What is to be captioned, and where the captions go.

    shards          tar and Parquet files, paths or URIs
    out             the folder for the captions, a path or URI; of a single shard also a file of one of FORMATS
    format          of the captions in a folder, one of FORMATS
    batch           photos captioned together, by each thread
    min_confidence  a caption below it is left empty
    share           of the shards, by their order in `shards`
    force           replaces captions that are there, and does shards anew that were done
    """

    shards: tuple[str, ...]
    out: str
    format: str = ".jsonl"
    batch: int = BATCH
    min_confidence: float = 0.0
    share: Share = ALL
    force: bool = False

    def __post_init__(self) -> None:
        check_numbers(self.batch, self.min_confidence)
        if self.format not in FORMATS:
            raise OptionError(f"Captions are written as {', '.join(FORMATS)}, not as {self.format}.")
        if self.one_file and len(self.shards) > 1:
            raise OptionError(f"The captions of {len(self.shards)} shards go to a folder, not to {self.out}.")
        named: dict[str, str] = {}
        for shard in self.shards:
            other = named.setdefault(stem(shard), shard)
            if other != shard:
                raise OutputError(
                    f"{other} and {shard} would share the file {self.captions(shard)}; rename one of them."
                )
        if any(name.endswith(".parquet") for name in (self.captions(self.shards[0]), *self.shards)):
            load_parquet()

    @property
    def one_file(self) -> bool:
        """Whether `out` is the file of the only shard's captions."""
        return Path(self.out).suffix in FORMATS and not self.out.endswith("/")

    def captions(self, shard: str) -> str:
        """Where the shard's captions go."""
        return self.out if self.one_file else join(self.out, stem(shard) + self.format)

    def stats(self, shard: str) -> str:
        """Where what is known of them goes."""
        captions = self.captions(shard)
        return captions[: len(captions) - len(Path(captions).suffix)] + STATS

    def mine(self) -> list[str]:
        """The shards of the share."""
        return [shard for number, shard in enumerate(self.shards) if self.share.has(number)]

    def run(self, bundle: Bundle, options: DecodingOptions, shard: str) -> str:
        """The run's id in a shard's rows, see run.run_id."""
        return run_id(bundle, options, self.min_confidence, shard)


@dataclass
class Stats:
    """What is known of a shard's captions: but for the last two the body of its file of statistics.

    shard     its path or URI
    captions  the name of the file with its rows
    run       the rows' own
    photos    that have a row, those with errors included
    failed    of them with an error
    empty     of them left without text for want of confidence
    bytes     of the captions' file
    sha256    of the same
    seconds   that it took, from opening the shard on
    error     why there are no captions; then there are no files either, and a later run tries anew
    earlier   whether it was done before this run
    """

    shard: str
    captions: str = ""
    run: str = ""
    photos: int = 0
    failed: int = 0
    empty: int = 0
    bytes: int = 0
    sha256: str = ""
    seconds: float = 0.0
    error: str | None = None
    earlier: bool = False

    def counted(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows, counted in."""
        for row in rows:
            self.photos += 1
            self.failed += row["error"] is not None
            self.empty += row["text"] == ""
            yield row


def done(what: Shards, shard: str, run: str) -> Stats | None:
    """The statistics of a shard that is done, None of one that is not.

    Raises OutputError if there are captions of another run, or of somebody else.
    """
    captions, there = what.captions(shard), size(what.captions(shard))
    try:
        found = Stats(**json.loads(read_text(what.stats(shard))))
    except FileNotFoundError:
        if there is None or what.force:
            return None
        raise OutputError(f"{captions} exists already and has no {STATS}; move it, or pass --force.") from None
    except (OSError, ValueError, TypeError) as error:
        raise OutputError(f"{what.stats(shard)} is no statistics of a shard: mend or remove it ({error}).") from error
    if found.captions != name_of(captions) and not what.force:
        raise OutputError(
            f"{what.stats(shard)} is of {found.captions}, its captions in another format; choose another place, or "
            "pass --force to replace it."
        )
    if what.force or there is None:
        return None
    if found.run != run or there != found.bytes:
        raise OutputError(
            f"{captions} is of another bundle, other options or a shard named otherwise, or was changed since; "
            "choose another place, or pass --force to replace it."
        )
    return replace(found, earlier=True)


def caption_shard(captioner: Captioner, what: Shards, shard: str, options: DecodingOptions) -> Stats:
    """Caption a shard's photos, unless that was done; its files appear whole, the statistics first.

    Several processes may do the same shard at once: they write the same.

    Raises DataError for a shard that is damaged or cannot be read, OutputError for captions that are in the way or
    cannot be written, and what the captioner raises for its options and graphs.
    """
    began = time.monotonic()
    run = what.run(captioner.bundle, options, shard)
    earlier = done(what, shard, run)
    if earlier:
        return earlier
    if what.force:
        remove(what.captions(shard))  # or the statistics of the new ones would stand beside the old ones
    stats = Stats(shard, name_of(what.captions(shard)), run)
    batches = _batches(photos_of(shard), what.batch)
    rows = rows_ahead(captioner, batches, options, what.min_confidence, run)
    with new_output(what.captions(shard), force=True) as partial:
        FORMATS[Path(what.captions(shard)).suffix](stats.counted(itertools.chain.from_iterable(rows)), partial)
        stats.bytes = partial.stat().st_size
        with partial.open("rb") as file:
            stats.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        stats.seconds = round(time.monotonic() - began, 3)
        with new_output(what.stats(shard), force=True) as written:
            known = {name: value for name, value in asdict(stats).items() if name not in ("error", "earlier")}
            written.write_text(json.dumps(known, indent=1) + "\n", encoding="ascii")
    return stats


def _batches(photos: Iterable[Held], most: int) -> Iterator[list[Held]]:
    """The photos, so many at a time, or fewer of large ones, for a number of batches is in memory at once."""
    batch: list[Held] = []
    size = 0
    for photo in photos:
        batch.append(photo)
        size += len(photo.body) if isinstance(photo.body, bytes) else 0
        if len(batch) == most or size > LARGE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def try_shard(captioner: Captioner, what: Shards, shard: str, options: DecodingOptions) -> Stats:
    """As caption_shard; a shard that is damaged has statistics that say so."""
    try:
        return caption_shard(captioner, what, shard, options)
    except DataError as error:
        return Stats(shard, error=str(error))


@dataclass
class ShardTally(Tally):
    """As Tally, and shards that are done, or were by an earlier run, and those that are damaged, with the reasons."""

    shards: int = 0
    damaged: tuple[str, ...] = ()

    @property
    def done(self) -> int:
        """How much of the work is done."""
        return self.shards

    def add(self, stats: Stats) -> None:
        """Count a shard in."""
        self.shards += 1
        self.photos += stats.photos
        self.failed += stats.failed
        self.earlier += stats.photos if stats.earlier else 0
        self.damaged += (stats.error,) if stats.error else ()


def caption_shards(
    captioner: Captioner,
    what: Shards,
    options: DecodingOptions,
    progress: Callable[[ShardTally], None] = lambda tally: None,
) -> ShardTally:
    """Caption the share's shards one after the other; those that are done already are passed over.

    progress  is called before the first shard, and after each

    Raises what caption_shard raises, but for damaged shards, which are told of in the end.
    """
    return tally_up((try_shard(captioner, what, shard, options) for shard in what.mine()), progress)


def tally_up(found: Iterable[Stats], progress: Callable[[ShardTally], None]) -> ShardTally:
    """Count shards in as they come."""
    tally = ShardTally()
    progress(tally)
    for stats in found:
        tally.add(stats)
        progress(tally)
    return tally
