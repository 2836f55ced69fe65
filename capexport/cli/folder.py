"""capexport caption DIR --out FILE: a folder of photos."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..batch.run import BATCH, Folder, Tally, caption_folder
from ..batch.sidecars import TEXT, XMP
from ..errors import MissingExtraError, OptionError
from ..runtime.captioner import load
from ..runtime.options import DecodingOptions
from .default_bundle import default_bundle

SOME_FAILED = 1


def configure(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--out", type=Path, metavar="FILE", help="of the captions: .jsonl, .csv or .parquet")
    group.add_argument("--recursive", action="store_true", help="photos of folders in the folder, too")
    group.add_argument("--resume", action="store_true", help="go on where a run stopped; begin one if there is none")
    group.add_argument("--min-confidence", type=float, metavar="X", help="leave captions below it empty, from 0 to 1")
    group.add_argument("--sidecar", action="store_true", help="write each caption to photo.jpg.txt, too")
    group.add_argument("--xmp", action="store_true", help="write each caption to photo.xmp, too, as its description")


def asked_for(parsed: argparse.Namespace) -> bool:
    """Whether this is about a folder; raises OptionError for options that do not go together."""
    folders = [name for name in parsed.photos if Path(name).is_dir()]
    if parsed.out is None:
        if folders:
            raise OptionError(f"{folders[0]} is a folder: name the file for its captions with --out.")
        if parsed.recursive or parsed.resume or parsed.sidecar or parsed.xmp or parsed.min_confidence is not None:
            raise OptionError(
                "--recursive, --resume, --min-confidence, --sidecar and --xmp are for a folder of photos with --out."
            )
    elif len(parsed.photos) > 1:
        raise OptionError("--out is for the photos of one folder; name just that.")
    elif parsed.stream or parsed.json or parsed.attention or parsed.attention_html:
        raise OptionError("--out goes without --stream, --json, --attention and --attention-html.")
    return parsed.out is not None


def run(parsed: argparse.Namespace, options: DecodingOptions) -> int:
    """Caption a folder; the exit code is 1 if a photo could not be read."""
    what = Folder(
        Path(parsed.photos[0]),
        parsed.out,
        recursive=parsed.recursive,
        batch=BATCH if parsed.batch is None else parsed.batch,
        min_confidence=parsed.min_confidence or 0.0,
        sidecars=(TEXT,) * parsed.sidecar + (XMP,) * parsed.xmp,
        resume=parsed.resume,
        force=parsed.force,
    )
    total = what.check()  # before anything is loaded, or even converted
    captioner = load(parsed.bundle or default_bundle(), threads=parsed.threads, verify=parsed.verify)
    with _progress(total) as show:
        tally = caption_folder(captioner, what, options, show)
    failed = f", {tally.failed:,} of them could not be read" if tally.failed else ""
    print(f"{what.out}: {tally.photos:,} photos{failed}", file=sys.stderr)
    return SOME_FAILED if tally.failed else 0


@contextmanager
def _progress(total: int) -> Iterator[Callable[[Tally], None]]:
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
        task = shown.add_task("Captioning", total=total, status="")
        began, earlier = time.monotonic(), -1

        def show(tally: Tally) -> None:
            nonlocal earlier
            if earlier < 0:
                earlier = tally.photos
                shown.reset(task, total=total, completed=earlier)  # the rate is of this run alone
                return
            rate = (tally.photos - earlier) / max(time.monotonic() - began, 1e-9)
            failed = f", {tally.failed:,} failed" if tally.failed else ""
            shown.update(task, completed=tally.photos, status=f"{rate:.1f} photos/s{failed}")

        yield show
