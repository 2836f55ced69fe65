"""Does a confidence of 0.8 mean right? The shipped captioner's probabilities held against people's captions on dev.

    python benchmarks/calibration.py --data FLICKR8K [--bundle BUNDLE] [--split dev] [--limit N]

Two curves, ten bins each with about as many captions or words: CIDEr of captions by their confidence, and how often a
content word (one that is not among the FUNCTION most frequent of the captions said) stands in one of the photo's own
captions, by the word's probability. Writes calibration.json and calibration.png beside this file. The expected
calibration error (Naeini et al., 2015) is the mean distance between a bin's probability and its share of right words.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

import capexport
from capexport.captioner.cider import Cider
from capexport.datasets import load_dataset
from capexport.evaluation.evaluate import caption_all
from capexport.evaluation.quality import tokens
from capexport.plot import new_figure, save_figure
from capexport.runtime.options import DecodingOptions

HERE = Path(__file__)
BINS = 10
FUNCTION = 12  # words such as "a", "in", "is", which any caption has


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="the folder of Flickr8k")
    parser.add_argument("--bundle", type=Path, help="(default: the shipped captioner as ONNX of float32)")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--limit", type=int, help="the first N photos")
    parser.add_argument("--beams", type=int, default=1)
    parsed = parser.parse_args()
    photos = load_dataset("flickr8k", parsed.data, parsed.split, parsed.limit)
    with tempfile.TemporaryDirectory() as folder:
        bundle = parsed.bundle or capexport.convert(None, Path(folder) / "bundle", to="onnx", recipe="fp32")
        captions = caption_all(capexport.load(bundle), photos, DecodingOptions(beams=parsed.beams))
    references = list(tokens({str(i): photo.captions for i, photo in enumerate(photos)}).values())
    result = calibration(captions, references)
    HERE.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    draw(result, HERE.with_suffix(".png"))
    print(json.dumps(result, indent=1))


def calibration(captions: list[Any], references: list[list[str]]) -> dict[str, Any]:
    """Both curves as lists of {"probability", "measure", "count"}, and the expected calibration error of words."""
    cider = Cider([[text.split() for text in texts] for texts in references])
    scores = [cider.score(i, caption.text.split()) for i, caption in enumerate(captions)]
    said = Counter(word for caption in captions for word in caption.words)
    common = {word for word, _ in said.most_common(FUNCTION)} | {"[END]"}
    words = [
        (math.exp(log_probability), float(any(word in text.split() for text in texts)))
        for caption, texts in zip(captions, references, strict=True)
        for word, log_probability in zip(caption.words, caption.log_probabilities, strict=True)
        if word not in common
    ]
    by_word = binned(*zip(*words, strict=True))
    error = sum(abs(b["probability"] - b["measure"]) * b["count"] for b in by_word) / len(words)
    return {
        "captions": binned([caption.confidence for caption in captions], scores),
        "words": by_word,
        "left_out": sorted(common),
        "expected_calibration_error": error,
    }


def binned(probabilities: Any, measures: Any) -> list[dict[str, float]]:
    """The means of both in bins of about as many, in the order of the probabilities."""
    order = np.argsort(probabilities)
    parts = [part for part in np.array_split(order, BINS) if len(part)]
    given, found = np.array(probabilities), np.array(measures)
    return [
        {"probability": float(given[part].mean()), "measure": float(found[part].mean()), "count": len(part)}
        for part in parts
    ]


def draw(result: dict[str, Any], path: Path) -> None:
    figure = new_figure(10, 4)
    captions, words = figure.subplots(1, 2)
    for axis, name in ((captions, "captions"), (words, "words")):
        axis.plot([b["probability"] for b in result[name]], [b["measure"] for b in result[name]], marker="o")
        axis.grid(alpha=0.3)
    captions.set(xlabel="confidence of a caption", ylabel="CIDEr", title="Captions", ylim=(0, None))
    words.plot([0, 1], [0, 1], linestyle=":", color="grey")
    words.set(xlabel="probability of a word", ylabel="share that people say, too", title="Content words")
    words.set(xlim=(0, 1), ylim=(0, 1))
    save_figure(figure, path)


if __name__ == "__main__":
    main()
