"""A static page that captions with a bundle: its files, from the bundle, this package and onnxruntime-web."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

from ..atomic import new_directory
from ..bundle import Bundle, read_bundle
from ..errors import OptionError
from ..heat import LEAST_RANGE, PALETTE
from ..manifest import MANIFEST, PARITY, VOCABULARY
from ..parity.comparison import NEAR_TIE, margin
from ..parity.vectors import unpack
from ..recipes import RECIPES
from ..shipped import sample_photos
from .runtime import BUILDS, pinned, read_runtime

SITE = "site.json"  # what the page is to load, and the mark of a folder that --force may replace
FORMATS = ("onnx", "ort")
SOURCES = (".html", ".css", ".js", ".json", ".svg")
WORKER = "worker.js"
PACKED = ".gz"
LEVELS = 1  # by which pixels of JPEG files may differ from Python's; browsers decode those of a notebook's resizer
# That which using the page does not need:
UNKEPT = {WORKER, "parity.json", "parity.js", "parity.html", "parity_page.js", "package.json"}


def write_page(
    bundle: str | Path | Bundle, out: Path, runtime: Path | None = None, force: bool = False, webgpu: bool = False
) -> None:
    """Write the folder of a page that captions photos with the bundle, without a server's help or a connection.

    runtime  the folder of the npm package onnxruntime-web; None: that in node_modules of the working directory
    webgpu   whether the page has onnxruntime-web's build for WebGPU, too, and uses it where there is an adapter

    Raises OptionError for a bundle that onnxruntime-web cannot run and for another runtime than the pinned one,
    OutputError if `out` exists, unless force and it is such a page's, BundleError for a bundle that is damaged.
    """
    bundle = bundle if isinstance(bundle, Bundle) else read_bundle(bundle)
    _check(bundle)
    files = page_files(bundle, read_runtime(runtime, tuple(BUILDS) if webgpu else ("wasm",)))
    with new_directory(out, mark=SITE, force=force) as partial:
        for name, data in files.items():
            path = partial / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)


def page_files(bundle: Bundle, runtime: dict[str, bytes]) -> dict[str, bytes]:
    """The page's files by their paths in its folder; the same bytes every time."""
    files = _sources()
    files["parity.json"] = _json(parity(bundle))
    files[f"bundle/{MANIFEST}"] = bundle.manifest.to_json().encode()
    files |= {f"bundle/{name}": bundle.files[name] for name in _loaded(bundle)}
    files |= {f"runtime/{name}": data for name, data in runtime.items()}
    files |= {f"runtime/{name}": data for name, data in _packed(runtime).items()}
    photos = sample_photos()
    files |= {f"photos/{photo.name}": photo.read_bytes() for photo in photos}
    files[SITE] = _json(_site(bundle, files, [photo.name for photo in photos]))
    # A browser that has the page keeps it until the worker's own bytes change.
    digest = hashlib.sha256(b"".join(name.encode() + hashlib.sha256(files[name]).digest() for name in sorted(files)))
    kept = sorted(["./", *files.keys() - UNKEPT])
    values = {"version": json.dumps(digest.hexdigest()[:16]), "files": json.dumps(kept)}
    files[WORKER] = re.sub(r'"{{(\w+)}}"', lambda field: values[field[1]], files[WORKER].decode()).encode()
    return files


def parity(bundle: Bundle) -> dict[str, Any]:
    """The twin in JSON of parity.npz, without its logits and features, and what the bundle's recipe is allowed.

    A log-probability is a logit less the logarithm of a sum over all of them, and so may be off by twice as much.
    """
    bounds = RECIPES[bundle.manifest.recipe].bounds
    return {
        "bounds": {
            "identical": bounds.identical,
            "log_probability_error": 2 * bounds.logits_error,
            "same_cell": bounds.same_cell,
            "near_tie": NEAR_TIE,
            "levels": LEVELS if bundle.manifest.preprocessing.resize == "bilinear-antialias" else None,
        },
        "vectors": [
            {
                "photo": vector.photo,
                "pixels": base64.b64encode(vector.pixels.tobytes()).decode(),
                "tokens": vector.tokens.tolist(),
                "log_probabilities": vector.log_probabilities.tolist(),
                "margins": [margin(logits) for logits in vector.logits],
                "attention": vector.attention.reshape(len(vector.tokens), -1).tolist(),
            }
            for vector in unpack(bundle.files[PARITY], bundle.manifest)
        ],
    }


def _check(bundle: Bundle) -> None:
    manifest = bundle.manifest
    if manifest.format not in FORMATS:
        raise OptionError(
            f"A page runs bundles of {' and '.join(FORMATS)}; {bundle.directory} is of {manifest.format}: convert the "
            "captioner with --to onnx."
        )


def _loaded(bundle: Bundle) -> list[str]:
    """The bundle's files that the page loads; a graph for whole captions stays behind."""
    return [VOCABULARY, *(bundle.manifest.graphs[name].file for name in ("encoder", "decoder"))]


def _packed(runtime: dict[str, bytes]) -> dict[str, bytes]:
    """WebAssembly as a browser unpacks it itself, for a quarter of the bytes from servers that do not pack."""
    wasm = {name: data for name, data in runtime.items() if name.endswith(".wasm")}
    return {name + PACKED: gzip.compress(data, mtime=0) for name, data in wasm.items()}


def _site(bundle: Bundle, files: dict[str, bytes], photos: list[str]) -> dict[str, Any]:
    version, hashes = pinned()
    builds = {
        build: {"script": f"runtime/{script}", "wasm": {**_wasm(f"runtime/{wasm}", files), "sha256": hashes[wasm]}}
        for build, (script, wasm) in BUILDS.items()
        if f"runtime/{wasm}" in files
    }
    return {
        "runtime": {"version": version, "builds": builds},
        "palette": PALETTE,
        "leastRange": LEAST_RANGE,
        "photos": [f"photos/{name}" for name in photos],
        "modelBytes": sum(len(bundle.files[name]) for name in _loaded(bundle)),
    }


def _wasm(file: str, files: dict[str, bytes]) -> dict[str, Any]:
    packed = file + PACKED
    return {"file": file, "bytes": len(files[file]), "packed": packed, "packedBytes": len(files[packed])}


def _sources() -> dict[str, bytes]:
    """The page's own files, those of this package that are no Python."""
    found = resources.files(__package__).iterdir()
    files = {entry.name: entry.read_bytes() for entry in found if entry.is_file() and entry.name.endswith(SOURCES)}
    return {"index.html" if name == "page.html" else name: data for name, data in sorted(files.items())}


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
