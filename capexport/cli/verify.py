"""capexport verify"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path

from ..evaluation.verify import Verification, verify
from ..manifest import Check
from ..web.page import write_page
from ..web.proof import prove_in_browser, prove_in_node
from .photos import photos_in

OUTSIDE = 1


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument(
        "--against", type=Path, metavar="SOURCE", help="the captioner in Keras (default: what it left in the bundle)"
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="photos (default: those that the bundle carries)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of the engine (default: its own choice)")
    parser.add_argument(
        "--browser",
        nargs="?",
        const="",
        metavar="COMMAND",
        help="hold the bundle's words in JavaScript against Keras', too: in Node, and in Chromium or this browser",
    )
    parser.add_argument("--runtime", type=Path, metavar="DIR", help="of --browser: the npm package onnxruntime-web")
    parser.add_argument("--json", action="store_true", help="as one JSON object, with each photo's comparison")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Print the checks; the exit code is 1 where one does not hold."""
    images = photos_in(parsed.images) if parsed.images else []
    result = verify(parsed.bundle, parsed.against, images, parsed.threads)
    if parsed.browser is not None:
        elsewhere = _in_javascript(parsed.bundle, parsed.runtime, parsed.browser or None)
        result = dataclasses.replace(result, checks=(*result.checks, *elsewhere))
    print(json.dumps({"holds": result.holds, **dataclasses.asdict(result)}) if parsed.json else table(result))
    return 0 if result.holds else OUTSIDE


def _in_javascript(bundle: Path, runtime: Path | None, browser: str | None) -> list[Check]:
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "page")
        write_page(bundle, page, runtime)
        return [*prove_in_node(page), *prove_in_browser(page, browser)]


def table(result: Verification) -> str:
    """The checks as lines for people; a dash stands before what is only reported."""
    widths = [max(len(getattr(check, column)) for check in result.checks) for column in ("name", "found")]
    lines = [
        f"{_verdict(check)}  {check.name:{widths[0]}}  {check.found:{widths[1]}}  {check.allowed}".rstrip()
        for check in result.checks
    ]
    return "\n".join(lines)


def _verdict(check: Check) -> str:
    if not check.allowed:
        return "  - "
    return "ok  " if check.holds else "FAIL"
