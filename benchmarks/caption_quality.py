"""Caption quality of bundles on Flickr8k dev, greedy: python benchmarks/caption_quality.py DATA BUNDLE..."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import capexport
from capexport.captioner.datasets import load_dataset
from capexport.evaluation.quality import score
from capexport.progress import track


def measure(data: str, bundle: str) -> dict[str, object]:
    """BLEU, CIDEr and what goes with them of one bundle on the dev photos."""
    photos = load_dataset("flickr8k", data, "dev")
    captioner = capexport.load(bundle)
    candidates = {photo.path.name: captioner.caption(photo.path).text for photo in track(photos, len(photos), bundle)}
    references = {photo.path.name: photo.captions for photo in photos}
    manifest = captioner.bundle.manifest
    return {
        "format": manifest.format,
        "recipe": manifest.recipe,
        "photos": len(photos),
        **score(references, candidates),
    }


if __name__ == "__main__":
    results = [measure(sys.argv[1], bundle) for bundle in sys.argv[2:]]
    for result in results:
        print(
            json.dumps({key: round(value, 4) if isinstance(value, float) else value for key, value in result.items()})
        )
    Path(__file__).with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
