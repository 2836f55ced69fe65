"""capexport verify"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from ..errors import ImageError
from ..evaluation.verify import Verification, verify

OUTSIDE = 1
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument(
        "--against", type=Path, metavar="SOURCE", help="the captioner in Keras (default: what it left in the bundle)"
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="photos (default: those that the bundle carries)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of the engine (default: its own choice)")
    parser.add_argument("--json", action="store_true", help="as one JSON object, with each photo's comparison")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Print the checks; the exit code is 1 where one does not hold."""
    images = _photos(parsed.images) if parsed.images else []
    result = verify(parsed.bundle, parsed.against, images, parsed.threads)
    print(json.dumps({"holds": result.holds, **dataclasses.asdict(result)}) if parsed.json else table(result))
    return 0 if result.holds else OUTSIDE


def _photos(folder: Path) -> list[Path]:
    photos = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    if not photos:
        raise ImageError(f"There are no photos in {folder}.")
    return photos


def table(result: Verification) -> str:
    """The checks as lines for people."""
    lines = [
        f"{'ok  ' if check.holds else 'FAIL'}  {check.name:28} {check.found:>12}   ({check.allowed})"
        for check in result.checks
    ]
    return "\n".join(lines)
