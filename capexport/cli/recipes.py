"""capexport recipes"""

from __future__ import annotations

import argparse
import dataclasses
import json

from ..recipes import RECIPES

GRAPHS = ("encoder", "decoder")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--markdown", action="store_true", help="as the README's table")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> None:
    if parsed.json:
        rows = [dataclasses.asdict(recipe) for recipe in RECIPES.values()]
        print(json.dumps(rows, default=lambda precision: precision.name.lower()))
        return
    if parsed.markdown:
        print(markdown())
        return
    for recipe in RECIPES.values():
        print(f"{recipe.name} ({', '.join(recipe.formats)}): {recipe.purpose}")
        for graph in GRAPHS:
            print(f"    {graph}: {recipe.precision(graph).value}")


def markdown() -> str:
    """The table of recipes for the docs."""
    rows = ["| recipe | formats | encoder | decoder | for |", "|---|---|---|---|---|"]
    for recipe in RECIPES.values():
        precisions = [recipe.precision(graph).value for graph in GRAPHS]
        rows.append(f"| {' | '.join((f'`{recipe.name}`', ', '.join(recipe.formats), *precisions, recipe.purpose))} |")
    return "\n".join(rows)
