"""capexport convert"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path

from ..atomic import check_absent
from ..progress import console
from ..recipes import FORMATS, RECIPES, check_recipe
from ..shipped import NAME


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", nargs="?", type=Path, metavar="SOURCE", help="a captioner's directory (default: the one that ships)"
    )
    parser.add_argument("--to", default="onnx", metavar="FORMAT", help=f"{', '.join(FORMATS)} (default: onnx)")
    parser.add_argument("--recipe", default="fp32", metavar="R", help=f"{', '.join(RECIPES)} (default: fp32)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="(default: SOURCE-FORMAT-RECIPE in this folder)")
    parser.add_argument("--force", action="store_true", help="replace a bundle that is there already")
    parser.add_argument("--json", action="store_true", help="print the bundle's manifest")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> None:
    check_recipe(parsed.to, parsed.recipe)
    name = parsed.source.resolve().name if parsed.source else NAME
    out = parsed.out or Path(f"{name}-{parsed.to}-{parsed.recipe}")
    check_absent(out, parsed.force)
    started = time.monotonic()
    with console.status(f"converting to {parsed.to}, {parsed.recipe}"):
        from ..export.convert import convert

        bundle = convert(parsed.source, out, to=parsed.to, recipe=parsed.recipe, force=parsed.force)
    if parsed.json:
        print(json.dumps(dataclasses.asdict(bundle.manifest)))
    else:
        seconds = time.monotonic() - started
        print(f"{out}: {parsed.to}, {parsed.recipe}, {bundle.size / 1e6:.1f} MB, {seconds:.0f} s")
