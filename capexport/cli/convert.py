"""capexport convert"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

from ..atomic import check_absent
from ..errors import OptionError
from ..recipes import FORMATS, RECIPES, check_recipe
from ..shipped import NAME
from .photos import photos_in


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", nargs="?", type=Path, metavar="SOURCE", help="a captioner's directory (default: the one that ships)"
    )
    parser.add_argument("--to", default="onnx", metavar="FORMAT", help=f"{', '.join(FORMATS)} (default: onnx)")
    parser.add_argument("--recipe", default="fp32", metavar="R", help=f"{', '.join(RECIPES)} (default: fp32)")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="(default: SOURCE-FORMAT-RECIPE, with --fused SOURCE-FORMAT-RECIPE-fused, in this folder)",
    )
    parser.add_argument("--force", action="store_true", help="replace a bundle that is there already")
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="DIR",
        help="photos on which ranges are learnt and the bundle is measured (default: views of the photos that ship)",
    )
    parser.add_argument(
        "--no-gate", action="store_true", help="write the bundle even if it is outside its recipe's bounds"
    )
    parser.add_argument(
        "--fused", action="store_true", help="add one graph that makes whole captions, from the photo to its words"
    )
    parser.add_argument(
        "--explain", action="store_true", help="print what each layer loses, and draw it as OUT-layers.png"
    )
    parser.add_argument("--json", action="store_true", help="print the bundle's manifest")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> None:
    name = parsed.source.resolve().name if parsed.source else NAME
    out = parsed.out or Path(f"{name}-{parsed.to}-{parsed.recipe}{'-fused' * parsed.fused}")
    figure = out.parent / f"{out.name}-layers.png"
    check_recipe(parsed.to, parsed.recipe)
    recipe = RECIPES[parsed.recipe]
    if parsed.explain:
        if not (recipe.encoder or recipe.decoder):
            raise OptionError(f"The recipe {recipe.name} leaves every layer in float: there is nothing to explain.")
        check_absent(figure, parsed.force)
    photos = photos_in(parsed.calibration) if parsed.calibration else []
    started = time.monotonic()
    from ..export.convert import prepare

    export = prepare(parsed.source, out, parsed.to, parsed.recipe, parsed.force, photos, parsed.fused)
    if parsed.explain:
        from ..export import explanation

        print(explanation.table(export.choices), file=sys.stderr if parsed.json else sys.stdout)
        explanation.draw(export.choices, figure, parsed.force)
    bundle = export.write(out, parsed.force, gate=not parsed.no_gate)
    if parsed.json:
        print(json.dumps(dataclasses.asdict(bundle.manifest)))
    else:
        seconds = time.monotonic() - started
        print(f"{out}: {parsed.to}, {parsed.recipe}, {bundle.size / 1e6:.1f} MB, {seconds:.0f} s")
        for graph in bundle.manifest.graphs.values():
            varying = f" but for {', '.join(graph.varying)}" if graph.varying else ""
            print(f"    {graph.file}: static shapes{varying}")
