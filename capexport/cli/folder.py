"""capexport caption SOURCE --out OUT: a folder of photos, or shards of them, here or by a cluster."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..batch.run import BATCH, SUFFIXES, Folder, Tally, caption_folder
from ..batch.shard_run import FORMATS, Shards, caption_shards
from ..batch.shards import ALL, Share, find_shards, suffix_of
from ..batch.sidecars import TEXT, XMP
from ..batch.storage import is_uri
from ..bundle import Bundle, read_bundle
from ..download import is_url
from ..errors import MissingExtraError, OptionError
from ..runtime.captioner import load
from ..runtime.options import DecodingOptions
from .default_bundle import default_bundle
from .review import review

SOME_FAILED = 1
LOCAL, RAY = "local", "ray"
OF_FOLDERS = (
    "recursive",
    "resume",
    "sidecar",
    "xmp",
    "min_confidence",
    "cache",
    "near_copies",
    "review",
    "shard",
    "workers",
    "format",
    "engine",
)


def configure(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--out", metavar="OUT", help="a file for the captions: .jsonl, .csv or .parquet; or, of shards, a folder"
    )
    group.add_argument("--recursive", action="store_true", help="photos of folders in the folder, too")
    group.add_argument("--resume", action="store_true", help="go on where a run stopped; begin one if there is none")
    group.add_argument("--min-confidence", type=float, metavar="X", help="leave captions below it empty, from 0 to 1")
    group.add_argument("--sidecar", action="store_true", help="write each caption to photo.jpg.txt, too")
    group.add_argument("--xmp", action="store_true", help="write each caption to photo.xmp, too, as its description")
    group.add_argument(
        "--cache", type=Path, metavar="FILE", help="copies of photos captioned before are not done again"
    )
    group.add_argument("--near-copies", type=int, metavar="N", help="nor near copies: N of 64 bits differ, 1 to 3")
    group.add_argument("--review", action="store_true", help="then look through the captions in a browser")
    group.add_argument("--shard", metavar="I/N", help="do the Ith part of N, from 0, of the shards or of the folder")
    group.add_argument("--format", choices=tuple(FORMATS), help="of the captions of shards in a folder")
    group.add_argument("--engine", choices=(LOCAL, RAY), help="by this process, or by the workers of a Ray cluster")
    group.add_argument(
        "--workers", type=int, metavar="N", help="of the cluster, of --threads each (default: all cores)"
    )


def asked_for(parsed: argparse.Namespace) -> bool:
    """Whether this is about a folder or shards; raises OptionError for options that do not go together."""
    folders = [name for name in parsed.photos if _is_many(name)]
    if parsed.out is None:
        if folders:
            raise OptionError(f"{folders[0]} is a folder or a shard: name the file for its captions with --out.")
        values = {name: getattr(parsed, name) for name in OF_FOLDERS}
        given = [name for name, value in values.items() if value is not None and value is not False]
        if given:
            raise OptionError(f"--{given[0].replace('_', '-')} is for a folder of photos, or shards, with --out.")
    elif parsed.stream or parsed.json or parsed.attention or parsed.attention_html:
        raise OptionError("--out goes without --stream, --json, --attention and --attention-html.")
    elif parsed.near_copies and not parsed.cache:
        raise OptionError("--near-copies needs --cache, the file in which earlier captions are.")
    elif parsed.cache and (parsed.engine == RAY or not _one_folder(parsed)):
        raise OptionError("--cache is for a folder of photos and goes without --engine ray.")
    elif parsed.cache and Path(parsed.cache).resolve() == Path(parsed.out).resolve():
        raise OptionError("--cache and --out need a file each.")
    elif parsed.workers is not None and (parsed.engine != RAY or parsed.workers < 1):
        raise OptionError("--workers is the number, 1 or more, of those of --engine ray.")
    return parsed.out is not None


def run(parsed: argparse.Namespace, options: DecodingOptions) -> int:
    """Caption a folder, or shards; the exit code is 1 if a photo, or a shard, could not be read."""
    if not _one_folder(parsed):
        return _run_shards(parsed, options)
    if len(parsed.photos) > 1:
        raise OptionError("--out FILE is for the photos of one folder; name just that.")
    if parsed.format:
        raise OptionError("--format is of shards; a folder's captions have that of the file's name.")
    if parsed.review and Path(parsed.out).suffix != ".jsonl":
        raise OptionError("--review saves into a .jsonl; name such a file with --out.")
    what = Folder(
        parsed.photos[0] if is_uri(parsed.photos[0]) else Path(parsed.photos[0]),
        Path(parsed.out),
        recursive=parsed.recursive,
        batch=BATCH if parsed.batch is None else parsed.batch,
        min_confidence=parsed.min_confidence or 0.0,
        sidecars=(TEXT,) * parsed.sidecar + (XMP,) * parsed.xmp,
        share=Share.parse(parsed.shard) if parsed.shard else ALL,
        resume=parsed.resume,
        force=parsed.force,
    )
    total = what.check()  # before anything is loaded, or even converted
    on_ray, bundle = _on_ray(parsed), _bundle(parsed)
    with _progress("Captioning", total) as show:
        if on_ray:
            tally = on_ray.engine.caption_folder(bundle, what, options, on_ray.workers, show)
        else:
            captioner = load(bundle, threads=parsed.threads)
            tally = caption_folder(captioner, what, options, show, parsed.cache, parsed.near_copies or 0)
    print(f"{what.out}: {_photos(tally)}{on_ray.report(tally) if on_ray else ''}", file=sys.stderr)
    if parsed.review:
        review(what.out, parsed.bundle, what.sidecars)
    return SOME_FAILED if tally.failed else 0


def _run_shards(parsed: argparse.Namespace, options: DecodingOptions) -> int:
    if parsed.sidecar or parsed.xmp or parsed.recursive or parsed.review:
        raise OptionError("--recursive, --sidecar, --xmp and --review are for a folder of photos, not for shards.")
    if not any(map(suffix_of, parsed.photos)) and Path(parsed.out).suffix:
        raise OptionError(f"Captions are written to a file ending in {', '.join(SUFFIXES)}, not to {parsed.out}.")
    what = Shards(
        tuple(find_shards(parsed.photos)),
        parsed.out,
        parsed.format or ".jsonl",
        batch=BATCH if parsed.batch is None else parsed.batch,
        min_confidence=parsed.min_confidence or 0.0,
        share=Share.parse(parsed.shard) if parsed.shard else ALL,
        force=parsed.force,
    )
    on_ray, bundle = _on_ray(parsed), _bundle(parsed)
    with _progress("Captioning shards", len(what.mine())) as show:
        if on_ray:
            tally = on_ray.engine.caption_shards(bundle, what, options, on_ray.workers, show)
        else:
            tally = caption_shards(load(bundle, threads=parsed.threads), what, options, show)
    for reason in tally.damaged:
        print(f"capexport: {reason}", file=sys.stderr)
    shards = f"{tally.shards:,} shards{f', {len(tally.damaged):,} of them damaged' if tally.damaged else ''}"
    print(f"{what.out}: {shards}, {_photos(tally)}{on_ray.report(tally) if on_ray else ''}", file=sys.stderr)
    return SOME_FAILED if tally.failed or tally.damaged else 0


class _OnRay:
    """The engine on a cluster, imported and connected to, with its workers."""

    def __init__(self, workers: int | None, threads: int) -> None:
        from ..batch import ray_engine

        self.engine = ray_engine
        self.workers = ray_engine.Workers(workers, threads).fitting()
        self._began, self._lost = time.monotonic(), ray_engine.lost_nodes()

    def report(self, tally: Tally) -> str:
        """What the run's last line says of the cluster."""
        seconds, lost = time.monotonic() - self._began, self.engine.lost_nodes() - self._lost
        new = tally.photos - tally.earlier
        return (
            f"; {self.workers.count} workers of {self.workers.threads} threads, {new:,} photos in {seconds:.0f} s, "
            f"{new / seconds:.1f} photos/s{f', {lost} nodes lost' if lost else ''}"
        )


