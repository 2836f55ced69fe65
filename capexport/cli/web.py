"""capexport web"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..web.page import write_page
from ..web.serve import page_server

PORT = 8000


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="of the format onnx or ort, in any recipe")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to make, for any web server")
    parser.add_argument(
        "--runtime",
        type=Path,
        metavar="DIR",
        help="the npm package onnxruntime-web (default: node_modules/onnxruntime-web)",
    )
    parser.add_argument("--force", action="store_true", help="replace a page's folder")
    parser.add_argument("--serve", action="store_true", help="then serve it on this machine, until Ctrl-C")
    parser.add_argument("--port", type=int, default=PORT, metavar="N", help=f"of --serve (default: {PORT})")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> None:
    """Write the page's folder and say where it is; serve it if asked to."""
    write_page(parsed.bundle, parsed.out, parsed.runtime, parsed.force)
    size = sum(path.stat().st_size for path in parsed.out.rglob("*") if path.is_file())
    print(f"{parsed.out}: {size / 1e6:.1f} MB", flush=True)
    if parsed.serve:
        with page_server(parsed.out, parsed.port) as server:
            print(f"http://localhost:{server.server_port}/ (Ctrl-C ends it)", flush=True)
            server.serve_forever()
