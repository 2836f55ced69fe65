"""capexport web"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..atomic import check_replaceable
from ..bundle import read_bundle
from ..recipes import RECIPES, Precision
from ..web.page import SITE, write_page
from ..web.runtime import BUILDS, read_runtime
from ..web.serve import page_server
from .default_bundle import default_bundle

PORT = 8000
RECIPE = "weight-int8"  # the one that is both small and fast in WebAssembly


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "bundle",
        type=Path,
        nargs="?",
        metavar="BUNDLE",
        help=f"of the format onnx or ort, in any recipe (default: the captioner that ships, in {RECIPE})",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to make, for any web server")
    parser.add_argument(
        "--runtime",
        type=Path,
        metavar="DIR",
        help="the npm package onnxruntime-web (default: node_modules/onnxruntime-web)",
    )
    parser.add_argument(
        "--webgpu",
        action="store_true",
        help="with onnxruntime-web's build for WebGPU, too (27 MB), which the page uses where there is an adapter",
    )
    parser.add_argument("--force", action="store_true", help="replace a page's folder")
    parser.add_argument("--serve", action="store_true", help="then serve it on this machine, until Ctrl-C")
    parser.add_argument("--port", type=int, default=PORT, metavar="N", help=f"of --serve (default: {PORT})")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> None:
    """Write the page's folder and say where it is; serve it if asked to."""
    if not parsed.bundle:  # one may have to be made, which takes a minute: what is missing is said before
        check_replaceable(parsed.out, SITE, parsed.force)
        read_runtime(parsed.runtime, tuple(BUILDS) if parsed.webgpu else ("wasm",))
    bundle = read_bundle(parsed.bundle or default_bundle("onnx", RECIPE))
    write_page(bundle, parsed.out, parsed.runtime, parsed.force, parsed.webgpu)
    slow = RECIPES[bundle.manifest.recipe].precision("decoder") in (Precision.DYNAMIC, Precision.STATIC)
    if slow:
        print(
            f"capexport: {bundle.manifest.recipe} is slow in WebAssembly; {RECIPE}, of the same size, takes a third to "
            f"a sixth of the time a word there: convert with --recipe {RECIPE} for pages.",
            file=sys.stderr,
        )
    size = sum(path.stat().st_size for path in parsed.out.rglob("*") if path.is_file())
    print(f"{parsed.out}: {size / 1e6:.1f} MB", flush=True)
    if parsed.serve:
        with page_server(parsed.out, parsed.port) as server:
            print(f"http://localhost:{server.server_port}/ (Ctrl-C ends it)", flush=True)
            server.serve_forever()