def _on_ray(parsed: argparse.Namespace) -> _OnRay | None:
    return _OnRay(parsed.workers, parsed.threads or 1) if parsed.engine == RAY else None


def _bundle(parsed: argparse.Namespace) -> Bundle:
    bundle = read_bundle(parsed.bundle or default_bundle())
    if parsed.verify:
        load(bundle, verify=True)
    return bundle


def _one_folder(parsed: argparse.Namespace) -> bool:
    return not any(map(suffix_of, parsed.photos)) and Path(parsed.out).suffix in SUFFIXES


def _is_many(name: str) -> bool:
    return Path(name).is_dir() or suffix_of(name) is not None or (is_uri(name) and not is_url(name))


def _photos(tally: Tally) -> str:
    return f"{tally.photos:,} photos{f', {tally.failed:,} of them could not be read' if tally.failed else ''}"


@contextmanager
def _progress(label: str, total: int) -> Iterator[Callable[[Tally], None]]:
    """On a terminal a bar with the rate and the time left, where rich is installed; otherwise nothing."""
    if not sys.stderr.isatty():
        yield lambda tally: None
        return
    try:
        from ..progress import bar
    except MissingExtraError:
        yield lambda tally: None
        return
    with bar() as shown:
        task, began = shown.add_task(label, total=total, status=""), time.monotonic()

        def show(tally: Tally) -> None:
            if tally.photos == tally.earlier:
                shown.reset(task, total=total, completed=tally.done)  # the rate is of this run alone
                return
            rate = (tally.photos - tally.earlier) / max(time.monotonic() - began, 1e-9)
            failed = f", {tally.failed:,} failed" if tally.failed else ""
            shown.update(task, completed=tally.done, status=f"{rate:.1f} photos/s{failed}")

        yield show
