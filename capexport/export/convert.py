"""convert: from a captioner, on disk or live, to a bundle."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..atomic import check_replaceable
from ..bundle import Bundle
from ..captioner.storage import live
from ..image import Photo
from ..manifest import MANIFEST
from ..recipes import check_recipe
from .exporter import Export, Exporter, format_module


def convert(
    source: str | os.PathLike[str] | Any,
    out: str | os.PathLike[str],
    to: str = "onnx",
    recipe: str = "fp32",
    force: bool = False,
    calibration: Sequence[Photo] = (),
    gate: bool = True,
    fused: bool = False,
) -> Bundle:
    """Export a captioner to a new bundle directory and return the bundle.

    source  the directory of a source captioner, a live captioner with the tutorial's attributes, or None for
            the captioner that ships
    to, recipe  one of recipes.FORMATS and of recipes.RECIPES
    force   replace a bundle that is there already
    calibration  photos on which ranges are learnt and the bundle is measured; none: views of the photos that ship
    gate    refuse a bundle that is outside its recipe's bounds there; without it, the manifest says so
    fused   with one graph more, which makes whole captions, from the photo to the words

    Raises OptionError for a recipe or such a graph that the format lacks, OutputError if `out` is in the way,
    SourceError for a captioner that cannot be read, QualityError at the gate, MissingExtraError for a package that is
    not installed.
    """
    [export] = prepare(source, {(to, recipe): Path(out)}, force, calibration, fused)
    return export.write(Path(out), force, gate)


def prepare(
    source: str | os.PathLike[str] | Any,
    outs: Mapping[tuple[str, str], Path],
    force: bool = False,
    calibration: Sequence[Photo] = (),
    fused: bool = False,
) -> Iterator[Export]:
    """As convert, but for the writing, and for several formats and recipes, whose common work is done once.

    outs  where each format and recipe will be written; all is checked before the work begins
    """
    for (to, recipe), out in outs.items():
        check_recipe(to, recipe)
        check_replaceable(out, MANIFEST, force)
        format_module(to)
    exporter = Exporter(live(source), calibration)
    return (exporter.export(to, recipe, fused) for to, recipe in outs)
