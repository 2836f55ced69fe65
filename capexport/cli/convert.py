"""capexport convert"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from ..atomic import check_absent
from ..bundle import Bundle
from ..errors import OptionError, QualityError
from ..recipes import FORMATS, RECIPES, check_recipe
from ..shipped import NAME
from .photos import photos_in


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", nargs="?", type=Path, metavar="SOURCE", help="a captioner's directory (default: the one that ships)"
    )
    parser.add_argument("--to", default="onnx", metavar="FORMAT,...", help=f"of {', '.join(FORMATS)} (default: onnx)")
    parser.add_argument("--recipe", default="fp32", metavar="R,...", help=f"of {', '.join(RECIPES)} (default: fp32)")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="the bundle's folder, of several bundles the one around them (default: SOURCE-FORMAT-RECIPE, with --fused "
        "SOURCE-FORMAT-RECIPE-fused, in this folder)",
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
    variants = list(itertools.product(_listed(parsed.to), _listed(parsed.recipe)))
    for one in variants:
        check_recipe(*one)
    outs = {one: _out(parsed, one, len(variants)) for one in variants}
    if parsed.explain:
        _check_explainable(outs, parsed.force)
    photos = photos_in(parsed.calibration) if parsed.calibration else []
    started = time.monotonic()
    from ..export.convert import prepare

    exports = prepare(parsed.source, outs, parsed.force, photos, parsed.fused)
    refused = []
    for out, export in zip(outs.values(), exports, strict=True):
        if parsed.explain:
            from ..export import explanation

            print(explanation.table(export.choices), file=sys.stderr if parsed.json else sys.stdout)
            explanation.draw(export.choices, _figure(out), parsed.force)
        try:
            bundle = export.write(out, parsed.force, gate=not parsed.no_gate)
        except QualityError as error:  # others may be better
            refused.append(str(error))
            continue
        if parsed.json:
            print(json.dumps(dataclasses.asdict(bundle.manifest)))
        else:
            _print(bundle, time.monotonic() - started)
            started = time.monotonic()
    if refused:
        raise QualityError(" ".join(refused))


def _check_explainable(outs: Mapping[tuple[str, str], Path], force: bool) -> None:
    for (_, recipe), out in outs.items():
        if not (RECIPES[recipe].encoder or RECIPES[recipe].decoder):
            raise OptionError(f"The recipe {recipe} leaves every layer in float: there is nothing to explain.")
        check_absent(_figure(out), force)


def _listed(names: str) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in names.split(",")))


def _out(parsed: argparse.Namespace, variant: tuple[str, str], count: int) -> Path:
    """The folder of a variant's bundle."""
    name = "-".join(variant) + "-fused" * parsed.fused
    if parsed.out:
        return Path(parsed.out / name) if count > 1 else Path(parsed.out)
    return Path(f"{parsed.source.resolve().name if parsed.source else NAME}-{name}")


def _figure(out: Path) -> Path:
    return out.parent / f"{out.name}-layers.png"


def _print(bundle: Bundle, seconds: float) -> None:
    manifest = bundle.manifest
    print(f"{bundle.directory}: {manifest.format}, {manifest.recipe}, {bundle.size / 1e6:.1f} MB, {seconds:.0f} s")
    for graph in manifest.graphs.values():
        varying = f" but for {', '.join(graph.varying)}" if graph.varying else ""
        print(f"    {graph.file}: static shapes{varying}")
