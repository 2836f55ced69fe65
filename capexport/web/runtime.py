"""onnxruntime-web: the files of it that a page needs, of the one version that package.json pins, by their hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from importlib import resources
from pathlib import Path

from ..errors import OptionError

PACKAGE = "onnxruntime-web"
# The script and the WebAssembly of each build; that for WebGPU computes with what a GPU lacks in WebAssembly.
BUILDS = {
    "wasm": ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"),
    "webgpu": ("ort.webgpu.bundle.min.mjs", "ort-wasm-simd-threaded.asyncify.wasm"),
}


def pinned() -> tuple[str, Mapping[str, str]]:
    """The version of onnxruntime-web, and the SHA-256 of each of its files that are used."""
    package = json.loads(resources.files(__package__).joinpath("package.json").read_text("utf-8"))
    return package["dependencies"][PACKAGE], package["sha256"]


def read_runtime(folder: Path | None = None, builds: Collection[str] = ("wasm",)) -> dict[str, bytes]:
    """The files of onnxruntime-web by name.

    folder  that of the npm package; None: node_modules/onnxruntime-web of the working directory
    builds  those of BUILDS that are wanted

    Raises OptionError if a file is not there, or is another than the pinned one.
    """
    version, hashes = pinned()
    folder = Path("node_modules", PACKAGE) if folder is None else folder
    install = f"npm install {PACKAGE}@{version}"
    files = {}
    for name in [name for build in builds for name in BUILDS[build]]:
        try:
            files[name] = (folder / "dist" / name).read_bytes()
        except OSError as error:
            raise OptionError(
                f"There is no {PACKAGE} in {folder}: run '{install}', or name the package's folder with --runtime."
            ) from error
        if hashlib.sha256(files[name]).hexdigest() != hashes[name]:
            raise OptionError(f"{folder / 'dist' / name} is not that of {PACKAGE} {version}: run '{install}'.")
    return files
