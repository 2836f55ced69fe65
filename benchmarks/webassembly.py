"""Every recipe of ONNX in the JavaScript runtime: Node, one thread of WebAssembly, recipes in turns.

    python benchmarks/webassembly.py [--source DIR] [--runtime DIR] [--rounds 45]

Writes webassembly.md beside this file (the table of capexport/web/README.md): medians of the rounds, on the photos
whose pixels the bundles carry, and how near to Keras the recipe is there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import capexport
from capexport.export.exporter import Exporter
from capexport.recipes import RECIPES
from capexport.web.page import write_page

HERE = Path(__file__)
HEADER = """\
| recipe | model, MB | photo encoded, ms | a token, ms | 3 beams, ms | same words | log-probabilities off by |
|---|---|---|---|---|---|---|
"""


def markdown(rows: dict[str, dict[str, Any]]) -> str:
    return HEADER + "".join(
        f"| `{name}` | {row['size'] / 1e6:.1f} | {row['encode']:.0f} | {row['token']:.1f} | {row['beams']:.0f} | "
        f"{row['identical']} of {row['photos']} | {row['off']:.1g} |\n"
        for name, row in rows.items()
    )


def measure(bundles: dict[str, capexport.Bundle], runtime: Path | None, rounds: int, work: Path) -> dict[str, Any]:
    """A row for each recipe."""
    pages = [work / f"page-{name}" for name in bundles]
    for page, bundle in zip(pages, bundles.values(), strict=True):
        write_page(bundle, page, runtime)
    command = ["node", str(HERE.with_suffix(".mjs")), str(rounds), *map(str, pages)]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return {
        name: {
            **row,
            **{part: statistics.median(times) for part, times in row["times"].items()},
            "size": bundle.graph_bytes,
        }
        for (name, bundle), row in zip(bundles.items(), found, strict=True)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, help="the captioner; by default the one that ships")
    parser.add_argument("--runtime", type=Path, help="the npm package onnxruntime-web")
    parser.add_argument("--rounds", type=int, default=45)
    parsed = parser.parse_args()
    exporter = Exporter(capexport.load_captioner(parsed.source))
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        names = [recipe.name for recipe in RECIPES.values() if "onnx" in recipe.formats]
        bundles = {name: exporter.export("onnx", name).write(work / name) for name in names}
        table = markdown(measure(bundles, parsed.runtime, parsed.rounds, work))
    HERE.with_suffix(".md").write_text(table)
    print(table, end="")


if __name__ == "__main__":
    main()
