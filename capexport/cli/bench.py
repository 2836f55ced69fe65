"""capexport bench"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..atomic import check_absent, new_file
from ..bounds import check_whole
from ..bundle import Bundle
from ..errors import OptionError
from ..recipes import DEFAULT_RECIPE, FORMATS, RECIPES
from ..runtime.engines import formats_on
from ..shipped import sample_photos
from ..timing.bench import ROUNDS, TURN, Bench, Row, bench
from .photos import photos_in
from .tables import aligned_table, markdown_table

INCOMPLETE = 1
HEADER = (
    "row",
    "graphs, MB",
    "load, s",
    "cold start, s",
    "preprocess, ms",
    "encode, ms",
    "first token, ms",
    "per token, ms",
    "caption p50, ms",
    "p90",
    "p99",
    "from pixels, ms",
    "captions/s",
    "best batch",
    "peak memory, MB",
    "same words",
    "of the roofline",
    "times Keras eager",
    "times tf.function",
)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "bundles",
        nargs="*",
        type=Path,
        metavar="BUNDLE",
        help="(default: the captioner in every format and recipe, converted on the fly)",
    )
    parser.add_argument(
        "--source", type=Path, metavar="DIR", help="the captioner in Keras (default: the one that ships)"
    )
    parser.add_argument("--device", default="cpu", help="of the bundles: cpu or cuda (default: cpu)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of every engine (default: its own choice)")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="photos (default: those that ship)")
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, metavar="N", help=f"of {TURN} captions of each row (default: {ROUNDS})"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the measures to a file")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table to a file")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw what a caption takes")
    parser.add_argument("--force", action="store_true", help="replace the files of --json, --markdown and --plot")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Print the table; the exit code is 1 where a row could not be measured."""
    files = [path for path in (parsed.json, parsed.markdown, parsed.plot) if path]
    for path in files:
        check_absent(path, parsed.force)
    if len({path.resolve() for path in files}) < len(files):
        raise OptionError("--json, --markdown and --plot need a file each.")
    check_whole("--threads", parsed.threads, least=1)
    check_whole("--rounds", parsed.rounds, least=1)
    if parsed.plot:
        from ..plot import new_figure

        new_figure(1, 1)  # matplotlib is missed now, not when all is measured
    photos = photos_in(parsed.photos) if parsed.photos else sample_photos()
    with _bundles(parsed) as bundles:
        result = bench(bundles, photos, parsed.source, parsed.threads, parsed.device, parsed.rounds)
    rows = [cells(row) for row in result.rows]
    print(f"{aligned_table(HEADER, rows)}\n\n{textwrap.fill(note(result), 100)}")
    if parsed.json:
        _write(parsed.json, json.dumps(dataclasses.asdict(result), indent=1), parsed.force)
    if parsed.markdown:
        _write(parsed.markdown, f"{markdown_table(HEADER, rows)}\n\n{note(result)}", parsed.force)
    if parsed.plot and any(row.measures for row in result.rows):
        from ..timing.figure import draw_bench

        draw_bench(result, parsed.plot, parsed.force)
    return INCOMPLETE if any(row.error for row in result.rows) else 0


@contextmanager
def _bundles(parsed: argparse.Namespace) -> Iterator[Sequence[Path | Bundle]]:
    """Those that are named, or else every variant of the captioner, in a folder that goes when all is measured."""
    if parsed.bundles:
        yield parsed.bundles
        return
    formats = formats_on(parsed.device, FORMATS)
    from ..captioner.storage import live
    from ..export.exporter import Exporter

    with tempfile.TemporaryDirectory() as folder:
        exporter = Exporter(live(parsed.source))
        variants = [(to, recipe.name, False) for recipe in RECIPES.values() for to in recipe.formats]
        variants += [(to, DEFAULT_RECIPE, True) for to in RECIPES[DEFAULT_RECIPE].formats]
        exports = (exporter.export(to, recipe, fused) for to, recipe, fused in variants if to in formats)
        yield [export.write(Path(folder) / export.bundle.directory, gate=False) for export in exports]


def cells(row: Row) -> list[str]:
    """A row of the table; one without measures ends with its error."""
    size = "" if row.graph_bytes is None else f"{row.graph_bytes / 1e6:.1f}"
    one = row.measures
    if one is None:
        return [row.label, size, row.error]
    best = max(one.throughput, key=lambda batch: one.throughput[batch], default=None)
    return [
        row.label,
        size,
        f"{one.load:.2f}",
        f"{one.cold_start:.2f}",
        *(
            "" if seconds is None else f"{1000 * seconds:.2f}"
            for seconds in (one.preprocess, one.encode, one.first_token, one.per_token)
        ),
        *(f"{1000 * seconds:.1f}" for seconds in (one.p50, one.p90, one.p99, one.from_pixels)),
        f"{one.throughput[1]:.0f}" if 1 in one.throughput else f"{1 / one.from_pixels:.1f}",
        f"{one.throughput[best]:.0f} ({best})" if best else "",
        f"{one.peak_bytes / 1e6:.0f}",
        "" if one.same_words is None else f"{one.same_words:.0%}",
        "" if one.roofline is None else f"{one.roofline:.0%}",
        *("" if times is None else f"{times:.1f}" for times in (one.over_eager, one.over_function)),
    ]


def note(result: Bench) -> str:
    """What the figures are."""
    threads = f"threads: {result.threads or 'as many as each engine chooses'}, cores: {result.cores}"
    machine = f"{result.machine.multiplications / 1e9:.0f} GMAC/s, {result.machine.bytes / 1e9:.0f} GB/s"
    return (
        f"{result.captions} greedy captions of {result.photos} photos a row, in turns; times are medians ({threads}). "
        f"Captions a second, by themselves and in the best batch (its size), roofline and times Keras are from pixels "
        f"on: preprocessing is left out, as simple_gen is given pixels. Roofline: what this machine's {machine} allow, "
        f"over what was measured. Keras runs simple_gen's loop, eager and under tf.function."
    )


def _write(path: Path, text: str, force: bool) -> None:
    with new_file(path, force=force, tidy=True) as partial:
        partial.write_text(f"{text}\n", encoding="utf-8")
