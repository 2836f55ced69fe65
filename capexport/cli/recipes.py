"""capexport recipes"""

from __future__ import annotations

import argparse
import dataclasses
import json

from ..recipes import RECIPES


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> None:
    if parsed.json:
        print(json.dumps([dataclasses.asdict(recipe) for recipe in RECIPES.values()]))
        return
    for recipe in RECIPES.values():
        print(f"{recipe.name} ({', '.join(recipe.formats)}): {recipe.purpose}")
        print(f"    weights: {recipe.weights}; activations: {recipe.activations}")
