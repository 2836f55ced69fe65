"""What captioning costs with capexport beside what one would do otherwise: same weights, photos and words, one run.

    python benchmarks/peers.py [--source DIR] [--photos DIR] [--captions 50] [--threads 1] [--only NAME,...]
                               [--bundles DIR] [--json FILE] [--markdown FILE] [--force]

The peers are listed in peer/registry.py; those that are no engine of capexport's need capexport[peers]. How it is
measured is written down in README.md. The exit code is 1 where a peer has no row of measures.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.metadata
import json
import os
import statistics
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

from peer.registry import chosen
from peer.rows import HEADER, build_rows, cells, legend
from peer.turns import SLOW, take_turns

import capexport
from capexport.atomic import check_absent, new_file
from capexport.cli.photos import photos_in
from capexport.cli.tables import aligned_table, markdown_table
from capexport.errors import CapexportError, OptionError
from capexport.runtime.workers import cores
from capexport.shipped import sample_photos

PACKAGES = ("tensorflow", "tf-keras", "onnxruntime", "tf2onnx", "ai-edge-litert", "torch", "jax", "openvino", "numpy")
INCOMPLETE, USAGE = 1, 2


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command's options; raises OptionError for numbers that make no sense."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, metavar="DIR", help="the captioner (default: the one that ships)")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="photos (default: those that ship)")
    parser.add_argument("--captions", type=int, default=50, metavar="N", help="of each peer (default: 50)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of every engine (default: 1)")
    parser.add_argument("--only", default="", metavar="NAME,...", help="these peers (default: all)")
    parser.add_argument("--bundles", type=Path, metavar="DIR", help="where bundles are, or are left, as onnx-fp32 etc.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the measures to a file")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table to a file")
    parser.add_argument("--force", action="store_true", help="replace the files of --json and --markdown")
    parsed = parser.parse_args(arguments)
    if parsed.captions < 1 or parsed.threads < 1:
        raise OptionError("--captions and --threads must be 1 or more.")
    return parsed


def run(parsed: argparse.Namespace) -> int:
    """Prepare, take turns, print the table."""
    entries = chosen([name for name in parsed.only.split(",") if name])
    for path in filter(None, (parsed.json, parsed.markdown)):
        check_absent(path, parsed.force)
    photos = (photos_in(parsed.photos) if parsed.photos else sample_photos())[: parsed.captions]
    captioner = capexport.load_captioner(parsed.source)
    from peer.files import make_folder

    pixels, preprocess = [], []
    for photo in photos:
        started = time.perf_counter()
        pixels.append(capexport.load_image(photo, captioner.config.image_size, captioner.config.resize))
        preprocess.append(time.perf_counter() - started)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        expected, unready = make_folder(folder, captioner, parsed.source, pixels, entries, parsed.bundles)
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        outcomes = take_turns(entries, unready, folder, len(photos), parsed.captions, parsed.threads)
    rows = build_rows(entries, outcomes, expected)
    table = [cells(row) for row in rows]
    note = (
        f"{parsed.captions} greedy captions a peer (fewer of those slower than {1000 * SLOW:.0f} ms, as shown) of "
        f"{len(photos)} photos, in turns, from pixels to words; preprocessing a photo takes another "
        f"{1000 * statistics.median(preprocess):.1f} ms. Threads of each engine: {parsed.threads}, cores: "
        f"{cores()}. {', '.join(f'{name} {version}' for name, version in _versions().items())}."
    )
    print(f"{aligned_table(HEADER, table)}\n\n{textwrap.fill(note, 100)}\n\n{legend(rows)}")
    if parsed.json:
        record = {
            "rows": [dataclasses.asdict(row) for row in rows],
            "photos": len(photos),
            "captions": parsed.captions,
            "threads": parsed.threads,
            "cores": cores(),
            "load_average": load,
            "preprocess": statistics.median(preprocess),
            "versions": _versions(),
        }
        _write(parsed.json, json.dumps(record, indent=1), parsed.force)
    if parsed.markdown:
        _write(parsed.markdown, f"{markdown_table(HEADER, table)}\n\n{note}\n\n{legend(rows)}", parsed.force)
    return INCOMPLETE if any(row.error for row in rows) else 0


def _versions() -> dict[str, str]:
    """Of the packages that are installed."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _write(path: Path, text: str, force: bool) -> None:
    with new_file(path, force=force) as partial:
        partial.write_text(f"{text}\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code; errors a user can cause are one sentence."""
    try:
        return run(parse(arguments))
    except CapexportError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE


if __name__ == "__main__":
    sys.exit(main())
