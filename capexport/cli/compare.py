"""capexport compare"""

from __future__ import annotations

import argparse
import dataclasses
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path

from ..atomic import check_absent
from ..datasets import load_dataset
from ..evaluation.compare import COLD_STARTS, Comparison, Row, compare
from ..runtime.options import DEFAULT, DecodingOptions
from ..timing.latency import Latency
from .evaluate import add_evaluation_options
from .options import read_options
from .tables import aligned_table, markdown_table

INCOMPLETE = 1
SCORES = ("BLEU-4", "CIDEr", "SPICE")  # those of them that could be computed


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE", help="bundles of one captioner")
    parser.add_argument(
        "--against",
        type=Path,
        metavar="BUNDLE",
        help="the reference (default: the first fp32 bundle, or else the first)",
    )
    add_evaluation_options(parser)
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw size, CIDEr and latency")
    parser.add_argument("--force", action="store_true", help="replace the file of --plot")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as one JSON object")
    form.add_argument("--markdown", action="store_true", help="as a Markdown table")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Print the table; the exit code is 1 where a bundle could not be measured."""
    options = read_options(DecodingOptions, parsed)
    if parsed.plot:
        from ..plot import new_figure

        check_absent(parsed.plot, parsed.force)
        new_figure(1, 1)  # matplotlib is missed now, not when all is measured
    photos = load_dataset(parsed.dataset, parsed.data, parsed.split, parsed.limit, private=parsed.private_hosts)
    result = compare(parsed.bundles, photos, options, parsed.against, parsed.batch, parsed.threads)
    if parsed.json:
        print(json.dumps(dataclasses.asdict(result)))
    else:
        print(markdown(result) if parsed.markdown else table(result))
    if parsed.plot:
        from ..evaluation.compare_figure import draw_comparison

        draw_comparison(result, parsed.plot, parsed.force)
    return 0 if result.complete else INCOMPLETE


def markdown(result: Comparison) -> str:
    """The comparison as a table for the docs, and what its figures are."""
    return f"{markdown_table(*_cells(result))}\n\n{_note(result)}"


def table(result: Comparison) -> str:
    """The comparison as aligned columns, and what its figures are."""
    return f"{aligned_table(*_cells(result))}\n\n{textwrap.fill(_note(result), 100)}"


def _cells(result: Comparison) -> tuple[list[str], list[list[str]]]:
    """The header and the rows; a row without measures ends with its error."""
    there = {name for row in result.rows if row.measures for name in row.measures.scores}
    scores = [name for name in SCORES if name in there]
    header = ["bundle", "graphs (all files), MB", *scores, "identical captions", "same most attended cell"]
    header += ["encode, ms (p90)", "token, ms (p90)", "peak memory, MB", "cold start, s"]
    return header, [_row_cells(row, scores) for row in result.rows]


def _row_cells(row: Row, scores: Sequence[str]) -> list[str]:
    cells = [row.label, f"{row.graph_bytes / 1e6:.1f} ({row.bundle_bytes / 1e6:.1f})"]
    measures = row.measures
    if measures is None:
        return [*cells, row.error]
    cells += [f"{measures.scores[name]:.3f}" for name in scores]
    cells += [f"{100 * share:.1f} %" for share in (measures.identical, measures.same_cell)]
    cells += [_milliseconds(latency) for latency in (measures.latencies.encode, measures.latencies.token)]
    return [*cells, f"{measures.memory_bytes / 1e6:.0f}", f"{measures.cold_start:.2f}"]


def _milliseconds(latency: Latency) -> str:
    return f"{latency.median:.2f} ({latency.p90:.2f})"


def _note(result: Comparison) -> str:
    reference = next(row.label for row in result.rows if row.bundle == result.reference)
    greedy = dataclasses.asdict(DEFAULT)
    chosen = [f"{name} {value}" for name, value in dataclasses.asdict(result.options).items() if value != greedy[name]]
    threads = f"threads: {result.threads or 'as many as the engine chooses'}, cores: {result.cores}"
    return (
        f"Captions of {result.photos:,} photos ({', '.join(chosen) or 'greedy'}); the reference is {reference}. "
        f"Encode, token: median (90th percentile) of the encoder on one photo and of the decoder's step ({threads}). "
        f"Cold start: a new process up to its first caption, median of {COLD_STARTS}; peak memory: the least of them."
    )
