"""The bundle that is used when none is named: of the captioner that ships, as it ships, or converted once and kept."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import sys
from pathlib import Path

from ..manifest import SCHEMA
from ..recipes import DEFAULT_RECIPE
from ..shipped import NAME, shipped_bundle, shipped_captioner


def default_bundle(to: str | None = None, recipe: str = DEFAULT_RECIPE) -> Path:
    """The shipped captioner as a bundle: one that ships, or else one in the user's cache, made on first use.

    to  its format; None: that of an engine that is installed

    Raises MissingExtraError if it must be made and TensorFlow is not installed.
    """
    to = to or _installed()
    ready = shipped_bundle(to, recipe)
    if ready is not None:
        return ready
    source = shipped_captioner()
    digest = hashlib.sha256(f"{SCHEMA} {importlib.metadata.version('capexport')}".encode())
    for path in sorted(source.iterdir()):
        digest.update(path.read_bytes())
    bundle = _cache() / f"{NAME}-{to}-{recipe}-{digest.hexdigest()[:12]}"
    if not bundle.exists():
        print("Converting the captioner that ships, once; name a bundle to use another.", file=sys.stderr)
        from ..export.convert import convert

        convert(source, bundle, to=to, recipe=recipe)
    return bundle


def _installed() -> str:
    onnx = importlib.util.find_spec("onnxruntime") or not importlib.util.find_spec("ai_edge_litert")
    return "onnx" if onnx else "tflite"


def _cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "capexport"
