"""capexport review"""

from __future__ import annotations

import argparse
import sys
import webbrowser
from pathlib import Path

from ..batch.sidecars import TEXT, XMP, Sidecar
from ..review.captions import open_captions
from ..review.pictures import Pictures
from ..review.server import ReviewServer
from ..runtime.captioner import Captioner, load
from .default_bundle import default_bundle


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("captions", type=Path, metavar="CAPTIONS", help="the .jsonl of `capexport caption DIR --out`")
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="shows the attention (default: that which ships)")
    parser.add_argument("--sidecar", action="store_true", help="write what was decided to photo.jpg.txt, too")
    parser.add_argument("--xmp", action="store_true", help="write what was decided to photo.xmp, too")
    parser.add_argument("--port", type=int, default=0, metavar="N", help="of this machine (default: a free one)")
    parser.add_argument("--open", action="store_true", help="open it in the browser")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> None:
    """Serve the review until Ctrl-C."""
    sidecars = (TEXT,) * parsed.sidecar + (XMP,) * parsed.xmp
    review(parsed.captions, parsed.bundle, sidecars, parsed.port, parsed.open)


def review(
    path: Path, bundle: Path | None, sidecars: tuple[Sidecar, ...] = (), port: int = 0, browse: bool = False
) -> None:
    """Serve the review of a file of captions until Ctrl-C, then save what was decided into it."""

    def loaded() -> Captioner:
        return load(bundle or default_bundle())

    def told(count: int) -> None:
        print(f"{path}: {count:,} decisions saved", file=sys.stderr)

    with (
        open_captions(path, sidecars, told) as captions,
        ReviewServer(captions, Pictures(path.parent, loaded), port) as server,
    ):
        print(f"{server.url} (Ctrl-C ends it)", flush=True)
        if browse:
            webbrowser.open(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print(file=sys.stderr)
