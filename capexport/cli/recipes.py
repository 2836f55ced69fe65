"""capexport recipes"""

from __future__ import annotations

import argparse
import dataclasses
import json

from ..recipes import RECIPES


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--markdown", action="store_true", help="as the README's table")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> None:
    if parsed.json:
        print(json.dumps([dataclasses.asdict(recipe) for recipe in RECIPES.values()]))
        return
    if parsed.markdown:
        print(markdown())
        return
    for recipe in RECIPES.values():
        print(f"{recipe.name} ({', '.join(recipe.formats)}): {recipe.purpose}")
        print(f"    weights: {recipe.weights}; activations: {recipe.activations}")


def markdown() -> str:
    """The table of recipes for the docs."""
    rows = ["| recipe | formats | weights | activations | for |", "|---|---|---|---|---|"]
    for recipe in RECIPES.values():
        cells = (f"`{recipe.name}`", ", ".join(recipe.formats), recipe.weights, recipe.activations, recipe.purpose)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)
