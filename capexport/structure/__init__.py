"""Graphs' files walked before an engine parses them, in pure Python: what could reach outside or crash is refused.

Hashes guard against accidents only, for whoever makes a bundle computes them. So each format has a reader of its
structure here. None of them copies the weights, and each knows only what the exporters of this project write.
"""

from __future__ import annotations

from ..errors import BundleError
from .limits import MalformedError


def check_archive(data: bytes, what: str) -> None:
    """Raise BundleError unless it is a zip archive of a few plain members whose sizes are bounded; none is unpacked."""
    from .archive import check

    try:
        check(data)
    except MalformedError as error:
        raise BundleError(f"{what} is refused: {error}.") from error


def check_graph(format_name: str, data: bytes, what: str) -> None:
    """Raise BundleError if a file of graphs is malformed, or asks for more than captioning needs.

    format_name  one of recipes.FORMATS
    data         the file's bytes
    what         the file's description in the error
    """
    if format_name == "onnx":
        from .onnx import check
    elif format_name == "ort":
        from .ort import check
    else:
        from .tflite import check
    try:
        check(data)
    except MalformedError as error:
        raise BundleError(f"{what} is refused: {error}.") from error
