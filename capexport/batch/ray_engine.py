"""Captioning by the workers of a Ray cluster; ray is imported only when this is.

Ray Data restarts workers that are lost, or gives their photos to others. What it gives up is done again here, until
every photo has its row.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from .. import errors
from ..bundle import Bundle
from ..errors import CapexportError, MissingExtraError, OptionError, OutputError
from ..runtime.options import DecodingOptions
from ..runtime.rules import Rules
from .caption_batch import PATH, CaptionBatch, Columns
from .rows import Row
from .run import Folder, Tally, collect
from .shard_run import Shards, ShardTally, Stats, done, tally_up, try_shard
from .storage import Source

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers
try:
    import pyarrow as pa
    import ray
    import ray.data
except ImportError as error:
    raise MissingExtraError(error.name or "ray", "ray") from error

BLOCK = 256  # photos that a worker is given together, in whole batches
ATTEMPTS = 3  # without a single photo more, before it gives up
PART, SHARD = "part", "shard"


@dataclass(frozen=True)
class Workers:
    """Those of a cluster.

    count    None: as many as its cores allow
    threads  of each: so many cores are set aside for it, and no more are used
    """

    count: int | None = None
    threads: int = 1

    def fitting(self) -> Workers:
        """These, counted; connects to the cluster that RAY_ADDRESS names, or starts one on this machine.

        Raises OptionError for more than the cluster has cores for.
        """
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        if not ray.is_initialized():
            ray.init(log_to_driver=False, configure_logging=False)
        cores = int(ray.cluster_resources().get("CPU", 0))
        count = self.count or cores // self.threads
        if count < 1 or count * self.threads > cores:
            raise OptionError(
                f"{count} workers of {self.threads} threads are more than the cluster's {cores} cores can run at once."
            )
        return replace(self, count=count)


def lost_nodes() -> int:
    """Nodes that the cluster had, and has no longer."""
    return sum(not node["Alive"] for node in ray.nodes())


def caption_folder(
    bundle: Bundle,
    what: Folder,
    options: DecodingOptions,
    workers: Workers,
    progress: Callable[[Tally], None] = lambda tally: None,
) -> Tally:
    """As run.caption_folder, by workers that see the folder under the same name; rows are in the order they come in.

    Sorted they are the same as without Ray, byte for byte. The photos' names are held in memory.
    """
    workers = workers.fitting()

    def rows(batches: Iterable[Sequence[Source]], run: str) -> Iterator[Sequence[Row]]:
        captions = (bundle, options, what.batch, workers.threads, what.min_confidence, run)
        parts = {part: [str(photo) for photo in batch] for part, batch in enumerate(batches)}
        waiting = {part: set(paths) for part, paths in parts.items()}

        def blocks() -> list[pa.Table]:
            left = [(part, path) for part, paths in parts.items() if waiting[part] for path in paths]
            return [_table(left[k : k + size]) for k in range(0, len(left), size)]

        size = what.batch * max(1, BLOCK // what.batch)  # so that a worker's batches are those of a run without Ray
        for found in _until_done(blocks, CaptionBatch, captions, workers):
            new = []
            for part, row in zip(found[PART].tolist(), map(json.loads, found["row"]), strict=True):
                if row["path"] in waiting[part]:  # otherwise it was done a second time
                    waiting[part].remove(row["path"])
                    new.append(row)
            yield new

    return collect(bundle, what, options, rows, progress)


def caption_shards(
    bundle: Bundle,
    what: Shards,
    options: DecodingOptions,
    workers: Workers,
    progress: Callable[[ShardTally], None] = lambda tally: None,
) -> ShardTally:
    """As shard_run.caption_shards, by workers that see shards and captions under the same names, a shard each."""
    workers = workers.fitting()
    Rules(options, bundle.vocabulary, bundle.manifest.shape.max_length)

    def found() -> Iterator[Stats]:
        waiting = dict.fromkeys(what.mine())
        for shard in what.mine():
            earlier = done(what, shard, what.run(bundle, options, shard))
            if earlier:
                del waiting[shard]
                yield earlier

        def blocks() -> list[pa.Table]:
            return [pa.table({SHARD: [shard]}) for shard in waiting]

        for columns in _until_done(blocks, CaptionShard, (bundle, what, options, workers.threads), workers):
            for stats in (Stats(**json.loads(text)) for text in columns["stats"]):
                if stats.shard in waiting:
                    del waiting[stats.shard]
                    yield stats

    return tally_up(found(), progress)


class CaptionShard:
    """Captions the shards of a column, each into its own file: what a worker does, by CaptionBatch's captioner."""

    def __init__(self, bundle: Bundle, what: Shards, options: DecodingOptions, threads: int) -> None:
        self._what = what
        self._captions = CaptionBatch(bundle, options, what.batch, threads, what.min_confidence)

    def __call__(self, columns: Columns) -> Columns:
        """The shards' statistics as JSON, (rows,)."""
        captioner, options = self._captions.captioner, self._captions.options
        stats = (try_shard(captioner, self._what, shard, options) for shard in columns[SHARD])
        return {"stats": np.array([json.dumps(asdict(one)) for one in stats], object)}


