"""Caption quality of bundles on Flickr8k dev, greedy: python benchmarks/caption_quality.py DATA BUNDLE..."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import capexport
from capexport.datasets import load_dataset
from capexport.evaluation.evaluate import evaluate


def measure(data: str, bundle: str) -> dict[str, object]:
    """BLEU, CIDEr and what goes with them of one bundle on the dev photos."""
    photos = load_dataset("flickr8k", data, "dev")
    captioner = capexport.load(bundle)
    manifest = captioner.bundle.manifest
    scores = evaluate(captioner, photos).quality.scores
    return {"format": manifest.format, "recipe": manifest.recipe, "photos": len(photos), **scores}


if __name__ == "__main__":
    results = [measure(sys.argv[1], bundle) for bundle in sys.argv[2:]]
    for result in results:
        print(
            json.dumps({key: round(value, 4) if isinstance(value, float) else value for key, value in result.items()})
        )
    Path(__file__).with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
