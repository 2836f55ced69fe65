"""capexport puts trained image captioners on phones, browsers and edge boxes.

    import capexport

    captioner = capexport.load("bundle")
    print(capexport.load("bundle").caption("photo.jpg").text)

Importing this package imports neither TensorFlow nor an inference engine; what needs them is loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .errors import (
    BundleError,
    CapexportError,
    DataError,
    DownloadError,
    ImageError,
    MissingExtraError,
    OptionError,
    OutputError,
    SourceError,
    VocabularyError,
)

if TYPE_CHECKING:
    from .bundle import Bundle, read_bundle
    from .captioner.storage import load_captioner, save_captioner
    from .evaluation.compare import compare
    from .evaluation.evaluate import evaluate
    from .evaluation.verify import verify
    from .export.convert import convert
    from .image import load_image
    from .runtime.caption import Caption
    from .runtime.captioner import Captioner, load
    from .runtime.options import DecodingOptions
    from .timing.bench import bench


_LAZY = {
    "Bundle": "bundle",
    "Caption": "runtime.caption",
    "Captioner": "runtime.captioner",
    "DecodingOptions": "runtime.options",
    "bench": "timing.bench",
    "compare": "evaluation.compare",
    "convert": "export.convert",
    "evaluate": "evaluation.evaluate",
    "load": "runtime.captioner",
    "load_captioner": "captioner.storage",
    "load_image": "image",
    "read_bundle": "bundle",
    "save_captioner": "captioner.storage",
    "verify": "evaluation.verify",
}

__all__ = [
    "Bundle",
    "BundleError",
    "CapexportError",
    "Caption",
    "Captioner",
    "DataError",
    "DecodingOptions",
    "DownloadError",
    "ImageError",
    "MissingExtraError",
    "OptionError",
    "OutputError",
    "SourceError",
    "VocabularyError",
    "bench",
    "compare",
    "convert",
    "evaluate",
    "load",
    "load_captioner",
    "load_image",
    "read_bundle",
    "save_captioner",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'capexport' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
