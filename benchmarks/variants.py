"""Which variant to ship: the shipped captioner in every format and recipe, compared on Flickr8k dev.

    python benchmarks/variants.py --data FLICKR8K [--bundles DIR] [--limit N] [--threads 1]

Writes variants.json, variants.md (the README's table) and variants.png beside this file, and layers.png.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path

import capexport
from capexport.cli.compare import markdown
from capexport.datasets import load_dataset
from capexport.evaluation.compare_figure import draw_comparison
from capexport.export import explanation
from capexport.export.exporter import Exporter
from capexport.recipes import RECIPES

HERE = Path(__file__)
EXPLAINED = ("tflite", "int8")


def convert_all(folder: Path) -> list[capexport.Bundle]:
    """The shipped captioner in every format and recipe; bundles that are there are made anew.

    What each layer lost on the way to int8 in TFLite is drawn as layers.png.
    """
    exporter = Exporter(capexport.load_captioner())
    bundles = []
    for to, name in [(to, recipe.name) for recipe in RECIPES.values() for to in recipe.formats]:
        export = exporter.export(to, name)
        bundles.append(export.write(folder / f"{to}-{name}", force=True))
        if (to, name) == EXPLAINED:
            explanation.draw(export.choices, HERE.with_name("layers.png"), force=True)
    return bundles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="the folder of Flickr8k")
    parser.add_argument("--bundles", type=Path, help="keep the bundles in this folder")
    parser.add_argument("--limit", type=int, help="the first N photos")
    parser.add_argument("--threads", type=int, default=1)
    parsed = parser.parse_args()
    photos = load_dataset("flickr8k", parsed.data, "dev", parsed.limit)
    with tempfile.TemporaryDirectory() as temporary:
        folder = parsed.bundles or Path(temporary)
        result = capexport.compare(convert_all(folder), photos, threads=parsed.threads)
    record = json.dumps(dataclasses.asdict(result), indent=1).replace(f"{folder}/", "")
    HERE.with_suffix(".json").write_text(record + "\n")
    HERE.with_suffix(".md").write_text(markdown(result) + "\n")
    draw_comparison(result, HERE.with_suffix(".png"), force=True)
    print(markdown(result))


if __name__ == "__main__":
    main()