def _table(photos: Sequence[tuple[int, str]]) -> pa.Table:
    """Photos and the parts they are in; names of files that are no UTF-8 keep their bytes."""
    parts, paths = zip(*photos, strict=True)
    return pa.table({PART: pa.array(parts, pa.int64()), PATH: pa.array([os.fsencode(path) for path in paths])})


def _until_done(
    blocks: Callable[[], list[pa.Table]], work: type[Any], arguments: tuple[Any, ...], workers: Workers
) -> Iterator[Columns]:
    """What `work(*arguments)` makes of the blocks that are left, as it comes, until none is left.

    Raises what the work raises of CapexportError, and OutputError if the cluster fails again and again.
    """
    fruitless, kept = 0, ray.put(arguments)
    while left := blocks():
        count = len(left)
        try:
            yield from _once(left, work, kept, workers)
            failure: Exception | None = None
        except ray.exceptions.RayError as error:
            cause = _cause(error)
            if cause is not None:
                raise cause from None
            failure = error
        fruitless = fruitless + 1 if len(blocks()) == count else 0
        if fruitless == ATTEMPTS:
            reason = str(failure).strip().splitlines()
            raise OutputError(
                f"The cluster gave up {ATTEMPTS} times: {reason[-1] if reason else 'photos were lost'}. What is done "
                "is kept; go on with --resume."
            )


def _once(left: list[pa.Table], work: type[Any], kept: Any, workers: Workers) -> Iterator[Columns]:
    """One run of Ray Data over the blocks, each of which is a batch.

    The pool may shrink: where a lost worker's cores are lost, too, it is started anew on those of another that has
    nothing left to do, and finishes what it was given.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    pool = ray.data.ActorPoolStrategy(min_size=1, max_size=workers.count, initial_size=workers.count)
    dataset = ray.data.from_arrow(left).map_batches(
        _Worker, fn_constructor_args=(work, [kept]), batch_size=None, compute=pool, num_cpus=workers.threads
    )
    yield from dataset.iter_batches(batch_size=None, batch_format="numpy")


class _Worker:
    """`work(*arguments)`, made where it works.

    The arguments, the bundle among them, are kept by the process that asks: Ray forgets those that it was given itself,
    and could not start a lost worker anew.

    kept  [a reference to the arguments], in a list, in which Ray leaves it alone
    """

    def __init__(self, work: type[Any], kept: list[Any]) -> None:
        self._work = work(*ray.get(kept[0]))

    def __call__(self, columns: Columns) -> Columns:
        made: Columns = self._work(columns)
        return made


def _cause(error: BaseException) -> CapexportError | None:
    """The error of ours that a worker ended with, if it was one: Ray hands on the text of its traceback alone."""
    found = re.findall(r"^capexport\.errors\.(\w+): (.*)$", f"{error}\n{error.__cause__ or ''}", re.MULTILINE)
    if not found:
        return None
    name, message = found[-1]
    kind = getattr(errors, name, None)
    simple = isinstance(kind, type) and issubclass(kind, CapexportError) and "__init__" not in vars(kind)
    return kind(message) if kind is not None and simple else CapexportError(message)
