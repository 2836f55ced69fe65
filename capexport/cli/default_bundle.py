"""The bundle that is used when none is named: the captioner that ships, converted once and kept."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import sys
from pathlib import Path

from ..manifest import SCHEMA
from ..recipes import DEFAULT_RECIPE
from ..shipped import NAME, shipped_captioner


def default_bundle() -> Path:
    """The shipped captioner as a bundle in the user's cache, made on first use (for which TensorFlow is needed).

    Raises MissingExtraError if it must be made and TensorFlow is not installed.
    """
    source = shipped_captioner()
    to = (
        "onnx"
        if importlib.util.find_spec("onnxruntime") or not importlib.util.find_spec("ai_edge_litert")
        else "tflite"
    )
    digest = hashlib.sha256(f"{SCHEMA} {importlib.metadata.version('capexport')}".encode())
    for path in sorted(source.iterdir()):
        digest.update(path.read_bytes())
    bundle = _cache() / f"{NAME}-{to}-{DEFAULT_RECIPE}-{digest.hexdigest()[:12]}"
    if not bundle.exists():
        print("Converting the captioner that ships, once; name a bundle with --bundle to use another.", file=sys.stderr)
        from ..export.convert import convert

        convert(source, bundle, to=to, recipe=DEFAULT_RECIPE)
    return bundle


def _cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "capexport"
