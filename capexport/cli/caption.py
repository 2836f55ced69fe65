"""capexport caption"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ..errors import CapexportError, OptionError
from ..runtime.captioner import Captioner, load
from ..runtime.decoding import Caption, DecodingOptions
from .default_bundle import default_bundle
from .options import add_options, read_options


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photos", nargs="+", type=Path, metavar="PHOTO", help="JPEG, PNG, WebP, BMP or GIF")
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="(default: the captioner that ships)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of the engine (default: its own choice)")
    parser.add_argument("--attention", type=Path, metavar="PNG", help="draw where the model looked for each word")
    parser.add_argument("--force", action="store_true", help="replace the file of --attention")
    parser.add_argument("--json", action="store_true", help="one JSON object a photo and line")
    add_options(parser, DecodingOptions)
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Caption every photo; a broken one is reported, the others go on, and the exit code is 2."""
    options = read_options(DecodingOptions, parsed)
    if parsed.attention and len(parsed.photos) > 1:
        raise OptionError("--attention draws one photo; name just one.")
    captioner = load(parsed.bundle or default_bundle(), threads=parsed.threads)
    failures = 0
    for photo in parsed.photos:
        try:
            caption = captioner.caption_pixels(captioner.preprocess(photo), options)
        except CapexportError as error:
            if len(parsed.photos) == 1:
                raise
            print(f"capexport: {error}", file=sys.stderr)
            failures += 1
            continue
        print(_line(photo, caption, parsed, captioner), flush=True)
        if parsed.attention:
            from ..plot import draw_attention

            draw_attention(photo, caption, parsed.attention, force=parsed.force)
    return 2 if failures else 0


def _line(photo: Path, caption: Caption, parsed: argparse.Namespace, captioner: Captioner) -> str:
    if not parsed.json:
        return caption.text if len(parsed.photos) == 1 else f"{photo}: {caption.text}"
    return json.dumps(
        {
            "path": str(photo),
            "text": caption.text,
            "words": caption.words,
            "tokens": caption.tokens,
            "log_probabilities": [round(value, 6) for value in caption.log_probabilities],
            "confidence": round(caption.confidence, 6),
            "attention": [[[round(float(w), 6) for w in row] for row in word] for word in caption.attention],
            "bundle": str(captioner.bundle.directory),
        }
    )
