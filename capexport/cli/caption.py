"""capexport caption"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ..atomic import check_absent
from ..batch.rows import caption_row
from ..batch.run import BATCH as FOLDER_BATCH
from ..bounds import check_whole
from ..download import fetch, is_url
from ..errors import DownloadError, ImageError, OptionError, printable
from ..image import Photo
from ..runtime.caption import Caption
from ..runtime.captioner import Captioner, OnError, load
from ..runtime.options import DecodingOptions
from . import folder
from .default_bundle import default_bundle
from .options import PRIVATE_HOSTS, add_options, read_options

BATCH = 16


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "photos", nargs="+", metavar="PHOTO", help="JPEG, PNG, WebP, BMP or GIF, a file or a URL; or a folder"
    )
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="(default: the captioner that ships)")
    parser.add_argument("--verify", action="store_true", help="hold the bundle against its own photos first")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of the engine (default: its own choice)")
    parser.add_argument(
        "--batch",
        type=int,
        metavar="N",
        help=f"photos captioned together (default: {BATCH}; with --out {FOLDER_BATCH} a thread)",
    )
    parser.add_argument("--private-hosts", action="store_true", help=PRIVATE_HOSTS)
    parser.add_argument("--stream", action="store_true", help="print the words as they are chosen")
    parser.add_argument("--attention", type=Path, metavar="PNG", help="draw where the model looked for each word")
    parser.add_argument("--attention-html", type=Path, metavar="HTML", help="the same as a page to point at")
    parser.add_argument("--layer", type=int, metavar="N", help="draw this layer's attention (default: the mean of all)")
    parser.add_argument("--head", type=int, metavar="N", help="draw this head's attention (default: the mean of all)")
    parser.add_argument("--force", action="store_true", help="replace files that are written")
    parser.add_argument("--json", action="store_true", help="one JSON object a photo and line")
    folder.configure(parser.add_argument_group("a folder of photos"))
    add_options(parser, DecodingOptions)
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Caption every photo; a broken one is reported, the others go on, and the exit code is 2 (1: see folder.run)."""
    options = read_options(DecodingOptions, parsed)
    check_whole("--threads", parsed.threads, least=1)
    if folder.asked_for(parsed):
        return folder.run(parsed, options)
    pictures = parsed.attention, parsed.attention_html
    if any(pictures) and len(parsed.photos) > 1:
        raise OptionError("--attention and --attention-html show one photo; name just one.")
    if parsed.stream and (parsed.json or any(pictures)):
        raise OptionError("--stream prints words alone; leave out --json, --attention and --attention-html.")
    for picture in filter(None, pictures):
        check_absent(picture, parsed.force)
    photos = [_WebPhoto(name, parsed.private_hosts) if is_url(name) else name for name in parsed.photos]
    captioner = load(parsed.bundle or default_bundle(), threads=parsed.threads, verify=parsed.verify)
    return (_stream if parsed.stream else _print)(captioner, photos, options, parsed)


def _print(captioner: Captioner, photos: Sequence[Photo], options: DecodingOptions, parsed: argparse.Namespace) -> int:
    on_error: OnError = "raise" if len(parsed.photos) == 1 else "skip"
    results = captioner.caption_each(
        photos, options, batch=BATCH if parsed.batch is None else parsed.batch, on_error=on_error
    )
    failures = 0
    for name, photo, result in zip(parsed.photos, photos, results, strict=True):
        if isinstance(result, Caption):
            _show_attention(photo, result, parsed)
        if parsed.json:
            print(json.dumps({"path": name, **_row(result), "bundle": str(captioner.bundle.directory)}), flush=True)
        elif isinstance(result, ImageError):
            print(f"capexport: {result}", file=sys.stderr)
        else:
            for caption in (result, *result.alternatives):
                print(caption.text if len(parsed.photos) == 1 else f"{printable(name)}: {caption.text}", flush=True)
        failures += isinstance(result, ImageError)
    return 2 if failures else 0


class _WebPhoto:
    """A photo at a URL, fetched once, when it is read."""

    def __init__(self, url: str, private: bool) -> None:
        self.name = url
        self._private = private

    def read(self) -> bytes:
        return self._body

    @cached_property
    def _body(self) -> bytes:
        try:
            return fetch(self.name, private=self._private)
        except DownloadError as error:
            raise ImageError(str(error)) from error


def _show_attention(photo: Photo, caption: Caption, parsed: argparse.Namespace) -> None:
    which = {"layer": parsed.layer, "head": parsed.head, "force": parsed.force}
    if parsed.attention:
        from ..plot import draw_attention

        draw_attention(photo, caption, parsed.attention, **which)
    if parsed.attention_html:
        from ..attention_page import write_attention_page

        write_attention_page(photo, caption, parsed.attention_html, **which)


def _stream(
    captioner: Captioner, photos: Sequence[Photo], options: DecodingOptions, _parsed: argparse.Namespace
) -> int:
    for photo in photos:
        for position, word in enumerate(captioner.stream(photo, options)):
            print(f" {word}" if position else word, end="", flush=True)
        print()
    return 0


def _row(result: Caption | ImageError) -> dict[str, Any]:
    if isinstance(result, ImageError):
        return {"error": str(result)}
    return {
        **caption_row(result),
        "attention": [[[round(float(w), 6) for w in row] for row in word] for word in result.attention],
        "alternatives": [_row(other) for other in result.alternatives],
    }
