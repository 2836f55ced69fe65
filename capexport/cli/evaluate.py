"""capexport evaluate"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from ..datasets import load_dataset
from ..evaluation.evaluate import Evaluation, evaluate
from ..runtime.options import DecodingOptions
from .dataset import add_dataset_options
from .options import add_options, read_options


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("captioner", type=Path, metavar="BUNDLE|SOURCE", help="a bundle, or a captioner's directory")
    add_evaluation_options(parser)
    parser.add_argument("--json", action="store_true", help="as one JSON object")
    parser.set_defaults(run=run)


def add_evaluation_options(parser: argparse.ArgumentParser) -> None:
    """The options that say which photos are captioned, and how."""
    add_dataset_options(parser)
    parser.add_argument("--split", default="dev", metavar="NAME", help="(default: dev)")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N photos (default: all)")
    parser.add_argument("--batch", type=int, default=16, metavar="N", help="photos captioned together (default: 16)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of the engine (default: its own choice)")
    add_options(parser, DecodingOptions)


def run(parsed: argparse.Namespace) -> None:
    options = read_options(DecodingOptions, parsed)
    photos = load_dataset(parsed.dataset, parsed.data, parsed.split, parsed.limit, private=parsed.private_hosts)
    result = evaluate(parsed.captioner, photos, options, batch=parsed.batch, threads=parsed.threads)
    if parsed.json:
        print(json.dumps({"captioner": str(parsed.captioner), **dataclasses.asdict(result)}))
    else:
        print(table(result))


def table(result: Evaluation) -> str:
    """The scores as lines for people."""
    quality = result.quality
    lines = [f"{name:10} {value:.4f}" for name, value in quality.scores.items()]
    lines += [f"{name:10} skipped: {why}" for name, why in quality.skipped.items()]
    lines += [f"{result.photos} photos in {result.seconds:.0f} s; words: {quality.tokenizer}"]
    return "\n".join(lines)
