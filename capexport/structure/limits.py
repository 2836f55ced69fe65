"""What all formats' readers share: their error, the bounds, and sizes of tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..plain import quoted

MAX_ITEMS = 200_000  # nodes, tensors, strings and the like of a file: a hundred times what captioners have
MAX_DEPTH = 16  # graphs in graphs
MAX_RANK = 16
MAX_BYTES = 2**31  # of a tensor
MAX_TEXT = 100_000  # bytes of a name or comment


class MalformedError(Exception):
    """What is wrong with a file, as the rest of a sentence."""


def tensor_bytes(dims: Sequence[int], bits: int, name: str) -> int:
    """Bytes of a tensor whose elements have so many bits; MalformedError if it cannot be or is too large."""
    if len(dims) > MAX_RANK or any(n < 0 for n in dims):
        raise MalformedError(f"the tensor {quoted(name)} has impossible dimensions")
    size = (math.prod(dims) * bits + 7) // 8
    if size > MAX_BYTES or math.prod(max(n, 1) for n in dims) > MAX_BYTES:
        raise MalformedError(f"the tensor {quoted(name)} is larger than {MAX_BYTES / 2**30:g} GiB")
    return size
