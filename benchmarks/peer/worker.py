"""The process of one peer: it loads, warms up, and captions photos in the turns that it is told."""

from __future__ import annotations

import importlib
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from capexport.errors import CapexportError
from capexport.timing.machine import BLAS_THREADS
from capexport.timing.worker import Answer, serve

from .base import Peer, Pixels, reason

WARM_UP = 6  # photos, each captioned twice: compilers that look at shapes have seen prefixes of many lengths by then


def main(spec: dict[str, Any]) -> None:
    """Serve a peer: a line of photos' indices is answered by a list of [tokens, seconds, seconds of encoding]."""

    def begin() -> tuple[Any, Answer]:
        for name in (*BLAS_THREADS, "NPROC"):  # read when engines are imported
            os.environ[name] = str(spec["threads"])
        folder = Path(spec["folder"])
        pixels = np.load(folder / "pixels.npy", mmap_mode="r")
        try:
            peer: Peer = getattr(importlib.import_module(spec["module"]), spec["kind"])(**spec["options"])
            peer.load(folder, spec["threads"])
            start = {"seconds": _warm_up(peer, pixels), "note": peer.note}
        except Exception as error:  # whatever an engine raises is the row's reason
            raise CapexportError(reason(error)) from error
        return start, lambda order: _turn(peer, pixels[order["photos"]])

    serve(begin)


def _warm_up(peer: Peer, pixels: Pixels) -> float:
    """The seconds of a caption, once the peer is warm."""
    for one in pixels[:WARM_UP]:
        peer.caption(one)
    return statistics.median(_timed(peer, one)[1] for one in pixels[:WARM_UP])


def _turn(peer: Peer, photos: Pixels) -> list[tuple[list[int], float, float | None]]:
    peer.caption(photos[0])  # the peer before has left its weights in the processor's caches
    return [_timed(peer, one) for one in photos]


def _timed(peer: Peer, pixels: Pixels) -> tuple[list[int], float, float | None]:
    started = time.perf_counter()
    tokens = peer.caption(pixels)
    return tokens, time.perf_counter() - started, peer.encode_seconds
